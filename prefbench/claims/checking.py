"""Checks claims against what was measured: one family of tests, corrected together.

Each question of each claim, of each row and task that it is about, is one two-sided test of a
family. Corrected by Holm over the family, a p-value below α makes a finding: `holds` on the claimed
side, `does not hold` on the other. So where no claim is true and none is false, everything lying at
its neutral value, even one finding is no likelier than α; and a claim of several questions holds
only if each of them does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from prefbench.claims.claim import (
    Alike,
    Between,
    Beyond,
    Change,
    Claim,
    Finding,
    Line,
    Question,
    Side,
    Verdict,
    Zero,
)
from prefbench.claims.drawing import Drawn, Wanted, draw
from prefbench.claims.literature import CLAIMS
from prefbench.claims.numbers import DISTANCE, GRADIENTS, Number
from prefbench.claims.rows import Rows, title_of
from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, Measured
from prefbench.records import METHODS, Checkpoint
from prefbench.stats.bootstrap import Array
from prefbench.stats.corrections import corrected
from prefbench.stats.edits import BANDS
from prefbench.stats.estimates import Estimate, with_interval
from prefbench.stats.significance import bootstrap_p

LOW, HIGH = BANDS["low_edit"], BANDS["mid_edit"]
"""Normalised edit distances below which pairs are low, and from which they are high."""
MANY = 6
"""Methods that a sentence names at most."""
EXACT = 1e-6
"""Of probabilities in float32, what counts as 0."""


@dataclass(frozen=True)
class Checked:
    """What came of all claims."""

    lines: tuple[Line, ...]
    """In the order of the claims, of the rows, and of the tasks."""
    n_tested: int
    """Size of the family."""
    confidence: float
    baseline: str | None
    rows: tuple[Checkpoint, ...]
    """Those that claims were asked about."""

    def title(self, row: str) -> str:
        return title_of(row, self.rows)

    def only(self, claims: Sequence[Claim]) -> Checked:
        """The lines of some claims. The family stays: to look at one claim makes it no surer."""
        names = {claim.id for claim in claims}
        kept = tuple(line for line in self.lines if line.claim.id in names)
        return dataclasses.replace(self, lines=kept)


def check(
    gathered: Gathered,
    *,
    claims: Sequence[Claim] = CLAIMS,
    baseline: str | None = None,
    confidence: float = 0.95,
    all_steps: bool = False,
    n_resamples: int = 10_000,
) -> Checked:
    """Whether claims hold in what was measured.

    Args:
        gathered: what was measured.
        claims: what to check.
        baseline: row or method that stands for SFT; None means the one SFT row.
        confidence: of the intervals; the family is tested at the rest.
        all_steps: ask about every checkpoint of a run, else about its last.
        n_resamples: bootstrap resamples.

    Raises:
        InputError: the baseline is not among the checkpoints, or the confidence is no share.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, not {confidence}")
    rows = Rows(gathered, baseline, all_steps=all_steps)
    plans = [plan for claim in claims for plan in _plans(claim, rows)]
    wanted = [one for plan in plans for one in plan.wanted]
    drawn = draw(wanted, rows.cells, rows.groups, n_resamples=n_resamples)
    lines = [_line(plan, drawn, rows, confidence) for plan in plans]
    p = corrected([one.p for line in lines for one in line.findings])
    told, at = [], 0
    for line in lines:
        own = p[at : at + len(line.findings)]
        at += len(own)
        told.append(_decided(line, own, 1 - confidence))
    return Checked(
        tuple(told),
        int((~np.isnan(p)).sum()),
        confidence,
        rows.baseline,
        rows.rows,
    )


class _Plan(NamedTuple):
    """What a line will be made of, or why there is nothing."""

    claim: Claim
    row: str = ""
    task: str = ""
    asked: tuple[tuple[Wanted, ...], ...] = ()
    """What each question needs."""
    other: tuple[str, ...] = ()
    """What each question compares with."""
    shown: tuple[Wanted, ...] = ()
    why: str = ""
    about: str = ""

    @property
    def wanted(self) -> Iterator[Wanted]:
        for some in (*self.asked, self.shown):
            yield from some


def _plans(claim: Claim, rows: Rows) -> list[_Plan]:
    """The lines of a claim: of each row and task that it is about, or the one that says why not."""
    members = rows.of_methods(claim.methods)
    if not members:
        titles = ", ".join(METHODS.get(method, method) for method in claim.methods)
        known = 0 < len(claim.methods) <= MANY
        return [_Plan(claim, why=f"no {titles} row was measured" if known else "no row to ask of")]
    found: list[_Plan] = []
    for row in members:
        own = list(_plans_of(claim, row, rows))
        if not own and claim.methods and not _is_about_iterations(claim):
            own = [_Plan(claim, row.name, why=_nothing(claim))]
        found += own
    return found or [_Plan(claim, why=_nothing(claim))]


def _plans_of(claim: Claim, row: Checkpoint, rows: Rows) -> Iterator[_Plan]:
    match claim.questions[0]:
        case Between() as question:
            return _between(claim, question, row.name, rows)
        case Alike() as question:
            return _alike(claim, question, row, rows)
        case Zero() as question:
            return _zero(claim, question, row.name, rows)
        case _:
            return _by_task(claim, row, rows)


def _is_about_iterations(claim: Claim) -> bool:
    return any(isinstance(one, Change) and one.to == "previous" for one in claim.questions)


def _nothing(claim: Claim) -> str:
    """Why a claim is about nothing that was measured."""
    if _is_about_iterations(claim):
        return "no row was tuned from a measured row of its own method"
    needs = dict.fromkeys(number.needs for number in _numbers(claim.questions))
    return f"no task with {', '.join(needs) or GRADIENTS} was measured, or not all that it takes"


def _numbers(questions: Iterable[Question]) -> Iterator[Number]:
    for one in questions:
        match one:
            case Beyond() | Change() | Between():
                yield one.number
            case Alike():
                yield one.predicted
                yield one.seen


def _by_task(claim: Claim, row: Checkpoint, rows: Rows) -> Iterator[_Plan]:
    """Of a row, each task that has what all questions ask for."""
    others: list[str] = []
    for question in claim.questions:
        other, why = rows.other(row, question.to) if isinstance(question, Change) else ("", "")
        if other is None:
            if why:
                yield _Plan(claim, row.name, why=why)
            return
        others.append(other)
    numbers = list(_numbers(claim.questions))
    for one in rows.tasks_with(row.name, numbers):
        lacking = [
            other
            for other, number in zip(others, numbers, strict=True)
            if other and not ((cell := rows.cells.get((other, one.group))) and number.is_in(cell))
        ]
        if lacking:
            why = f"{title_of(lacking[0], rows.rows)} was not measured on it"
            yield _Plan(claim, row.name, one.group, why=why)
            continue
        asked = tuple(
            (Wanted(one.group, ((row.name, number), *(((other, number),) if other else ()))),)
            for other, number in zip(others, numbers, strict=True)
        )
        shown = tuple(
            Wanted(one.group, ((row.name, number),)) for number in claim.shown if number.is_in(one)
        )
        yield _Plan(claim, row.name, one.group, asked, tuple(others), shown)


def _between(claim: Claim, question: Between, row: str, rows: Rows) -> Iterator[_Plan]:
    """Each task of one kind beside each of the other."""
    kinds: dict[bool | None, list[Measured]] = {True: [], False: [], None: []}
    for one in rows.tasks_with(row, [question.number]):
        kinds[_kind(one, question)].append(one)
    for one, other in product(kinds[True], kinds[False]):
        asked = tuple(Wanted(each.group, ((row, question.number),)) for each in (one, other))
        yield _Plan(claim, row, one.group, (asked,), (other.group,))
    if bool(kinds[True]) != bool(kinds[False]):
        yield _Plan(claim, row, why=f"no task has {_KINDS[question.kinds][bool(kinds[True])]}")


_KINDS: Mapping[str, tuple[str, str]] = {
    "edit distance": (
        f"a mean edit distance below {LOW}",
        f"a mean edit distance of {HIGH} or more",
    ),
    "prompts": (
        "pairs whose answers have different prompts",
        "pairs whose answers have one prompt",
    ),
}
"""What is lacking where a task of the first kind is, or of the second."""


def _kind(one: Measured, question: Between) -> bool | None:
    """Whether a task is of the first kind; None where it is of neither."""
    if question.kinds == "edit distance":
        if not DISTANCE.is_in(one):
            return None
        mean = float(np.nanmean(one.quantities["edit_distance"]))
        return True if mean < LOW else False if mean >= HIGH else None
    name = "probability_difference_l2@1"
    return not _is_zero(one.quantities[name]) if name in one.quantities else None


def _is_zero(values: Array) -> bool:
    """Whether all that is known is 0, and something is known."""
    known = values[np.isfinite(values)]
    return bool(len(known)) and bool((np.abs(known) <= EXACT).all())


def _alike(claim: Claim, question: Alike, row: Checkpoint, rows: Rows) -> Iterator[_Plan]:
    """What was seen on each task beside what was predicted of the same pairs."""
    source = rows.source(row)
    from_where = [source.name] if source else []
    for one in rows.tasks_with(row.name, [question.seen]):
        for name in (*from_where, row.name):
            same = [
                other
                for other in rows.tasks_with(name, [question.predicted])
                if _same_pairs(other, one)
            ]
            if same:
                asked = (
                    Wanted(same[0].group, ((name, question.predicted),)),
                    Wanted(one.group, ((row.name, question.seen),)),
                )
                yield _Plan(claim, row.name, one.group, (asked,), (name,))
                break
        else:
            why = f"no task with {question.predicted.needs} has its pairs"
            yield _Plan(claim, row.name, one.group, why=why)


def _same_pairs(some: Measured, all_: Measured) -> bool:
    """Whether all edit distances of some pairs occur among others, as often as there.

    Items of a sample may be numbered anew.
    """
    if "edit_distance" not in some.quantities or "edit_distance" not in all_.quantities:
        return False
    counts = []
    for one in (some, all_):
        distances = one.quantities["edit_distance"]
        values, n = np.unique(distances[np.isfinite(distances)].round(9), return_counts=True)
        counts.append(dict(zip(values.tolist(), n.tolist(), strict=True)))
    return bool(counts[0]) and all(n <= counts[1].get(value, 0) for value, n in counts[0].items())


def _zero(claim: Claim, question: Zero, row: str, rows: Rows) -> Iterator[_Plan]:
    for group in rows.groups:
        one = rows.cells.get((row, group))
        names = (question.quantity, question.where, question.alike)
        known = one and all(name in one.quantities for name in names)
        if one and known and _is_zero(one.quantities[question.alike]):
            yield _Plan(claim, row, group)


# --- findings


def _line(plan: _Plan, drawn: dict[Wanted, Drawn | str], rows: Rows, confidence: float) -> Line:
    """What came of a plan, with p-values not corrected yet."""
    line = Line(plan.claim, plan.row, plan.task, "cannot be checked", why=plan.why)
    if plan.why:
        return line
    if isinstance(question := plan.claim.questions[0], Zero):
        return _exact(line, question, rows.cells[plan.row, plan.task])
    findings = []
    for question, some, other in zip(plan.claim.questions, plan.asked, plan.other, strict=True):
        each = [drawn[one] for one in some]
        whys = [one for one in each if isinstance(one, str)]
        if whys:
            return dataclasses.replace(line, why=whys[0])
        found = _finding(question, [one for one in each if isinstance(one, Drawn)], confidence)
        findings.append(dataclasses.replace(found, other=other))
    shown = []
    for one in plan.shown:
        told = drawn[one]
        if isinstance(told, Drawn):
            shown.append((one.members[0][1], told.own(0, confidence)))
    return dataclasses.replace(line, findings=tuple(findings), shown=tuple(shown))


def _finding(question: Question, drawn: Sequence[Drawn], confidence: float) -> Finding:
    match question:
        case Beyond():
            estimate = drawn[0].own(0, confidence, question.neutral)
            return Finding(question, estimate, question.neutral, estimate.p, "not shown")
        case Change():
            estimate = drawn[0].gap(confidence)
            values = drawn[0].own(0, confidence), drawn[0].own(1, confidence)
            return Finding(question, estimate, 0.0, estimate.p, "not shown", values=values)
        case Between():
            estimate = _apart(drawn[0], drawn[1], confidence)
            values = drawn[0].own(0, confidence), drawn[1].own(0, confidence)
            return Finding(question, estimate, 0.0, estimate.p, "not shown", values=values)
        case Alike():
            estimate = _apart(drawn[0], drawn[1], confidence, within=question.within)
            values = drawn[0].own(0, confidence), drawn[1].own(0, confidence)
            return Finding(
                question, estimate, question.within, estimate.p, "not shown", values=values
            )
        case Zero():
            raise AssertionError("what must be 0 is not tested")


def _apart(first: Drawn, second: Drawn, confidence: float, within: float | None = None) -> Estimate:
    """First minus second, each resampled alone.

    Its p-value is of no difference; or, with `within`, of one exactly as large, on the nearer side.
    """
    n_clusters = min(first.n_clusters, second.n_clusters)
    value = first.replicates.value[0] - second.replicates.value[0]
    # Draws of two tasks come from two seeds; of one task under two conditions from one.
    draws = first.replicates.resampled[:, 0] - second.replicates.resampled[::-1, 0]
    if within is None:
        p = float(bootstrap_p(value, draws, n_clusters))
    else:
        edges = [within, -within] if abs(value) < within else [math.copysign(within, value)]
        p = max(float(bootstrap_p(value - edge, draws - edge, n_clusters)) for edge in edges)
    return with_interval(
        float(value),
        draws,
        np.full(n_clusters, np.nan),
        n=min(first.n, second.n),
        confidence=confidence,
        p=p,
    )._replace(method="two samples")


def _exact(line: Line, question: Zero, one: Measured) -> Line:
    """What is true by construction, or is not."""
    values = one.quantities[question.quantity][one.quantities[question.where] == 1]
    known = np.abs(values[np.isfinite(values)])
    if not len(known):
        return dataclasses.replace(line, why="the two targets agree in no item")
    most = float(known.max())
    verdict: Verdict = "holds" if most <= EXACT else "does not hold"
    about = f"at most {most:.2g} on the {len(known)} items whose targets agree"
    return dataclasses.replace(line, verdict=verdict, about=about)


def _decided(line: Line, p: Array, alpha: float) -> Line:
    """A line with corrected p-values and the verdicts that they give."""
    if not line.findings:
        return line
    findings = tuple(
        dataclasses.replace(one, p=float(q), verdict=_verdict(one, float(q), alpha))
        for one, q in zip(line.findings, p, strict=True)
    )
    told = {one.verdict for one in findings}
    verdict: Verdict = "not shown"
    if "does not hold" in told:
        verdict = "does not hold"
    elif told == {"holds"}:
        verdict = "holds"
    return dataclasses.replace(line, findings=findings, verdict=verdict)


def _verdict(found: Finding, p: float, alpha: float) -> Verdict:
    if not p < alpha:
        return "not shown"
    if isinstance(found.question, Alike):
        return "holds" if abs(found.estimate.value) < found.neutral else "does not hold"
    assert not isinstance(found.question, Zero)
    side: Side = "above" if found.estimate.value > found.neutral else "below"
    return "holds" if side == found.question.side else "does not hold"
