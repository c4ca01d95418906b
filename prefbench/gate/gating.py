"""The gate: whether checkpoints lost more than a policy allows, by intervals of paired differences.

A check is one metric of one checkpoint beside the baseline's. Its difference, turned so that more
is better, has an interval; a threshold says what is allowed (minus the largest loss, or the gain
that is required).

- **regression**: the interval lies below the threshold. Any check may raise the alarm, so m checks
  have m chances of a false one. Their intervals are simultaneous: each at 1 − α/m (Bonferroni), so
  that checkpoints none of which is beyond its threshold raise an alarm at most at rate α (as an
  alarm takes one side of an interval: at most at α/2).
- **pass**: the interval at 1 − α lies above the threshold, uncorrected. The gate passes if every
  check does. If one checkpoint in truth lies beyond a threshold, then that one check must err for
  the gate to pass, which happens at most at rate α/2, however many others there are: the
  intersection–union test (Berger 1982, doi.org/10.1080/00401706.1982.10487790). For whoever picks
  those that passed out of many checkpoints the rate holds for each, not for all together.
- **inconclusive**: neither, with about how many items would decide.
- **error**: there is nothing to compare, or too much is missing. That is never a pass.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from prefbench.boards.aligned import Aligned, align
from prefbench.errors import InputError
from prefbench.gate.checks import Check, checks_of
from prefbench.gate.policies import Policy
from prefbench.leaderboard import Gathered, Measured, find_baseline
from prefbench.metrics import Metric
from prefbench.stats.bootstrap import Array, Refit, Resampling
from prefbench.stats.estimates import alike
from prefbench.stats.noninferiority import Flips, cautious_interval, flips_of, items_to_decide

Outcome: TypeAlias = Literal["pass", "regression", "inconclusive", "error"]
EXIT_CODES: Mapping[Outcome, int] = {"pass": 0, "regression": 1, "inconclusive": 2, "error": 3}
WORST: tuple[Outcome, ...] = ("regression", "error", "inconclusive", "pass")
"""What a gate says of checks that differ: a proven regression, whatever else is missing."""


@dataclass(frozen=True)
class Verdict:
    """What came of a check.

    `difference` is the checkpoint's value minus the baseline's, or that over the baseline's where
    the check is relative; shares as fractions. Bounds are NaN, and values None, where there are
    none.
    """

    check: Check
    outcome: Outcome
    reason: str
    """Empty for a pass."""
    value: float | None = None
    baseline: float | None = None
    difference: float | None = None
    low: float = math.nan
    high: float = math.nan
    corrected_low: float = math.nan
    """Of the simultaneous interval."""
    corrected_high: float = math.nan
    n: int = 0
    """Items that both have."""
    n_needed: int | None = None
    """Items in all that would decide, about."""


@dataclass(frozen=True)
class Gate:
    """All verdicts."""

    baseline: str
    confidence: float
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        found = {one.outcome for one in self.verdicts}
        return next((one for one in WORST if one in found), "error")

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]


def gate(
    policy: Policy,
    gathered: Gathered,
    *,
    baseline: str | None = None,
    n_resamples: int = 10_000,
) -> Gate:
    """Checks all that a policy asks.

    Args:
        policy: what is asked.
        gathered: what was measured.
        baseline: a row, instead of the policy's.
        n_resamples: bootstrap resamples.

    Raises:
        InputError: there is no baseline or nothing beside it, or a rule fits nothing.
    """
    base = find_baseline(gathered.checkpoints, baseline or policy.baseline)
    if base is None:
        raise InputError(
            "no baseline: there is not exactly one SFT row; name a row as the policy's `baseline` "
            "or by --baseline"
        )
    checks, notes = checks_of(policy, gathered, base)
    found = _judged(checks, policy, gathered, base, n_resamples)
    used = {check.group.name for check in checks}
    said = [note for note in gathered.notes if any(note.startswith(f"{name}:") for name in used)]
    return Gate(base, policy.confidence, tuple(found), (*notes, *said))


class Pair(NamedTuple):
    """A checkpoint's metric and the baseline's, on the items that both have."""

    values: Array
    """The checkpoint's and the baseline's, (2,)."""
    resampled: Array
    """The same in each resample, (n_resamples, 2)."""
    n: int
    n_clusters: int
    n_lacking: int
    """Items that the baseline has and the checkpoint lacks."""
    n_lacking_baseline: int
    flips: Flips | None = None


def _judged(
    checks: Sequence[Check], policy: Policy, gathered: Gathered, base: str, n_resamples: int
) -> Iterator[Verdict]:
    """The verdict of each check, in their order."""
    names = [base, *dict.fromkeys(check.checkpoint for check in checks)]
    by_column: dict[tuple[str, str], list[int]] = {}
    for place, check in enumerate(checks):
        by_column.setdefault((check.group.name, check.metric.name), []).append(place)
    cells = {(one.checkpoint, one.group): one for one in gathered.measured}
    found: dict[int, Verdict] = {}
    for places in by_column.values():
        group, metric = checks[places[0]].group, checks[places[0]].metric
        aligned = align(gathered, group, metric, names, n_resamples=n_resamples)
        pairs = compare(aligned, base) if aligned and base in aligned.checkpoints else {}
        for place in places:
            check = checks[place]
            both = [(name, cells.get((name, group.name))) for name in (base, check.checkpoint)]
            why = next((w for name, one in both if (w := _unfit(name, one, check, gathered))), None)
            found[place] = (
                Verdict(check, "error", why)
                if why
                else verdict_of(check, pairs[check.checkpoint], n_checks=len(checks), policy=policy)
            )
    return (found[place] for place in range(len(checks)))


def _unfit(name: str, cell: Measured | None, check: Check, gathered: Gathered) -> str | None:
    """Why a checkpoint's values cannot be paired, if so."""
    if cell is None:
        row = next(row for row in gathered.checkpoints if row.name == name)
        why = gathered.reasons.get((name, check.group.name), "not measured")
        if row.state != "ready":
            why = row.reason or row.state
        return f"{name} has no value: {why}"
    if cell.sure:
        return (
            f"{name}: the comparison ended when it was sure, which leaves no paired difference; "
            "run it without --stop-when-sure"
        )
    if cell.given and not set(check.metric.quantities) - {"1"} <= set(cell.quantities):
        return f"{name}: its value came without items, which leaves no paired difference"
    return None


def compare(aligned: Aligned, base: str) -> dict[str, Pair]:
    """Each checkpoint beside the baseline, on the items that both have."""
    metric, at = aligned.metric, aligned.checkpoints.index(base)
    there, columns = aligned.there, aligned.columns
    pairs = {}
    for rows, members in alike(there & there[:, [at]]):
        kept, own = aligned.resampling.only(rows), columns[rows]
        values, resampled, _ = kept.replicate(
            own[:, [*members, at]], metric.statistic, jackknife=False
        )
        known = [
            _allows_interval(metric, own[:, m], v)
            for m, v in zip([*members, at], values, strict=True)
        ]
        for place, member in enumerate(members):
            if member == at:
                continue
            sure = known[place] and known[-1]
            pairs[aligned.checkpoints[member]] = Pair(
                values[[place, -1]],
                resampled[:, [place, -1]] if sure else np.full_like(resampled[:, :2], np.nan),
                kept.n_items,
                kept.n_clusters,
                int((there[:, at] & ~there[:, member]).sum()),
                int((there[:, member] & ~there[:, at]).sum()),
                _flips(metric, kept, own[:, member], own[:, at]),
            )
    return pairs


def _allows_interval(metric: Metric, columns: Array, value: float) -> bool:
    """Of what is fitted: whether its resamples say how sure it is."""
    if not isinstance(metric.statistic, Refit):
        return True
    return metric.statistic.is_enough(columns) and value not in (0, 1)


def _flips(metric: Metric, kept: Resampling, own: Array, base: Array) -> Flips | None:
    """Of a mean of items that count from 0 to 1 each."""
    if isinstance(metric.statistic, Refit) or metric.quantities[1:] != ("1",) or not len(own):
        return None
    both = np.stack([own[:, 0], base[:, 0]])
    if both.min() < 0 or both.max() > 1:
        return None
    return flips_of(kept.by_cluster(both[0] - both[1]), kept.by_cluster(own[:, 1]))


def verdict_of(check: Check, pair: Pair, *, n_checks: int, policy: Policy) -> Verdict:
    """What a pair says of a check that is one of `n_checks`."""
    if not pair.n:
        return Verdict(check, "error", "no items in common with the baseline")
    value, base = map(float, pair.values)
    missing = max(pair.n_lacking, pair.n_lacking_baseline)
    if missing > policy.max_missing * (pair.n + missing):
        who = "the checkpoint" if missing == pair.n_lacking else "the baseline"
        return Verdict(
            check,
            "error",
            f"{who} lacks {missing} of {pair.n + missing} items that the other has, more than "
            f"max_missing ({policy.max_missing:.3g} of them) allows",
            n=pair.n,
        )
    if not (math.isfinite(value) and math.isfinite(base)):
        return Verdict(check, "error", f"not finite: {value:g}, the baseline {base:g}", n=pair.n)
    draws, scale = pair.resampled[:, 0] - pair.resampled[:, 1], 1.0
    if check.allowed.relative:
        if base == 0:
            why = "the baseline is 0, of which no percentage can be taken"
            return Verdict(check, "error", why, value=value, baseline=base, n=pair.n)
        scale = 1 / abs(base)
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = draws / np.abs(pair.resampled[:, 1])
    difference = (value - base) * scale
    levels = policy.confidence, 1 - (1 - policy.confidence) / n_checks
    intervals = [
        cautious_interval(
            difference,
            draws,
            n_clusters=pair.n_clusters,
            confidence=level,
            flips=pair.flips,
            scale=scale,
        )
        for level in levels
    ]
    found = Verdict(
        check, "pass", "", value, base, difference, *intervals[0], *intervals[1], pair.n
    )
    return _decided(found, levels, spread=bool(np.ptp(draws)))


def _decided(found: Verdict, levels: tuple[float, float], *, spread: bool) -> Verdict:
    """The verdict of intervals at two levels: alone, and corrected."""
    check = found.check
    up = check.higher_is_better
    assert found.difference is not None
    improvement = found.difference if up else -found.difference
    low = found.low if up else -found.high
    high = found.corrected_high if up else -found.corrected_low
    threshold = check.threshold
    if math.isnan(low) or math.isnan(high):
        return dataclasses.replace(
            found, outcome="inconclusive", reason="too few items for an interval"
        )
    if low > threshold:
        return found
    if high < threshold:
        verb = "fell" if up else "rose"
        why = "did not" if check.require == "better" else f"{verb} by more"
        return dataclasses.replace(found, outcome="regression", reason=why)
    gap = improvement - threshold
    reach, level = (improvement - low, levels[0]) if gap > 0 else (high - improvement, levels[1])
    needed = items_to_decide(gap, reach, found.n, confidence=level, spread=spread)
    if needed is None:
        line = "margin" if check.require == "no_worse" else "threshold"
        why = (
            f"cannot be decided: the difference seems to lie at the {line}; more items hardly help"
        )
    else:
        likely = "pass" if gap > 0 else "regression"
        so_far = f"{found.n:,} so far"
        why = f"about {_rounded(needed):,} items would decide ({so_far}), likely as {likely}"
    return dataclasses.replace(found, outcome="inconclusive", reason=why, n_needed=needed)


def _rounded(n: int) -> int:
    """To two figures, upwards: no more is known."""
    unit: int = 10 ** max(0, len(str(n)) - 2)
    return -(-n // unit) * unit
