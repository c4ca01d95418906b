"""Seeds of one method as one value: training runs are resampled as items are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy.stats import t

from prefbench.stats.bootstrap import Array, Replicates


def pooled(
    replicates: Replicates,
    pools: Sequence[Sequence[int]],
    *,
    confidence: float,
    rngs: Sequence[np.random.Generator],
) -> Replicates:
    """Means over the members of pools, with members drawn anew in every resample.

    The items of a resample are the same for all members, as all of them answered the same
    questions; which members it holds is drawn for each pool by itself. A few seeds drawn from
    themselves vary too little: of S seeds by the factor √((S − 1)/S), and a quantile of theirs is
    Student's with S − 1 degrees of freedom, not the normal one. Both are made up for, so that three
    seeds give intervals that hold what they say, and two hardly say anything.

    Args:
        replicates: of k members, (..., k), from draws of items that they share.
        pools: the members of each pool, as places among the k. A pool of one keeps its replicates.
        confidence: of the intervals that will be made.
        rngs: draw the members, one for each pool, so that none hangs on which others there are.

    Returns:
        Replicates (..., n_pools); the jackknife leaves out items, not seeds.

    Source: two-stage resampling, Davison and Hinkley 1997, Bootstrap Methods and their
    Application, §3.8; the factors for few seeds are ours.
    """
    n = len(replicates.resampled)
    columns = []
    for pool, rng in zip(pools, rngs, strict=True):
        draws = replicates.resampled[:, list(pool)]
        middle = draws.mean(axis=1)
        if len(pool) > 1:
            chosen = rng.integers(len(pool), size=(n, len(pool)))
            drawn = np.take_along_axis(draws, chosen, axis=1).mean(axis=1)
            middle = middle + widening(len(pool), confidence) * (drawn - middle)
        columns.append(middle)
    return Replicates(
        np.stack([replicates.value[list(pool)].mean() for pool in pools]),
        np.stack(columns, axis=1),
        np.stack([replicates.jackknife[:, list(pool)].mean(axis=1) for pool in pools], axis=1),
    )


def widening(n_seeds: int, confidence: float) -> float:
    """What the deviations of a resample of seeds are multiplied by."""
    tail = (1 + confidence) / 2
    student = float(t.ppf(tail, n_seeds - 1)) / NormalDist().inv_cdf(tail)
    return math.sqrt(n_seeds / (n_seeds - 1)) * student


def standardised(replicates: Sequence[Replicates], n_clusters: Sequence[int]) -> list[Replicates]:
    """Several tasks' values on one scale: in standard deviations of an item.

    Args:
        replicates: of each task, (..., k), all rows in the same order.
        n_clusters: how many clusters each task has.

    Returns:
        The same, divided by the standard error times √n, the root mean square over the rows; a task
        without any spread is NaN.
    """
    scaled = []
    for one, n in zip(replicates, n_clusters, strict=True):
        spread = math.sqrt(float(one.resampled.var(axis=0, ddof=1).mean()) * n)
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled.append(
                Replicates(*(np.where(spread > 0, part / spread, np.nan) for part in one))
            )
    return scaled


def interquartile_mean(values: Array) -> Array:
    """Mean of the middle half, over the first axis: (n, ...) to (...).

    The values at the edges of the middle half count in part, so that any n has one: of three values
    the middle one counts 2/3, the others 1/6 each.

    Source: Agarwal et al. 2021, arxiv.org/abs/2108.13264, who use it over runs and tasks.
    """
    ordered = np.sort(values, axis=0)
    n = len(ordered)
    edges = np.arange(n + 1)
    inside = np.clip(np.minimum(edges[1:], 0.75 * n) - np.maximum(edges[:-1], 0.25 * n), 0, None)
    return np.asarray(np.tensordot(inside / inside.sum(), ordered, axes=1))
