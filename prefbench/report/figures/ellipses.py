"""Where two metrics of a checkpoint lie together: ellipses from joint bootstrap replicates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from prefbench.boards.aligned import align
from prefbench.leaderboard import Gathered, Group
from prefbench.metrics import PAIR_METRICS
from prefbench.stats.bootstrap import Array
from prefbench.stats.estimates import alike


def likelihoods(sums: Array) -> Array:
    """The log of perplexity, and agility: sums (..., 4) of agility's quantities to (..., 2).

    Both are those of `metrics.PAIR_METRICS`; where perplexity overflows, its log does not.
    """
    chosen, n_chosen, rejected, n_rejected = np.moveaxis(sums, -1, 0)
    return np.stack([-chosen / n_chosen, chosen / n_chosen - rejected / n_rejected], axis=-1)


def replicates(
    gathered: Gathered, group: Group, checkpoints: Sequence[str], *, n_resamples: int = 10_000
) -> dict[str, Array]:
    """Log-perplexity and agility in the same bootstrap draws, those of the table.

    Returns:
        By checkpoint, (n_resamples, 2). Those are left out that lack the items of a pair's two
        texts, have fewer than two clusters of them, or a replicate that is not finite.
    """
    aligned = align(gathered, group, PAIR_METRICS["agility"], checkpoints, n_resamples=n_resamples)
    if aligned is None:
        return {}
    found = {}
    for rows, members in alike(aligned.there):
        kept = aligned.resampling.only(rows)
        if kept.n_clusters < 2:
            continue
        drawn = kept.replicate(aligned.columns[rows][:, members], likelihoods).resampled
        for place, member in enumerate(members):
            if np.isfinite(drawn[:, place]).all():
                found[aligned.checkpoints[member]] = drawn[:, place]
    return found


def ellipse(
    centre: Sequence[float], drawn: Array, *, confidence: float, n_points: int = 96
) -> Array:
    """The ellipse around a centre that holds the share `confidence` of a normal distribution.

    Args:
        centre: the two values on all items.
        drawn: their replicates, (n_resamples, 2); only their covariance counts.
        confidence: between 0 and 1: that both values lie inside together.
        n_points: corners of the outline.

    Returns:
        The outline, (n_points, 2).

    Source: the squared Mahalanobis distance of a bivariate normal has the quantile −2 ln(1 − c).
    """
    spread, axes = np.linalg.eigh(np.cov(drawn, rowvar=False))
    radius = math.sqrt(-2 * math.log1p(-confidence))
    angles = np.linspace(0, 2 * math.pi, n_points, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    # The signs of eigenvectors are free: fixed, so that the outline begins at the same side.
    axes = axes * np.where(axes.sum(axis=0) < 0, -1, 1)
    outline: Array = (
        np.asarray(centre) + radius * circle * np.sqrt(np.clip(spread, 0, None)) @ axes.T
    )
    return outline
