"""What one checkpoint gave on one task, beside what its Trainer logged at that step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from prefbench.boards.aligned import all_items, table_of
from prefbench.doctor.findings import Finding, State
from prefbench.doctor.training_log import (
    ACCURACIES,
    CHOSEN,
    LOGPS,
    MARGINS,
    NAMES,
    REJECTED,
    ROUNDING,
    TRAINING,
    Entry,
    TrainingLog,
)
from prefbench.leaderboard import Measured
from prefbench.metrics import metric_named
from prefbench.records import Checkpoint
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import Estimate, estimate, present
from prefbench.stats.paired import difference

ALSO: Mapping[str, str] = {
    "logps/chosen": "text_logp_chosen",
    "logps/rejected": "text_logp_rejected",
}
"""The same under the name that pairs have which were measured without a reference."""
N_RESAMPLES = 2000
MOST_SIZES = 64
"""Batch sizes that are tried in order to find an evaluation's means again."""


@dataclass(frozen=True)
class Step:
    """A checkpoint of a run on one task."""

    row: Checkpoint
    step: int
    measured: Measured

    @cached_property
    def values(self) -> dict[str, Array]:
        """By TRL's name, the numbers of all pairs that have one, (n_pairs,)."""
        found = {}
        for name in NAMES:
            if quantity := self.quantity(name):
                numbers = np.asarray(self.measured.quantities[quantity], dtype=float)
                found[name] = numbers[~np.isnan(numbers)]
        return {name: numbers for name, numbers in found.items() if len(numbers)}

    def quantity(self, name: str) -> str | None:
        """The quantity that holds what TRL calls so."""
        names = (name, ALSO.get(name, name))
        return next((each for each in names if each in self.measured.quantities), None)

    @property
    def beta(self) -> float | None:
        """The task's own."""
        there = self.measured.quantities
        if CHOSEN not in there or "delta_chosen" not in there:
            return None
        moved = float(np.nansum(np.abs(there["delta_chosen"])))
        return float(np.nansum(np.abs(there[CHOSEN]))) / moved if moved else None

    def finding(self, state: State, detail: str, **facts: Any) -> Finding:
        name = f"{self.measured.group}, {self.row.name}"
        told = {"step": self.step, **facts}
        return Finding("measured", name, state, detail, needed=state == "broken", facts=told)


# --- the same pairs


def on_the_same_pairs(log: TrainingLog, one: Step) -> Finding | None:
    """The best that an evaluation of as many pairs, at this step, says; None without one."""
    found = []
    for name, entries in log.evaluations.items():
        for entry in entries:
            both = _both(entry, one)
            if entry.step == one.step and both and len(one.values[both[0]]) in entry.n_pairs:
                found.append(_compared(name, entry, one, both))
    order = ("ok", "broken", "unknown")
    return min(found, key=lambda finding: order.index(finding.state), default=None)


def _both(entry: Entry, one: Step) -> list[str]:
    """What both the log and the measurements have."""
    known = (name for name, value in entry.values.items() if math.isfinite(value))
    return sorted({*known} & one.values.keys(), key=NAMES.index)


def _compared(name: str, entry: Entry, one: Step, both: Sequence[str]) -> Finding:
    """An evaluation beside a measurement of as many pairs."""
    logged = {key: entry.values[key] for key in both}
    # Log-probs tell which pairs these are: rewards may differ on the same.
    telling = [key for key in both if key in LOGPS] or both
    means = min(
        (
            {key: _mean(one.values[key], size) for key in both}
            for size in _sizes(len(one.values[both[0]]), entry.n_batches)
        ),
        key=lambda means: max(_apart(logged[key], means[key]) for key in telling),
    )
    apart = [key for key in both if _apart(logged[key], means[key]) > ROUNDING]
    facts = {"logged": logged, "measured": means, "apart": apart}
    where = f"{name}, {len(one.values[both[0]])} pairs"
    if not apart:
        detail = f"{where}: all agree within {ROUNDING:g}: {_told(logged, means, both)}"
        return one.finding("ok", detail, **facts)
    if {*apart} & {*LOGPS} or not {*LOGPS} <= {*both}:
        detail = (
            f"{where} too, but {_told(logged, means, apart)}: other pairs, or the same in other "
            "words (chat template, end of turn, cuts) or in another number format"
        )
        return one.finding("unknown", detail, **facts)
    if beta := _other_beta(logged, means, one):
        detail = (
            f"{where}: log-probs agree within {ROUNDING:g}, and so do rewards at the run's β of "
            f"{beta:.4g}, where the task has {one.beta:.4g}: {_told(logged, means, both)}"
        )
        return one.finding("ok", detail, beta=beta, **facts)
    detail = (
        f"{where}: log-probs agree, and rewards do not: {_told(logged, means, apart)}; what was "
        f"trained against is not {one.row.reference or 'what it was measured against'}"
    )
    return one.finding("broken", detail, **facts)


def _sizes(n: int, n_batches: int | None) -> list[int]:
    """Batch sizes that make so many batches of n pairs; n is always among them.

    A Trainer's evaluation is the mean of its batches' means: pairs of a smaller last batch count
    for more.
    """
    fit = [size for size in range(1, n + 1) if math.ceil(n / size) == n_batches]
    return [n, *fit[:MOST_SIZES]]


def _mean(values: Array, size: int) -> float:
    """The mean of the means of batches of a size."""
    batches = [values[start : start + size].mean() for start in range(0, len(values), size)]
    return float(np.mean(batches))


def _apart(first: float, second: float) -> float:
    """How far two numbers are apart, relative to the first where that is above 1."""
    return abs(first - second) / max(1.0, abs(first))


def _other_beta(logged: Mapping[str, float], means: Mapping[str, float], one: Step) -> float | None:
    """The run's β, where rewards differ from those at the task's by one factor."""
    rewards = [key for key in (CHOSEN, REJECTED, MARGINS) if key in logged]
    largest = max(rewards, key=lambda key: abs(means[key]), default=None)
    if largest is None or one.beta is None or not means[largest]:
        return None
    factor = logged[largest] / means[largest]
    alike = all(_apart(logged[key], factor * means[key]) <= ROUNDING for key in rewards)
    if ACCURACIES in logged:  # β cancels in these
        alike = alike and _apart(logged[ACCURACIES], means[ACCURACIES]) <= ROUNDING
    return factor * one.beta if alike and factor > 0 else None


def _told(logged: Mapping[str, float], means: Mapping[str, float], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {logged[key]:.4g} logged, {means[key]:.4g} measured" for key in keys)


# --- other pairs


def on_other_pairs(log: TrainingLog, one: Step, before: Step | None) -> Finding:
    """Signs, intervals and trends of what was logged last on other pairs.

    Args:
        log: the run's log.
        one: a checkpoint of the run.
        before: an earlier one on the same task, that trends start from.
    """
    held = [(name, entry) for name in log.sets if (entry := _last(log, name, one))]
    if not held:
        return one.finding("unknown", f"nothing is logged at step {one.step} or before it")
    # An evaluation's pairs are not trained on, as those that were measured should not be.
    name, entry = max(held, key=lambda each: (each[1].step == one.step, each[0] in log.evaluations))
    earlier = _last(log, name, before) if before else None
    told, doubtful = [], False
    for key in _both(entry, one):
        alike = _signs(key, entry.values[key], one)
        same = None
        if before and earlier:
            change = entry.values[key] - earlier.values.get(key, math.nan)
            clear = abs(change) > _noise(log, name, key)
            same = _trend(key, change, one, before) if clear else None
        if said := [part for part in (alike, same) if part]:
            told.append(f"{key} {', '.join(part.text for part in said)}")
            doubtful = doubtful or any(part.doubtful for part in said)
    where = f"{name} at step {entry.step}, a mean over other pairs"
    if not told:
        return one.finding("unknown", f"{where}: nothing that can be compared")
    return one.finding("unknown" if doubtful else "ok", f"{where}: {'; '.join(told)}")


class _Said(NamedTuple):
    """What there is to say of one quantity, and whether it goes against the log."""

    text: str
    doubtful: bool = False


def _last(log: TrainingLog, name: str, one: Step) -> Entry | None:
    """What was logged of a set at a step, or last before it."""
    return next((entry for entry in reversed(log.sets[name]) if entry.step <= one.step), None)


def _signs(key: str, logged: float, one: Step) -> _Said | None:
    """Whether a value lies in the measured interval, or on its side of no effect."""
    found = _estimate(key, one)
    shown = f"{logged:.4g} logged, {found.value:.4g} [{found.low:.4g}, {found.high:.4g}] measured"
    if found.low <= logged <= found.high:
        return _Said(f"{shown} (inside)")
    if key in LOGPS or not math.isfinite(found.low):  # longer texts are less likely: no side
        return None
    middle = 0.5 if key == ACCURACIES else 0.0
    if found.low <= middle <= found.high:
        return _Said(f"{shown} (no clear sign)")
    alike = (logged > middle) == (found.value > middle)
    return _Said(f"{shown} ({'same' if alike else 'other'} sign)", not alike)


def _estimate(key: str, one: Step) -> Estimate:
    quantity = one.quantity(key)
    assert quantity is not None
    numbers = np.asarray(one.measured.quantities[quantity], dtype=float)
    metric = metric_named(key)
    return estimate(
        np.column_stack([numbers, np.ones_like(numbers)]),
        metric.statistic,
        resampling=Resampling(one.measured.clusters, n_resamples=N_RESAMPLES, seed=0),
        proportion=metric.proportion,
    )


def _noise(log: TrainingLog, name: str, key: str) -> float:
    """How much two entries may differ by for the pairs that each happened to have.

    Twice the standard deviation of the step from one entry to the next; infinite where there are
    too few. Evaluations have the same pairs each time.
    """
    if name != TRAINING:
        return 0.0
    series = [one.values[key] for one in log.sets[name] if key in one.values]
    steps = np.diff([value for value in series if math.isfinite(value)])
    return 2 * float(steps.std(ddof=1)) if len(steps) > 2 else math.inf


def _trend(key: str, change: float, one: Step, before: Step) -> _Said | None:
    """Whether a value went the same way in the log as it did where it was measured, if clearly."""
    quantity = one.quantity(key)
    if quantity is None or before.quantity(key) != quantity:
        return None
    items, clusters = all_items([before.measured, one.measured])
    first, second = (table_of(each.measured, [quantity, "1"], items) for each in (before, one))
    if not (present(first) & present(second)).any():
        return None
    moved = difference(
        second,
        first,
        metric_named(key).statistic,
        resampling=Resampling(clusters, n_resamples=N_RESAMPLES, seed=0),
    )
    if not (moved.low > 0 or moved.high < 0):
        return None
    alike = (change > 0) == (moved.value > 0)
    way = "up" if moved.value > 0 else "down"
    logged = "too" if alike else "the other way"
    return _Said(f"measured {way} from step {before.step}, logged {logged}", not alike)
