"""Spearman's rank correlation, fitted anew in every bootstrap draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prefbench.stats.bootstrap import Array


def rank_correlation(columns: Array, counts: Array) -> Array:
    """Spearman's ρ of two columns in each draw; ties share their mean rank.

    Args:
        columns: x and y, (n_items, 2).
        counts: how often each draw holds each item, (n_draws, n_items).

    Returns:
        From −1 to 1, (n_draws,); NaN where a draw's x or y are all alike.

    Source: Spearman 1904, doi.org/10.2307/1412159; ρ is Pearson's correlation of the ranks.
    """
    first, second = (_ranks(column, counts) for column in columns.T)
    n = counts.sum(axis=1)
    first, second = (
        ranks - ((counts * ranks).sum(axis=1) / n)[:, None] for ranks in (first, second)
    )
    weighted = counts * first
    spread = (weighted * first).sum(axis=1) * (counts * second**2).sum(axis=1)
    alike = spread <= 1e-9 * n**2
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = (weighted * second).sum(axis=1) / np.sqrt(spread)
    return np.where(alike, np.nan, rho)


def advantage(columns: Array, counts: Array) -> Array:
    """How much better x ranks y than z does: ρ(x, y) − ρ(z, y), columns (x, z, y)."""
    return rank_correlation(columns[:, [0, 2]], counts) - rank_correlation(
        columns[:, [1, 2]], counts
    )


def _ranks(values: Array, counts: NDArray[np.float64]) -> Array:
    """Mean ranks among a draw's items, (n_draws, n_items)."""
    distinct, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(distinct)))
    by_value = np.add.reduceat(counts[:, order], starts, axis=1)
    middle = np.cumsum(by_value, axis=1) - (by_value - 1) / 2
    return np.asarray(middle[:, place])
