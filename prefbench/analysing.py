"""Analyses of a run: answers are laid beside others' answers, and cells of numbers are sealed."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from prefbench import needed
from prefbench.analyses import PlannedAnalysis, facts
from prefbench.candidates import Candidates, rewards_of
from prefbench.comparisons import Judging
from prefbench.errors import JudgeError, LostError, PrefbenchError, StoreError
from prefbench.judges.budget import Budget
from prefbench.judges.judge import Ask, Turn, Unheard
from prefbench.judging import INHERITED, Court
from prefbench.listener import Listener
from prefbench.manifest import now, task_facts
from prefbench.measures.answers import pair_quantities, text_quantities
from prefbench.measures.beside import apart
from prefbench.measures.comparison import Heard
from prefbench.measures.divergence import divergence
from prefbench.measures.items import Item
from prefbench.measures.margins import PairAnswers, margins_of
from prefbench.measures.ranking import ranking
from prefbench.records import Answer, Record
from prefbench.store import Cell, Store

Numbers = Mapping[str, float] | str
"""The quantities of an item, or why it has none."""


class Analyst:
    """Works analyses out; what another process has claimed is waited for."""

    def __init__(self, store: Store, judging: Judging, listener: Listener, budget: Budget) -> None:
        self.store = store
        self.judging = judging
        self.listener = listener
        self.budget = budget
        self.failed: dict[str, str] = {}

    def carry_out(self, analyses: Sequence[PlannedAnalysis]) -> dict[str, str]:
        """Works analyses out and returns the reasons of those that failed."""
        for number, analysis in enumerate(analyses):
            self.listener.on_step("beside references", number, len(analyses))
            while not self._is_done(analysis):
                self.listener.on_notice(f"{analysis.title}: taken over by another process")
        if analyses:
            self.listener.on_step("beside references", len(analyses), len(analyses))
        return self.failed

    def _is_done(self, analysis: PlannedAnalysis) -> bool:
        """Works one out as soon as it can be had; no if it was lost meanwhile."""
        with self.store.claim(analysis.cell, wait=True) as cell:
            assert cell is not None
            try:
                if not self.store.is_sealed(analysis.cell):
                    with self._failing(cell):
                        self._seal(analysis, cell)
            except LostError:
                return False
        return True

    @contextlib.contextmanager
    def _failing(self, cell: Cell) -> Iterator[None]:
        """Whatever goes wrong inside is written down as the cell's failure; the others go on."""
        try:
            yield
        except (StoreError, LostError):
            raise  # a directory that cannot be written fails every cell alike
        except Exception as error:  # noqa: BLE001  # an analysis never takes others down
            known = isinstance(error, PrefbenchError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            cell.fail(reason, traceback.format_exc())
            self.failed[cell.name] = reason

    def _seal(self, analysis: PlannedAnalysis, cell: Cell) -> None:
        if analysis.missing:
            raise PrefbenchError(analysis.missing)
        manifest = needed.manifest_of(analysis.answers, self.store)
        answers = self.store.answers(analysis.answers.cell)
        others = [needed.answers_of(one, self.store, manifest["items"]) for one in analysis.others]
        rows = self.store.items(manifest["items"]).to_pylist()
        items = {
            row["item"]: Item(
                row["item"],
                row["prompt"],
                tuple(row["continuations"]),
                json.loads(row["fields"]),
                row["cluster"],
            )
            for row in rows
        }
        match analysis.measure:
            case "margins":
                found = _margins(analysis, answers, others[0], items)
            case "divergence":
                found = _divergence(answers, *others)
            case _:
                found = self._ranking(analysis, answers, items)
        records = list(_records(answers, found))
        reasons = Counter(record.reason for record in records if record.reason)
        if answers and sum(reasons.values()) == len(answers):
            why = "; ".join(f"{n} × {reason}" for reason, n in reasons.most_common(3))
            raise PrefbenchError(f"no item has a number: {why}")
        told = {
            **{name: manifest[name] for name in INHERITED},
            "task": task_facts(analysis.answers.task),  # another may have asked about the same
            "cell": analysis.cell,
            "identity": dict(analysis.identity),
            "higher_is_better": {},
            "n_items": len(answers),
            "n_missing": sum(reasons.values()),
            "missing": dict(reasons),
            "analysis": facts(analysis),
            "finished": now(),
        }
        cell.seal([], records, {item: one.cluster for item, one in items.items()}, told)

    def _ranking(
        self, analysis: PlannedAnalysis, answers: Sequence[Answer], items: Mapping[int, Item]
    ) -> list[Numbers]:
        """Each item's candidates by log-prob beside their rewards."""
        known = [answer for answer in answers if not answer.reason]
        rewards = self._rewards(analysis, [items[answer.item] for answer in known])
        ranked = {
            answer.item: some
            if isinstance(some, str)
            else ranking(answer.logps, answer.n_tokens, some)
            for answer, some in zip(known, rewards, strict=True)
        }
        return [answer.reason or ranked[answer.item] for answer in answers]

    def _rewards(self, analysis: PlannedAnalysis, items: Sequence[Item]) -> list[list[float] | str]:
        """Those that the data have; else a judge's.

        Raises:
            JudgeError: a verdict did not arrive; the same command asks for it again.
        """
        known = {item.item: item.fields["rewards"] for item in items if item.fields.get("rewards")}
        asked = [item for item in items if item.item not in known]
        judged = dict(
            zip((item.item for item in asked), self._judged(analysis, asked), strict=True)
        )
        return [known.get(item.item) or judged[item.item] for item in items]

    def _judged(self, analysis: PlannedAnalysis, items: Sequence[Item]) -> list[list[float] | str]:
        """A judge's rewards of candidates whose rewards the data do not have."""
        if analysis.judge is None:
            return ["the data have no rewards, and the task names no judge"] * len(items)
        if not items:
            return []
        several = [
            Candidates(
                tuple(Turn(t["role"], t["content"]) for t in item.fields["messages"]),
                tuple(text.strip() for text in item.continuations),
            )
            for item in items
        ]
        unheard: Counter[str] = Counter()
        with (
            Court(self.store, self.judging, self.listener, self.budget) as court,
            court.sitting(analysis.judge) as hear,
        ):

            def counted(asks: Sequence[Ask]) -> dict[Ask, Heard]:
                heard = hear(asks)
                unheard.update(one.reason for one in heard.values() if isinstance(one, Unheard))
                return heard

            found = rewards_of(several, analysis.judge, counted)
        if unheard:
            why = "; ".join(f"{n} × {reason}" for reason, n in unheard.most_common(3))
            raise JudgeError(
                f"{unheard.total()} verdicts are missing ({why}); the same command asks for them "
                "again"
            )
        return found


def _margins(
    analysis: PlannedAnalysis,
    answers: Sequence[Answer],
    theirs: Mapping[int, Answer],
    items: Mapping[int, Item],
) -> list[Numbers]:
    both = [
        PairAnswers(one, _alike(one, theirs[one.item]), len(items[one.item].fields["chosen"]))
        for one in answers
    ]
    found = margins_of(both, beta=float(analysis.identity["beta"]))
    return [
        one if isinstance(one, str) else {**pair_quantities(items[answer.item], answer), **one}
        for answer, one in zip(answers, found, strict=True)
    ]


def _alike(ours: Answer, theirs: Answer) -> Answer:
    """The reference's answer, or why it cannot stand beside ours."""
    if theirs.reason or ours.reason:
        return theirs
    reason = apart(ours.token_ids, ours.n_cut, theirs)
    return Answer(theirs.item, reason=reason) if reason else theirs


def _divergence(
    samples: Sequence[Answer], policy: Mapping[int, Answer], reference: Mapping[int, Answer]
) -> list[Numbers]:
    found: list[Numbers] = []
    for one in samples:
        ours, theirs = policy[one.item], reference[one.item]
        reason = one.reason or ours.reason or (theirs.reason and f"reference: {theirs.reason}")
        if reason:
            found.append(reason)
        else:
            found.append({**text_quantities(one), **divergence(one, ours.logps, theirs.logps)})
    return found


def _records(answers: Sequence[Answer], found: Sequence[Numbers]) -> Iterator[Record]:
    for answer, numbers in zip(answers, found, strict=True):
        if isinstance(numbers, str):
            yield Record(answer.item, "answer", None, numbers)
            continue
        yield Record(answer.item, "cut", float(answer.n_cut > 0))
        for name, value in numbers.items():
            yield Record(answer.item, name, value)
