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
from collections.abc import Sequence
from dataclasses import dataclass

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
from prefbench.claims.planning import EXACT, Plan, plans_of
from prefbench.claims.rows import Rows, title_of
from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, Measured
from prefbench.records import Checkpoint
from prefbench.stats.bootstrap import Array
from prefbench.stats.corrections import corrected
from prefbench.stats.estimates import Estimate, with_interval
from prefbench.stats.significance import bootstrap_p


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
    plans = [plan for claim in claims for plan in plans_of(claim, rows)]
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


def _line(plan: Plan, drawn: dict[Wanted, Drawn | str], rows: Rows, confidence: float) -> Line:
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
