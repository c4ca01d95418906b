"""The judging of a run: verdicts are looked up, asked for and kept, and comparisons are sealed."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from prefbench.comparisons import Judging, PlannedComparison, facts_of
from prefbench.errors import JudgeError, LostError, PrefbenchError, StoreError
from prefbench.judges.budget import Budget
from prefbench.judges.judge import Ask, Judge, Unheard, Verdict, key_of
from prefbench.judges.opening import Bench, PlannedJudge, open_judge
from prefbench.judges.verdicts import Verdicts
from prefbench.listener import Listener
from prefbench.manifest import now, task_facts
from prefbench.measures.comparison import Heard, Pair, compare
from prefbench.measures.panel import agreement
from prefbench.pairing import pairs_of
from prefbench.records import Record
from prefbench.stats.sequential import confidence_sequence, sure_after
from prefbench.store import Cell, Store

VERDICTS = "verdicts.sqlite"
CONFIDENCE = 0.95
"""At which a comparison that may stop is sure."""
ROUND = 16
"""Items that are asked before it is looked whether a comparison is sure."""
AT_ONCE = 256
"""Comparisons that are judged together: each keeps a file open and its texts in memory."""
INHERITED = (
    "checkpoint",
    "task",
    "data",
    "items",
    "n_cut",
    "n_unfinished",
    "engine",
    "warnings",
    "sampling",
    "settings",
    "versions",
    "host",
    "command",
)
"""What a comparison's manifest repeats of that of the answers."""
NOT_NEEDED = "not asked: the comparison was sure before"


@dataclass
class _Open:
    """A comparison that this process has claimed, while it is judged."""

    planned: PlannedComparison
    cell: Cell
    pairs: list[Pair]
    asked: int = 0
    """Pairs from the front of `order` whose verdicts are asked for."""
    wins: list[float] = field(default_factory=list)
    """One a cluster: those of items that hang together would count as more than they are."""
    clusters: set[str] = field(default_factory=set)
    looked: int = 0
    """What the pairs from the front of `order` gave, as far as that was looked at."""
    order: list[int] = field(default_factory=list)
    sure: tuple[float, float] | None = None
    """The bounds of the win rate at which it stopped."""


class Court:
    """Judges comparisons, for the length of a `with`."""

    def __init__(
        self, store: Store, judging: Judging, listener: Listener, budget: Budget | None = None
    ) -> None:
        """Opens the verdict store; asks nobody.

        Args:
            store: where the verdicts and the comparisons' cells are kept.
            judging: how answers are judged.
            listener: told how it goes on.
            budget: what may be spent, where others spend of it too [the caps of `judging`].

        Raises:
            StoreError: the verdicts cannot be read or written.
        """
        self.store = store
        self.judging = judging
        self.listener = listener
        self.budget = budget or Budget(max_cost=judging.max_cost, max_calls=judging.max_calls)
        self.failed: dict[str, str] = {}
        self._lost: set[str] = set()
        """Cells that other processes have taken over while they were judged here."""
        self._verdicts = Verdicts(store.folder / VERDICTS)
        self._bench = Bench(
            budget=self.budget,
            ask=self._ask,
            batches=store.folder / "batches" if judging.mode == "batch" else None,
            logs=store.folder / "logs",
            on_notice=listener.on_notice,
        )

    def __enter__(self) -> Court:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._verdicts.__exit__()
        self.store.share_verdicts()

    def carry_out(self, comparisons: Sequence[PlannedComparison]) -> dict[str, str]:
        """Judges comparisons and returns the reasons of those that failed.

        What another process has claimed is left to it until the end, then waited for.
        """
        claimed: list[PlannedComparison] = []
        for judge in _by_judge(comparisons):
            claimed += self._judge_all(judge, wait=False)
        while claimed:  # again what is lost once more
            due = [comparison for judge in _by_judge(claimed) for comparison in judge]
            claimed = [one for each in due for one in self._judge_all([each], wait=True)]
        return self.failed

    @contextlib.contextmanager
    def sitting(
        self, planned: PlannedJudge, *, nth: int = 1
    ) -> Iterator[Callable[[Sequence[Ask]], dict[Ask, Heard]]]:
        """A judge that is asked outside of comparisons, its verdicts looked up and kept as ever.

        Args:
            planned: whom to ask.
            nth: 1 gives the verdicts that comparisons have; 2 and so on ask the same anew, each
                under keys of its own.

        Raises:
            JudgeError: the judge cannot be had, or failed as a whole.
        """
        bench = dataclasses.replace(self._bench, ask=partial(self._ask, nth=nth))
        with open_judge(planned, bench) as judge, self._alone_with(planned):

            def hear(asks: Sequence[Ask]) -> dict[Ask, Heard]:
                heard: dict[str, Heard] = {}
                self._hear(judge, asks, heard, nth=nth)
                return {ask: heard[judge.key_of(ask)] for ask in asks}

            yield hear

    def _judge_all(
        self, comparisons: Sequence[PlannedComparison], *, wait: bool
    ) -> list[PlannedComparison]:
        """All that one judge has to judge; returns what is another process's, or was lost to it."""
        others, members = [], []
        self._lost.clear()
        with contextlib.ExitStack() as claims:
            for planned in comparisons:
                cell = claims.enter_context(self.store.claim(planned.cell, wait=wait))
                if cell is None:
                    others.append(planned)
                elif not is_judged(self.store, planned):
                    with self._failing(cell):
                        members.append(_Open(planned, cell, pairs_of(planned, self.store)))
            if members:
                self._judge_members(members[0].planned.judge, members)
        return others + [planned for planned in comparisons if planned.cell in self._lost]

    def _judge_members(self, planned: PlannedJudge, members: Sequence[_Open]) -> None:
        with self._failing(*(one.cell for one in members)), contextlib.ExitStack() as stack:
            judge = stack.enter_context(open_judge(planned, self._bench))
            stack.enter_context(self._alone_with(planned))
            heard: dict[str, Heard] = {}
            while asks := [ask for one in members for ask in self._next(one, judge, heard)]:
                self._hear(judge, asks, heard)
            for one in members:
                with self._failing(one.cell):
                    self._seal(one, judge, heard)

    @contextlib.contextmanager
    def _failing(self, *cells: Cell) -> Iterator[None]:
        """Whatever goes wrong inside is written down as these cells' failure; the others go on."""
        try:
            yield
        except StoreError:
            raise  # a directory that cannot be written fails every cell alike
        except LostError:
            self._lost.update(cell.name for cell in cells)
        except Exception as error:  # noqa: BLE001  # a comparison never takes others down
            known = isinstance(error, PrefbenchError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            for cell in cells:
                self._fail(cell, reason, traceback.format_exc())

    def _fail(self, cell: Cell, reason: str, trace: str) -> None:
        try:
            cell.fail(reason, trace)
        except LostError:
            self._lost.add(cell.name)
        else:
            self.failed[cell.name] = reason

    @contextlib.contextmanager
    def _alone_with(self, planned: PlannedJudge) -> Iterator[None]:
        """Of the processes that use these results one asks a judge at a time: none pays twice.

        Members of a panel are judges of their own. All are claimed in the same order.
        """
        asked = {one.key: one for one in planned.members or (planned,)}
        with contextlib.ExitStack() as claims:
            for key, one in sorted(asked.items()):
                name = f"judge-{key[:16]}"
                if not claims.enter_context(self.store.alone(name)):
                    said = f"{one.name}: another process is asking it; waiting for that"
                    self.listener.on_notice(said)
                    claims.enter_context(self.store.alone(name, wait=True))
            yield

    def _next(self, one: _Open, judge: Judge, heard: Mapping[str, Heard]) -> list[Ask]:
        """What to ask next about a comparison: everything at once, unless it may stop early."""
        if not self.judging.stop_when_sure:
            one.order = list(range(len(one.pairs)))
        elif not one.order:
            # By the prompts themselves, so that an early end shows no particular part of the data.
            rng = np.random.default_rng(int(one.planned.task.definition[:12], 16))
            one.order = rng.permutation(len(one.pairs)).tolist()
        else:
            one.sure = one.sure or _sure(one, judge, heard)
        if one.sure:
            return []
        size = ROUND if self.judging.stop_when_sure else len(one.pairs)
        asks: list[Ask] = []
        while not asks and one.asked < len(one.order):  # some need no asking
            chosen = one.order[one.asked : one.asked + size]
            one.asked += len(chosen)
            pairs = [one.pairs[i] for i in chosen]
            asks = [
                a for p in pairs for a in p.asks(symmetric=judge.symmetric, equal=_rates(judge))
            ]
        return asks

    def _hear(
        self, judge: Judge, asks: Sequence[Ask], heard: dict[str, Heard], *, nth: int = 1
    ) -> None:
        """Every ask's verdict, from the store or from the judge, into `heard`."""
        unique = {judge.key_of(ask): ask for ask in asks}
        keys = list(unique)
        name = judge.recipe.judge
        self.listener.on_judge(name, 0, len(keys))
        for done, (index, one) in enumerate(self._ask(judge, list(unique.values()), nth=nth), 1):
            heard[keys[index]] = one
            self.listener.on_judge(name, done, len(keys))

    def _ask(
        self, judge: Judge, asks: Sequence[Ask], *, nth: int = 1
    ) -> Iterator[tuple[int, Heard]]:
        """Verdicts that are kept first, then those that the judge gives; each is kept at once."""
        judge_key = key_again(judge.key, nth)
        keys = [key_of(judge_key, ask) for ask in asks]
        kept = {} if judge.recipe.kind == "panel" else self._verdicts.find(keys)
        for index, key in enumerate(keys):
            if key in kept:
                yield index, kept[key]
        lacking = [index for index, key in enumerate(keys) if key not in kept]
        if not lacking:
            return
        for place, one in judge.decide([asks[index] for index in lacking]):
            index = lacking[place]
            if isinstance(one, Verdict) and judge.recipe.kind != "panel":
                self._verdicts.add(
                    keys[index], asks[index], one, judge=judge.recipe.judge, judge_key=judge_key
                )
                self.store.share_verdicts(sometimes=True)
            yield index, one

    def _seal(self, one: _Open, judge: Judge, heard: Mapping[str, Heard]) -> None:
        """Turns verdicts into numbers; fails where not a single one could be had."""
        done = set(one.order[: one.asked])
        pairs = [
            pair if i in done or pair.reason else dataclasses.replace(pair, reason=NOT_NEEDED)
            for i, pair in enumerate(one.pairs)
        ]
        records = list(_records(pairs, judge, heard))
        reasons = Counter(record.reason for record in records if record.reason)
        asks = {judge.key_of(a): a for p in pairs for a in p.asks(symmetric=judge.symmetric)}
        found = [(heard[key], _unheard(heard[key])) for key in asks]
        verdicts = [one for one, why in found if isinstance(one, Verdict) and not why]
        unheard = Counter(why for _, why in found if why)
        if pairs and sum(reasons.values()) == len(pairs):
            why = "; ".join(f"{n} × {reason}" for reason, n in reasons.most_common(3))
            raise JudgeError(f"no item could be compared: {why}")

        def total(quantity: str) -> float:
            return math.fsum(r.value or 0 for r in records if r.quantity == quantity)

        agree = None
        if members := one.planned.judge.recipe.members:
            agree = agreement(
                [pair for i, pair in enumerate(pairs) if i in done],
                lambda ask: heard[judge.key_of(ask)],
                members,
                symmetric=judge.symmetric,
            )
        manifest = {
            **_inherited(self.store, one.planned),
            "task": task_facts(one.planned.task),  # another may have asked for the same texts
            "cell": one.planned.cell,
            "identity": dict(one.planned.identity),
            "higher_is_better": {},
            "n_items": len(pairs),
            "n_missing": sum(reasons.values()),
            "missing": dict(reasons),
            "judging": {
                "judge": facts_of(one.planned.judge),
                "symmetric": judge.symmetric,
                "opponent": one.planned.opponent,
                "answers": one.planned.answers.cell,
                "opponent_answers": (
                    one.planned.opponent_answers.cell if one.planned.opponent_answers else None
                ),
                "n_verdicts": len(verdicts),
                "n_unreadable": sum(verdict.preference is None for verdict in verdicts),
                "n_unheard": sum(unheard.values()),
                "unheard": dict(unheard),
                "cost": math.fsum(verdict.cost for verdict in verdicts),
                "n_in": sum(verdict.n_in for verdict in verdicts),
                "n_out": sum(verdict.n_out for verdict in verdicts),
                "compared": total("compared"),
                "consistent": total("consistent"),
                "agreement": agree._asdict() if agree else None,
                "sure": one.sure,
                "confidence": CONFIDENCE if one.sure else None,
                "spent_by_this_run": self.budget.facts,
            },
            "finished": now(),
        }
        one.cell.seal([], records, {pair.item: pair.cluster for pair in pairs}, manifest)
        if unheard:
            why = "; ".join(f"{n} × {reason}" for reason, n in unheard.most_common(3))
            self.failed[one.planned.cell] = (
                f"{sum(unheard.values())} of {len(asks)} verdicts are missing ({why}); "
                "the same command asks for them again"
            )


def key_again(judge_key: str, nth: int) -> str:
    """The key of a judge that is asked for the nth time; the first is that of comparisons."""
    return judge_key if nth == 1 else f"{judge_key} {nth}"


def _unheard(heard: Heard) -> str | None:
    """Why a verdict did not arrive, or a member's, without whom the rest of a panel decided."""
    if isinstance(heard, Unheard):
        return heard.reason
    members: Mapping[str, Any] = heard.facts.get("members", {})
    lacking = [f"{name}: {one['reason']}" for name, one in members.items() if not one["heard"]]
    return "; ".join(lacking) or None


def _records(pairs: Sequence[Pair], judge: Judge, heard: Mapping[str, Heard]) -> Iterator[Record]:
    return compare(
        pairs,
        lambda ask: heard[judge.key_of(ask)],
        symmetric=judge.symmetric,
        equal=_rates(judge),
    )


def _rates(judge: Judge) -> bool:
    """Whether it scores a text whatever it is beside, so that equal ones are worth asking about."""
    return judge.recipe.kind == "reward"


def _sure(one: _Open, judge: Judge, heard: Mapping[str, Heard]) -> tuple[float, float] | None:
    """The bounds of the win rate so far, once they leave out a half."""
    for pair in (one.pairs[i] for i in one.order[one.looked : one.asked]):
        if pair.cluster in one.clusters:
            continue
        for record in _records([pair], judge, heard):
            if record.quantity == "win" and record.value is not None:
                one.wins.append(record.value)
                one.clusters.add(pair.cluster)
    one.looked = one.asked
    if not one.wins or sure_after(one.wins, confidence=CONFIDENCE) is None:
        return None
    low, high = confidence_sequence(one.wins, confidence=CONFIDENCE)
    return float(low[-1]), float(high[-1])


def _by_judge(comparisons: Iterable[PlannedComparison]) -> list[list[PlannedComparison]]:
    """Those of one judge after those of another, so many at a time as are judged together."""
    groups: dict[str, list[PlannedComparison]] = {}
    for comparison in comparisons:
        groups.setdefault(comparison.judge.key, []).append(comparison)
    return [
        group[start : start + AT_ONCE]
        for group in groups.values()
        for start in range(0, len(group), AT_ONCE)
    ]


def is_judged(store: Store, comparison: PlannedComparison) -> bool:
    """Whether nothing is left to ask about a comparison."""
    manifest = store.manifest(comparison.cell)
    if manifest is None or manifest["judging"]["n_unheard"]:
        return False
    return comparison.may_stop or not manifest["judging"]["sure"]


def _inherited(store: Store, comparison: PlannedComparison) -> dict[str, Any]:
    """What the answers' manifest says and the comparison's repeats."""
    manifest = store.manifest(comparison.answers.cell)
    assert manifest is not None
    return {name: manifest[name] for name in INHERITED}
