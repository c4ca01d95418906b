"""A judge's report card: what it does with kept answers, people's labels, attacks and controls."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prefbench.cells import mirror_places
from prefbench.comparisons import Judging, plan_judge
from prefbench.errors import InputError, JudgeError
from prefbench.examination.doubts import Warned, warnings
from prefbench.examination.evidence import (
    Attacked,
    Evidence,
    Finding,
    attack_on,
    attacks_on,
    controls,
    copy_ask,
    injections,
    lengths,
    people,
    places,
    repeats,
    replies,
)
from prefbench.examination.exhibits import (
    Chosen,
    Contest,
    Trial,
    choose_cases,
    find_contests,
    set_trial,
)
from prefbench.interchange.labels import read_labels
from prefbench.judges.budget import estimate
from prefbench.judges.injections import ATTACKS
from prefbench.judges.judge import Ask, Unheard, Verdict, key_of
from prefbench.judges.kinship import shared
from prefbench.judges.opening import PlannedJudge
from prefbench.judges.verdicts import Verdicts
from prefbench.judging import VERDICTS, Court, key_again
from prefbench.listener import Listener
from prefbench.measures.comparison import Heard, Pair
from prefbench.store import Store, there


@dataclass(frozen=True)
class Examination:
    """What a report card looks at.

    Attributes:
        labels: file of pairs with what people prefer.
        tasks: whose kept answers are shown; all where none is named.
        opponents: whom they are compared with; all where none is named.
        limit: pairs of results, and as many of labels.
        repeats: how often everything is asked again.
        injections: set attacks upon the answers that lost.
        attacks: which, by name; all where none is named.
        controls: have controls judged beside the checkpoints.
        seed: of the choice of pairs and of the bootstrap.
        confidence: of the intervals.
    """

    labels: Path | None = None
    tasks: tuple[str, ...] = ()
    opponents: tuple[str, ...] = ()
    limit: int = 50
    repeats: int = 0
    injections: bool = False
    attacks: tuple[str, ...] = ()
    controls: bool = False
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.limit < 1 or self.repeats < 0:
            raise InputError("limit is 1 or more, repeats 0 or more")
        for name in self.attacks:
            if name not in ATTACKS:
                raise InputError(f"no attack is named {name}; there are: {', '.join(ATTACKS)}")

    @property
    def attacks_used(self) -> tuple[str, ...]:
        return (self.attacks or tuple(ATTACKS)) if self.injections or self.attacks else ()


@dataclass(frozen=True)
class Card:
    """What is known of a judge."""

    judge: PlannedJudge
    examination: Examination
    sources: Mapping[str, int]
    """Pairs by where they come from."""
    n_prompts: int
    n_labelled: int
    n_all: int
    """Pairs from which these were chosen."""
    left_out: Mapping[str, int]
    trial: tuple[str, str, int] | None
    """Task and opponent of the controls, and on how many items."""
    findings: tuple[Finding, ...]
    warnings: tuple[Warned, ...]
    unheard: Mapping[str, int]
    """Why asks have no reply; the same command asks them again."""
    spent: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_cases(self) -> int:
        return sum(self.sources.values())

    def named(self, name: str, of: str | None = None) -> list[Finding]:
        return [one for one in self.findings if one.name == name and of in (None, one.of)]


class Bill(NamedTuple):
    """What an examination would take; in US dollars, by the price in the judge's YAML."""

    judge: PlannedJudge
    n_cases: int
    calls: int
    n_kept: int
    n_in: int
    n_out_most: int
    cost: float
    cost_most: float
    supposed: bool
    """It is not known yet which answers lose, and so are attacked: the longer are taken to."""


class _Docket(NamedTuple):
    """An examination with all its material."""

    judge: PlannedJudge
    contests: tuple[Contest, ...]
    chosen: Chosen
    trial: Trial | None

    @property
    def pairs(self) -> list[Pair]:
        return [case.pair(i) for i, case in enumerate(self.chosen.cases)]

    @property
    def case_asks(self) -> list[Ask]:
        return _asks(self.pairs, self.judge)

    @property
    def asks(self) -> list[Ask]:
        """Everything that is asked once, whatever the judge says."""
        found = self.case_asks
        if self.trial:
            for control in (*self.trial.checkpoints, *self.trial.controls):
                found += _asks(control.pairs, self.judge)
            found += [copy_ask(pair) for pair in self.trial.copies if not pair.reason]
        return list(dict.fromkeys(found))


def check_judge(
    name: str,
    examination: Examination,
    *,
    results: Path = Path("results"),
    judging: Judging | None = None,
    mirrors: Sequence[Path] = (),
    listener: Listener | None = None,
) -> Card:
    """The report card of a judge; verdicts that are kept cost nothing, new ones are kept at once.

    Args:
        name: of the judge.
        examination: what to look at.
        results: where answers and verdicts are kept; made where only labels are shown.
        judging: how the judge is asked, and what that may cost.
        mirrors: local directories with models, besides PREFBENCH_MIRROR.
        listener: told how it goes on.

    Raises:
        PrefbenchError: there is nothing to show the judge, or it cannot be asked at all.
    """
    judging = judging or Judging()
    docket = _docket(name, examination, results, judging, mirrors)
    judge, attacks = docket.judge, examination.attacks_used
    if judge.missing:
        raise JudgeError(judge.missing)
    attacked: list[Attacked] = []
    again: list[dict[Ask, Heard]] = []
    with Court(Store(results), judging, listener or Listener()) as court:
        with court.sitting(judge) as hear:
            heard = hear(docket.asks)
            evidence = _evidence(docket, heard, examination)
            if attacks:
                attacked = attacks_on(evidence, attacks)
                heard |= hear(_asks([one.pair for one in attacked], judge))
        for nth, asks in enumerate(_rounds_again(docket, examination, attacked), 2):
            with court.sitting(judge, nth=nth) as hear:
                again.append(hear(asks))
        spent = court.budget.facts
    reasked = again[0] if again else None
    repeated = again[: examination.repeats]
    findings = [
        *replies(evidence),
        *places(evidence),
        *lengths(evidence),
        *repeats(evidence, repeated, varies=varies(judge)),
        *injections(evidence, attacked, reasked, names=attacks),
        *people(evidence),
        *controls(evidence, docket.trial),
    ]
    cases, trial = docket.chosen.cases, docket.trial
    n_prompts = len({case.cluster for case in cases})
    alike = shared(judge, _contestants(docket.contests))
    unheard = [
        one.reason
        for hearing in (heard, *again)
        for one in hearing.values()
        if isinstance(one, Unheard)
    ]
    return Card(
        judge=judge,
        examination=examination,
        sources=dict(Counter(case.source for case in cases)),
        n_prompts=n_prompts,
        n_labelled=sum(case.human is not None for case in cases),
        n_all=docket.chosen.n_all,
        left_out=docket.chosen.left_out,
        trial=(trial.task, trial.opponent, len(trial.copies)) if trial else None,
        findings=tuple(findings),
        warnings=tuple(
            warnings(
                findings,
                n_prompts=n_prompts,
                shared=alike,
                opponent=trial.opponent if trial else "",
                n_unheard=len(unheard),
            )
        ),
        unheard=dict(Counter(unheard).most_common()),
        spent=spent,
    )


def foresee_check(
    name: str,
    examination: Examination,
    *,
    results: Path = Path("results"),
    judging: Judging | None = None,
    mirrors: Sequence[Path] = (),
) -> Bill:
    """What `check_judge` with the same arguments would take; asks nobody.

    Raises:
        PrefbenchError: as `check_judge`.
    """
    docket = _docket(name, examination, results, judging or Judging(), mirrors)
    judge = docket.judge
    if judge.missing:
        raise JudgeError(judge.missing)
    file = results / VERDICTS
    with contextlib.ExitStack() as stack:
        verdicts = stack.enter_context(Verdicts(file)) if file.exists() else None
        attacked, supposed = _foreseen_attacks(docket, examination, verdicts)
        asks = [*docket.asks, *_asks([one.pair for one in attacked], judge)]
        rounds = [list(dict.fromkeys(asks)), *_rounds_again(docket, examination, attacked)]
        n_kept, bills = 0, []
        members = [one for one in judge.members or (judge,) if one.recipe.kind == "openai"]
        for member in members:
            for nth, asks in enumerate(rounds, 1):
                lacking = [ask for ask, one in _kept(member, asks, verdicts, nth) if one is None]
                n_kept += len(asks) - len(lacking)
                bills.append(estimate(member.recipe, lacking))
    return Bill(
        judge,
        n_cases=len(docket.chosen.cases),
        calls=sum(bill.calls for bill in bills) if members else sum(map(len, rounds)),
        n_kept=n_kept,
        n_in=sum(bill.n_in for bill in bills),
        n_out_most=sum(bill.n_out_most for bill in bills),
        cost=sum(bill.cost for bill in bills),
        cost_most=sum(bill.cost_most for bill in bills),
        supposed=supposed,
    )


def varies(judge: PlannedJudge) -> bool:
    """Whether a judge may say something else when it is asked again; those here draw by seeds."""
    return any(one.recipe.kind == "openai" for one in judge.members or (judge,))


def _docket(
    name: str,
    examination: Examination,
    results: Path,
    judging: Judging,
    mirrors: Sequence[Path],
) -> _Docket:
    """Finds everything that is to be shown; asks nobody and makes nothing."""
    judge = plan_judge(name, judging, mirror_places(mirrors))
    labels, left_out = read_labels(examination.labels) if examination.labels else ([], {})
    store = there(results)
    contests: list[Contest] = []
    held = []
    if store or examination.labels is None:
        store = store or Store(results, create=False)
        contests = find_contests(store, tasks=examination.tasks, opponents=examination.opponents)
        held = [(one, one.pairs(store, judge)) for one in contests]
    if not contests and (not labels or examination.controls):
        raise InputError(
            f"{results}: no answers to be judged are kept here; `prefbench run` on a task of "
            "comparisons keeps some"
            + ("" if labels else ", and --labels FILE shows pairs of your own")
        )
    rng = np.random.default_rng(examination.seed)
    chosen = choose_cases(held, labels, limit=examination.limit, rng=rng)
    whole = Counter(chosen.left_out) + Counter(left_out)
    if not chosen.cases:
        why = "; ".join(f"{n} × {reason}" for reason, n in whole.most_common())
        raise InputError(f"no pair can be judged: {why}")
    rng = np.random.default_rng(examination.seed)
    trial = set_trial(held, limit=examination.limit, rng=rng) if examination.controls else None
    return _Docket(judge, tuple(contests), chosen._replace(left_out=dict(whole)), trial)


def _rounds_again(
    docket: _Docket, examination: Examination, attacked: Sequence[Attacked]
) -> list[list[Ask]]:
    """What is asked again, each time: all pairs, or those attacked once, to compare with that."""
    if not varies(docket.judge):
        return []
    if examination.repeats:
        return [docket.case_asks] * examination.repeats
    lost = {one.case for one in attacked}
    pairs = [pair for i, pair in enumerate(docket.pairs) if i in lost]
    return [_asks(pairs, docket.judge)] if pairs else []


def _asks(pairs: Sequence[Pair], judge: PlannedJudge) -> list[Ask]:
    return [ask for pair in pairs for ask in pair.asks(symmetric=judge.symmetric)]


def _evidence(docket: _Docket, heard: Mapping[Ask, Heard], examination: Examination) -> Evidence:
    return Evidence(
        docket.chosen.cases,
        heard,
        docket.judge.symmetric,
        seed=examination.seed,
        confidence=examination.confidence,
    )


def _contestants(contests: Sequence[Contest]) -> list[Mapping[str, Any]]:
    """Checkpoints and opponents, each once."""
    both = [facts for one in contests for facts in (one.checkpoint, one.opponent_facts) if facts]
    return list({facts["path"]: facts for facts in both}.values())


def _kept(
    judge: PlannedJudge, asks: Sequence[Ask], verdicts: Verdicts | None, nth: int = 1
) -> list[tuple[Ask, Verdict | None]]:
    """Asks of a server's judge with the verdicts that are there."""
    judge_key = key_again(judge.recipe.key, nth)
    keys = [key_of(judge_key, ask) for ask in asks]
    found = verdicts.find(keys) if verdicts else {}
    return [(ask, found.get(key)) for key, ask in zip(keys, asks, strict=True)]


def _foreseen_attacks(
    docket: _Docket, examination: Examination, verdicts: Verdicts | None
) -> tuple[list[Attacked], bool]:
    """All attacks; where it is not known which answer lost, the longer is taken to have."""
    names = examination.attacks_used
    if not names:
        return [], False
    judge = docket.judge
    heard: dict[Ask, Heard] = {ask: Unheard("not asked yet") for ask in docket.case_asks}
    if judge.recipe.kind == "openai":
        heard |= {ask: one for ask, one in _kept(judge, list(heard), verdicts) if one}
    evidence = _evidence(docket, heard, examination)
    found = attacks_on(evidence, names)
    supposed = False
    for i, case in enumerate(docket.chosen.cases):
        if any(isinstance(heard[ask], Unheard) for ask in evidence.asks(i)):
            supposed = True
            lost_first = len(case.first) > len(case.second)
            found += [attack_on(case, i, name, lost_first=lost_first) for name in names]
    return found, supposed
