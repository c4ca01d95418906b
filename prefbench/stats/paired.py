"""Differences between checkpoints, paired on the items both have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Refit, Resampling, Statistic
from prefbench.stats.estimates import Estimate, Method, alike, present, with_interval


def difference(
    columns_a: ArrayLike,
    columns_b: ArrayLike,
    statistic: Statistic | Refit,
    *,
    resampling: Resampling,
    confidence: float = 0.95,
    method: Method = "percentile",
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

    Returns:
        The difference; its n counts the items both have, its n_missing those either lacks.
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
    )[0]


def differences(
    columns: ArrayLike,
    pairs: Sequence[tuple[int, int]],
    statistic: Statistic | Refit,
    *,
    resampling: Resampling,
    confidence: float = 0.95,
    method: Method = "percentile",
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
            )
    return [found[member] for member in range(len(pairs))]
