"""How far raters agree beyond chance: Krippendorff's α, for judges among themselves and people."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import Estimate, Method, estimate

Level: TypeAlias = Literal["nominal", "interval"]


def krippendorff_alpha(
    ratings: ArrayLike,
    *,
    level: Level,
    resampling: Resampling,
    confidence: float = 0.95,
    method: Method = "percentile",
) -> Estimate:
    """1 minus observed over expected disagreement: 1 where all agree, 0 where as by chance.

    Args:
        ratings: (n_items, n_raters), NaN where a rater did not rate. An item that fewer than two
            rated says nothing of agreement: it is missing, and counted.
        level: "nominal", where any two values differ alike; "interval", where the square of their
            difference counts, so that win and tie are closer than win and loss.
        resampling: draws of the items.
        confidence: of the interval.
        method: as for `estimate`.

    Returns:
        At most 1; NaN where all ratings are the same value, as then chance would agree too. A
        resample in which they are leaves no interval.

    Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability",
    repository.upenn.edu/handle/20.500.14332/2089. The interval resamples items, not pairs of
    ratings.
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2:
        raise InputError(f"ratings must be (n_items, n_raters), not {table.shape}")
    if level not in ("nominal", "interval"):
        raise InputError(f"level must be nominal or interval, not {level!r}")
    there = ~np.isnan(table)
    rated = there.sum(axis=1)
    if level == "nominal":
        of_value = (table[:, :, None] == np.unique(table[there])).sum(axis=1)
        pairs = rated**2 - (of_value**2).sum(axis=1)
        columns = np.column_stack([_each(pairs, rated), rated, of_value])
        statistic = _nominal
    else:
        centred = np.where(there, table - table[there].mean(), 0) if there.any() else table
        sums, squares = centred.sum(axis=1), (centred**2).sum(axis=1)
        pairs = 2 * (rated * squares - sums**2)
        columns = np.column_stack([_each(pairs, rated), rated, sums, squares])
        statistic = _interval
    return estimate(columns, statistic, resampling=resampling, confidence=confidence, method=method)


def _each(pairs: Array, rated: Array) -> Array:
    """What the ordered pairs of an item come to for each of its ratings' partners, (n_items,)."""
    return np.where(rated > 1, pairs / np.maximum(rated - 1, 1), np.nan)


def _nominal(sums: Array) -> Array:
    """From differing pairs within items, ratings, and how often each value was given."""
    within, n, of_value = sums[..., 0], sums[..., 1], sums[..., 2:]
    return np.asarray(1 - (n - 1) * within / (n**2 - (of_value**2).sum(axis=-1)))


def _interval(sums: Array) -> Array:
    """From squared differences within items, ratings, their sum and their squares' sum."""
    within, n, total, squares = np.moveaxis(sums, -1, 0)
    return np.asarray(1 - (n - 1) * within / (2 * (n * squares - total**2)))
