"""Differences between checkpoints, paired on the items both have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array, Refit, Replicates, Resampling, Statistic
from prefbench.stats.estimates import (
    Estimate,
    Method,
    alike,
    present,
    with_interval,
    with_normal_interval,
)
from prefbench.stats.significance import bootstrap_p, mcnemar


def difference(
    columns_a: ArrayLike,
    columns_b: ArrayLike,
    statistic: Statistic | Refit,
    *,
    resampling: Resampling,
    confidence: float = 0.95,
    method: Method = "percentile",
    proportion: bool = False,
    in_logs: bool = False,
) -> Estimate:
    """A statistic of a minus the same statistic of b, on the same items in every resample.

    Args:
        columns_a: what is summed or fitted to for a, (n_items, n_columns). A row with NaN is a
            missing item.
        columns_b: the same for b, the same items in the same order.
        statistic: sums (..., n_columns) to values (...), or what is fitted anew in every draw.
        resampling: the task's draws; where items are missing, draws from the same seed over the
            clusters that are left.
        confidence: of the interval, between 0 and 1.
        method: as for `estimate`.
        proportion: the statistic is a share; where items are independent and right or wrong, its
            p-value is McNemar's.
        in_logs: the statistic is an exponential: its differences are tested in logarithms, whose
            tails are not stretched.

    Returns:
        The difference; its n counts the items both have, its n_missing those either lacks, its p is
        the p-value that it is 0.
    """
    first, second = np.asarray(columns_a, dtype=float), np.asarray(columns_b, dtype=float)
    if first.shape != second.shape:
        raise InputError(f"a has columns {first.shape} and b {second.shape}: give both every item")
    return differences(
        np.stack([first, second], axis=1),
        [(0, 1)],
        statistic,
        resampling=resampling,
        confidence=confidence,
        method=method,
        proportion=proportion,
        in_logs=in_logs,
    )[0]


def differences(
    columns: ArrayLike,
    pairs: Sequence[tuple[int, int]],
    statistic: Statistic | Refit,
    *,
    resampling: Resampling,
    confidence: float = 0.95,
    method: Method = "percentile",
    proportion: bool = False,
    in_logs: bool = False,
) -> list[Estimate]:
    """The differences of many pairs of checkpoints, columns (n_items, n_checkpoints, n_columns).

    Equal to `difference` of each, bit for bit; pairs that share the same items share one pass.
    """
    if not pairs:
        return []
    table = np.asarray(columns, dtype=np.float64)
    ends = np.asarray(pairs)
    there = present(table)
    found: dict[int, Estimate] = {}
    for rows, members in alike(there[:, ends[:, 0]] & there[:, ends[:, 1]]):
        kept = resampling.only(rows)
        involved, index = np.unique(ends[members], return_inverse=True)
        replicates = kept.replicate(table[rows][:, involved], statistic, jackknife=method == "bca")
        tested = replicates.in_logs() if in_logs else replicates
        exact = exact_p(table[rows][:, involved], kept) if proportion else None
        for member, (a, b) in zip(members, index.reshape(-1, 2), strict=True):
            value, resampled, jackknife = (part[..., a] - part[..., b] for part in replicates)
            found[member] = with_interval(
                float(value),
                resampled,
                jackknife,
                n=kept.n_items,
                n_missing=resampling.n_items - kept.n_items,
                confidence=confidence,
                method=method,
                p=float(exact[a, b])
                if exact is not None
                else p_between(tested, a, b, kept.n_clusters),
            )
    return [found[member] for member in range(len(pairs))]


def p_between(replicates: Replicates, a: int, b: int, n_clusters: int) -> float:
    """The bootstrap's p-value that two of the checkpoints of replicates (..., k) are alike."""
    value, resampled, _ = (part[..., a] - part[..., b] for part in replicates)
    return float(bootstrap_p(value, resampled, n_clusters))


def unpaired_difference(first: Estimate, second: Estimate, *, confidence: float = 0.95) -> Estimate:
    """The difference of two values that share no items, from their standard errors.

    NaN bounds and p-value where a standard error is unknown. The interval is the normal one.
    """
    value, se = first.value - second.value, math.hypot(first.se, second.se)
    p = 2 * NormalDist().cdf(-abs(value) / se) if se > 0 else math.nan
    gap = Estimate(
        value,
        math.nan,
        math.nan,
        min(first.n, second.n),
        method="unpaired",
        se=se if se > 0 else math.nan,
        p=p,
    )
    return with_normal_interval(gap, confidence=confidence)


def exact_p(columns: Array, resampling: Resampling) -> Array | None:
    """McNemar's p-value of each two checkpoints, where it is the test to take.

    Args:
        columns: of a share, the values and what counts the items, (n_items, n_checkpoints, 2).
        resampling: knows the clusters.

    Returns:
        (n_checkpoints, n_checkpoints); None where items share clusters, or some are neither right
        nor wrong.
    """
    if columns.shape[-1] != 2 or resampling.n_clusters < max(2, resampling.n_items):
        return None
    right, counted = columns[..., 0], columns[..., 1]
    if not ((counted == 1).all() and np.isin(right, (0, 1)).all()):
        return None
    only_first = right.T @ (1 - right)
    return mcnemar(only_first, only_first.T)
