"""Where two metrics of a checkpoint lie together: ellipses from joint bootstrap replicates."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from prefbench.leaderboard import Group, Measured
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import present

QUANTITIES = (
    "sum_logp_chosen", "n_tokens_chosen", "sum_logp_rejected", "n_tokens_rejected",
)  # fmt: skip


def likelihoods(sums: Array) -> Array:
    """The log of perplexity, and agility: sums (..., 4) of QUANTITIES to (..., 2).

    Both are those of `metrics.PAIR_METRICS`; where perplexity overflows, its log does not.
    """
    chosen, n_chosen, rejected, n_rejected = np.moveaxis(sums, -1, 0)
    return np.stack([-chosen / n_chosen, chosen / n_chosen - rejected / n_rejected], axis=-1)


def replicates(group: Group, one: Measured, *, n_resamples: int = 10_000) -> Array | None:
    """Log-perplexity and agility in the same bootstrap draws, (n_resamples, 2).

    None where they are undefined: a quantity is missing, fewer than two clusters, a replicate that
    is not finite. The draws are seeded by the task, as the table's are.
    """
    if not all(name in one.quantities for name in QUANTITIES):
        return None
    table = np.stack([one.quantities[name] for name in QUANTITIES], axis=-1).astype(np.float64)
    rows = present(table)
    seed = int.from_bytes(hashlib.sha256(group.task.encode()).digest()[:4])
    resampling = Resampling(one.clusters[rows], n_resamples=n_resamples, seed=seed)
    if resampling.n_clusters < 2 or not np.isfinite(table[rows]).all():
        return None
    drawn = resampling.replicate(table[rows], likelihoods).resampled
    return drawn if np.isfinite(drawn).all() else None


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
