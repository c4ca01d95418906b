"""Choosing the best of many: which may be the best, and what the chosen one is worth."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array, Refit, Resampling, Statistic, cluster_counts
from prefbench.stats.estimates import Estimate, estimates, present

N_REFITTED = 500
"""Draws of what is fitted anew in each, twice for every member."""


class Choice(NamedTuple):
    """What choosing the best of k members gives."""

    best: int
    """The member with the best value; the first of those that tie."""
    alike: tuple[int, ...]
    """Members that may be the best, in order: a confidence set that always holds the chosen."""
    naive: Estimate
    """The chosen one's value as if nobody had chosen: too good, for it was chosen for it."""
    corrected: Estimate
    """Its value, corrected for the choice."""
    chosen: Array
    """Share of resamples in which each member is the best, (k,)."""


def choose(
    columns: ArrayLike,
    statistic: Statistic | Refit,
    *,
    resampling: Resampling,
    higher_is_better: bool,
    confidence: float = 0.95,
    proportion: bool = False,
) -> Choice:
    """The best of k members that were all asked the same items.

    The confidence set holds the member that is in truth the best with the given confidence. Member
    j stays in unless some member is better than j by more than chance explains: the largest of the
    k − 1 studentised differences to j is held against the bootstrap's quantile of that same maximum
    (widened as Student's t is for few clusters). It corrects for having looked at k members, and
    needs no further correction over j, as it need only hold for the one that is the best.

    The corrected value comes from clusters that the choice did not see: the best is chosen in each
    resample, and valued on the clusters that it leaves out. What it is worth less there than the
    member chosen on all items, on average, is taken from that one's value. Where all members are
    equal this is unbiased. Where they differ about as much as their noise it leans towards too
    little, as a resample holds but 63 % of the clusters to choose by. Where the choice is certain
    it changes nothing. The interval is the chosen one's own, moved by the correction.

    Args:
        columns: what is summed or fitted to, (n_items, k, n_columns). Items that any member lacks
            are left out, and counted as missing.
        statistic: sums (..., n_columns) to values (...), or what is fitted anew in every draw.
        resampling: draws of the items.
        higher_is_better: which end is the best.
        confidence: of the set and of the intervals.
        proportion: as for `estimate`.

    Returns:
        The choice. Without a resample in which all values are defined, all members are alike and
        the correction is unknown (NaN).

    Raises:
        InputError: a member has no value.

    Source: for the set, Gupta 1965, doi.org/10.1080/00401706.1965.10490251, with the bootstrap's
    maximum in place of equal variances; for the corrected value, Tsamardinos, Greasidou and
    Borboudakis 2018, doi.org/10.1007/s10994-018-5714-4 (BBC-CV), who bootstrap what was predicted
    out of sample, choose in the bag and value out of it.
    """
    table = np.asarray(columns, dtype=np.float64)
    rows = np.asarray(present(table).all(axis=1))
    kept, own = resampling.only(rows), table[rows]
    found = estimates(own, statistic, resampling=kept, confidence=confidence, proportion=proportion)
    sign = 1.0 if higher_is_better else -1.0
    values = sign * np.array([one.value for one in found])
    if not np.isfinite(values).all():
        raise InputError("a member has no finite value on the items that all have")
    best = int(np.argmax(values))
    n_missing = resampling.n_items - kept.n_items
    naive = found[best]._replace(n_missing=n_missing)
    if kept.n_clusters < 2:
        unknown = naive._replace(value=np.nan, low=np.nan, high=np.nan, method="none")
        return Choice(best, tuple(range(len(values))), naive, unknown, np.full(len(values), np.nan))
    inside, outside = (sign * part for part in _inside_and_outside(kept, own, statistic))
    alike = _maybe_best(values, inside, kept.n_clusters, confidence)
    picked = np.argmax(np.where(np.isnan(inside), -np.inf, inside), axis=1)
    chosen = np.bincount(picked, minlength=len(values)) / len(picked)
    shift = sign * _loss(outside, picked, best)
    value = naive.value + shift
    corrected = naive._replace(
        value=value,
        low=naive.low + shift,
        high=naive.high + shift,
        method=f"{naive.method}, corrected for the choice",
    )
    return Choice(best, alike, naive, corrected, chosen)


def _maybe_best(
    values: Array, resampled: Array, n_clusters: int, confidence: float
) -> tuple[int, ...]:
    """Members that no other is better than by more than chance, of values where more is better."""
    k = len(values)
    if not np.isfinite(resampled).all():
        return tuple(range(k))
    tail = (1 + confidence) / 2
    widened = float(stdtrit(n_clusters - 1, tail)) / NormalDist().inv_cdf(tail)
    alike = []
    for member in range(k):
        gaps = values - values[member]
        noise = resampled - resampled[:, [member]] - gaps
        se = noise.std(axis=0)
        differs = se > 0
        if not differs.any():
            if not (gaps > 0).any():
                alike.append(member)
            continue
        largest = float(np.max(gaps[differs] / se[differs], initial=-np.inf))
        most = np.max(noise[:, differs] / se[differs], axis=1, initial=-np.inf)
        surely = bool((gaps[~differs] > 0).any())  # better on all items, by the same
        if not surely and largest <= widened * float(np.quantile(most, confidence)):
            alike.append(member)
    return tuple(alike)


def _loss(outside: Array, picked: NDArray[np.intp], best: int) -> float:
    """How far the picked are below the best, on clusters that were not looked at."""
    # A resample of few clusters may hold them all, and leave nothing to value by.
    some = np.isfinite(outside).any(axis=1)
    below = outside[np.arange(len(picked)), picked] - outside[:, best]
    return float(below[some].mean()) if some.any() else np.nan


def _inside_and_outside(
    resampling: Resampling, columns: Array, statistic: Statistic | Refit
) -> tuple[Array, Array]:
    """Values on each resample and on the clusters that it leaves out, each (n_resamples, k)."""
    n = resampling.n_resamples
    if isinstance(statistic, Refit):
        n = min(n, N_REFITTED)
    inside, outside = np.full((2, n, columns.shape[1]), np.nan)
    value = _valued(resampling, columns, statistic)
    start = 0
    rng = np.random.default_rng(resampling.seed)
    for counts in cluster_counts(resampling.n_clusters, n_resamples=n, rng=rng):
        rows = slice(start, start + len(counts))
        inside[rows], outside[rows] = value(counts), value(counts == 0)
        start += len(counts)
    return inside, outside


def _valued(
    resampling: Resampling, columns: Array, statistic: Statistic | Refit
) -> Callable[[NDArray[Any]], Array]:
    """From how often each cluster is drawn, (n, n_clusters), to the members' values, (n, k)."""
    if isinstance(statistic, Refit):
        codes = np.unique(resampling.clusters, return_inverse=True)[1]
        members = [columns[:, member].copy() for member in range(columns.shape[1])]

        def fitted(counts: NDArray[Any]) -> Array:
            by_item = counts[:, codes].astype(np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.stack([statistic.fit(one, by_item) for one in members], axis=-1)

        return fitted
    clusters = resampling.by_cluster(columns)
    flat = clusters.reshape(len(clusters), -1)

    def summed(counts: NDArray[Any]) -> Array:
        sums = (counts.astype(np.float64) @ flat).reshape(len(counts), *clusters.shape[1:])
        with np.errstate(divide="ignore", invalid="ignore"):
            return statistic(sums)

    return summed
