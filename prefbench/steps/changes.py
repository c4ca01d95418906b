"""What each iterate changed against the one before it, paired on the same items."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from prefbench.boards.aligned import align
from prefbench.leaderboard import Column, Gathered
from prefbench.stats.corrections import holm
from prefbench.stats.estimates import Estimate
from prefbench.stats.paired import differences


class Change(NamedTuple):
    """How an iterate's value differs from that of the one before."""

    previous: str
    """Its row's name."""
    difference: Estimate
    p_corrected: float
    """By Holm over the changes of a column."""


def changes_of(
    gathered: Gathered,
    order: Sequence[str | None],
    columns: Sequence[Column],
    *,
    confidence: float,
    n_resamples: int,
) -> dict[tuple[str, tuple[str, str]], Change]:
    """The changes along a chain, by row and column.

    None where one of two that follow one another has no value whose items are known, or has only
    as many items as it took to be sure; strengths of a round robin hang on who takes part.

    Args:
        gathered: what was measured.
        order: names of the rows, what the chain began with first; None where one is not there.
        columns: the metrics.
        confidence: of the intervals.
        n_resamples: bootstrap resamples.
    """
    robins = {robin.group for robin in gathered.ranked}
    found = {}
    for column in columns:
        if column.group.name in robins:
            continue
        changes = _along(gathered, order, column, confidence, n_resamples)
        corrected = holm([gap.p for _, _, gap in changes])
        for (previous, name, gap), p in zip(changes, corrected, strict=True):
            found[name, column.key] = Change(previous, gap, float(p))
    return found


def _along(
    gathered: Gathered,
    order: Sequence[str | None],
    column: Column,
    confidence: float,
    n_resamples: int,
) -> list[tuple[str, str, Estimate]]:
    """Of one column, the name before, the name after, and the difference."""
    metric = column.metric
    paired = {
        one.checkpoint
        for one in gathered.measured
        if one.group == column.group.name and one.quantities and not one.sure
    }
    follow = [(a, b) for a, b in pairwise(order) if a in paired and b in paired]
    names = list(dict.fromkeys(name for both in follow for name in both if name))
    aligned = align(gathered, column.group, metric, names, n_resamples=n_resamples)
    if aligned is None:
        return []
    at = {name: place for place, name in enumerate(aligned.checkpoints)}
    gaps = differences(
        aligned.columns,
        [(at[b], at[a]) for a, b in follow if a and b],
        metric.statistic,
        resampling=aligned.resampling,
        confidence=confidence,
        proportion=metric.proportion,
        in_logs=metric.exponential,
    )
    both = [(a, b, gap) for (a, b), gap in zip(follow, gaps, strict=True) if a and b]
    return [change for change in both if np.isfinite(change[2].value)]
