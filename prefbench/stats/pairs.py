"""How each two checkpoints differ, on items that they share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefbench.stats.bootstrap import Array, Replicates
from prefbench.stats.estimates import Estimate
from prefbench.stats.significance import bootstrap_p

MANY = 40
"""Checkpoints beyond which only the two at the ends are compared with all others."""


class Pairs(NamedTuple):
    """Each two of some checkpoints; NaN where two were not compared, and on the diagonal."""

    members: tuple[int, ...]
    """Which checkpoints they are, as places in a table, (k,)."""
    n: int
    """Items that all of them have, or the fewest that two have."""
    differences: Array
    """Row minus column, (k, k)."""
    se: Array
    """Standard errors of the differences, (k, k)."""
    p: Array
    """Two-sided p-values that they are 0, (k, k)."""

    def without(self, members: Collection[int]) -> Pairs:
        """With no standard error and no p-value of comparisons with some of the members."""
        out = [place for place, member in enumerate(self.members) if member in members]
        se, p = self.se.copy(), self.p.copy()
        for table in (se, p):
            table[out] = table[:, out] = np.nan
        return self._replace(se=se, p=p)


def pairs_from(
    members: tuple[int, ...], twos: Sequence[tuple[int, int]], gaps: Sequence[Estimate]
) -> Pairs:
    """The differences of each two checkpoints, from one estimate each.

    Args:
        members: the places of the checkpoints in their table.
        twos: first and second of each difference, as places among the members.
        gaps: first minus second.
    """
    differences, se, p = np.full((3, len(members), len(members)), np.nan)
    for (i, j), gap in zip(twos, gaps, strict=True):
        differences[i, j], differences[j, i] = gap.value, -gap.value
        se[i, j] = se[j, i] = gap.se
        p[i, j] = p[j, i] = gap.p
    return Pairs(members, min((gap.n for gap in gaps), default=0), differences, se, p)


def pairs_of(
    replicates: Replicates,
    *,
    members: tuple[int, ...],
    n: int,
    n_clusters: int,
    exact: Array | None = None,
    in_logs: bool = False,
) -> Pairs:
    """The differences of each two checkpoints, from replicates (..., k) of their values.

    Of more than MANY, those of each with the two whose values are the largest and the smallest.

    Args:
        replicates: from draws that all of them share.
        members: the places of the k checkpoints in their table.
        n: items that were resampled.
        n_clusters: clusters of these.
        exact: p-values to take instead of the bootstrap's, (k, k).
        in_logs: differences are tested in logarithms.
    """
    tested = replicates.in_logs() if in_logs else replicates
    values, draws = replicates.value, replicates.resampled
    k = len(values)
    differences, se, p = np.full((3, k, k), np.nan)
    real = np.where(np.isfinite(values), values, np.nan)
    ends = {int(np.nanargmin(real)), int(np.nanargmax(real))} if np.isfinite(real).any() else ()
    for i in range(k) if k <= MANY else ends:
        others = np.arange(i + 1, k) if k <= MANY else np.delete(np.arange(k), i)
        if not len(others):
            continue
        # Infinite values, as of a perplexity beyond all bounds, differ by no number.
        with np.errstate(invalid="ignore", over="ignore"):
            gaps, own = draws[:, i, None] - draws[:, others], values[i] - values[others]
            found = own, gaps.std(axis=0, ddof=1), _p(tested, i, others, n_clusters)
        for table, one in zip((differences, se, p), found, strict=True):
            table[i, others] = one
            table[others, i] = -one if table is differences else one
    if exact is not None:
        p = np.where(np.isnan(p), np.nan, exact)
    return Pairs(members, n, differences, se, p)


def _p(replicates: Replicates, i: int, others: NDArray[np.intp], n_clusters: int) -> Array:
    """p-values that one of the checkpoints is like others."""
    value, draws = replicates.value, replicates.resampled
    return bootstrap_p(value[i] - value[others], draws[:, i, None] - draws[:, others], n_clusters)
