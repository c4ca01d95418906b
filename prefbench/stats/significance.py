"""Whether a difference could be chance: p-values of paired differences, and what it would take."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, t

from prefbench.stats.bootstrap import Array

FEW = 10
"""Resamples on the far side of 0 below which their number says little, and a tail is fitted."""


def bootstrap_p(value: ArrayLike, resampled: ArrayLike, n_clusters: int) -> Array:
    """Two-sided p-value that a difference is 0, from its bootstrap replicates.

    Twice the share of replicates on the far side of 0, those at 0 counted in full: below α where
    the percentile interval at 1 − α leaves out 0, but for what follows. Of 10,000 replicates the
    share cannot fall below 1/5,000, too coarse for a family of hundreds; so where fewer than FEW
    lie on the far side, the tail is Student's t with n_clusters − 1 degrees of freedom. No p is
    below 2^(1 − n_clusters): as sure as that, and no surer, is the sign of n_clusters independent
    differences.

    With few clusters the share is too small, as the percentile interval is too narrow: of true
    nulls, up to 11 % fall below 0.05 with 20 clusters and up to 7 % with 200, most where values are
    skewed. The fitted tail is too small where the differences themselves are skewed, as those
    between equal checkpoints are not, and too large where the replicates are, as of a perplexity,
    whose differences are therefore tested in logarithms.

    Args:
        value: the difference, (...).
        resampled: its replicates, (n_resamples, ...).
        n_clusters: how many clusters were resampled.

    Returns:
        (...); 1 where value and replicates are all 0, NaN where a replicate is undefined or there
        are fewer than two clusters.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, §15.4, for the share.
    """
    own, draws = np.asarray(value, dtype=np.float64), np.asarray(resampled, dtype=np.float64)
    if n_clusters < 2:
        return np.full(own.shape, np.nan)
    n = len(draws)
    beyond = np.minimum((draws <= 0).sum(axis=0), (draws >= 0).sum(axis=0))
    counted = np.minimum(1.0, 2 * (beyond + 1) / (n + 1))
    at_most = np.minimum(1.0, 2 * (FEW + 1) / (n + 1))
    # Replicates spread as if the deviations of n clusters had n degrees of freedom, not n − 1.
    narrow = math.sqrt((n_clusters - 1) / n_clusters)
    with np.errstate(divide="ignore", invalid="ignore"):
        tail = 2 * t.sf(np.abs(own) * narrow / draws.std(axis=0, ddof=1), n_clusters - 1)
    fitted = np.minimum(np.nan_to_num(tail, nan=1.0), at_most)
    p = np.maximum(np.where(beyond < FEW, fitted, counted), 2.0 ** (1 - n_clusters))
    known = np.isfinite(own) & np.isfinite(draws).all(axis=0)
    return np.where(known, p, np.nan)


def mcnemar(n_only_first: ArrayLike, n_only_second: ArrayLike) -> Array:
    """Exact two-sided p-value that two checkpoints are right equally often, on the same items.

    Args:
        n_only_first: items that only the first has right, (...).
        n_only_second: items that only the second has right, (...).

    Returns:
        (...); 1 where they never differ.

    Source: McNemar 1947, doi.org/10.1007/BF02295996, with the binomial distribution in place of χ².
    """
    first, second = np.asarray(n_only_first), np.asarray(n_only_second)
    return np.asarray(
        np.minimum(1.0, 2 * binom.cdf(np.minimum(first, second), first + second, 0.5))
    )


def detectable(se: float, *, alpha: float, power: float = 0.8) -> float:
    """The smallest true difference that is found with a given power, in the difference's unit.

    Args:
        se: standard error of the difference.
        alpha: two-sided level of its test.
        power: share of repetitions in which it is found.

    Source: the two-sided z-test; e.g. Bloom 1995, doi.org/10.1177/0193841X9501900504.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * se


def items_needed(
    difference: float, se: float, n: int, *, alpha: float, power: float = 0.8
) -> float:
    """How many further items would separate two checkpoints, were the difference what it seems.

    Args:
        difference: as measured.
        se: its standard error.
        n: items that it was measured on; 0 where nobody told.
        alpha: two-sided level of the test.
        power: with which it shall be found.

    Returns:
        0 where n is enough; infinite where there is no difference; NaN where the error or n is
        unknown.
    """
    if math.isnan(se) or math.isnan(difference) or n < 1:
        return math.nan
    if difference == 0:
        return math.inf
    wanted = n * (detectable(se, alpha=alpha, power=power) / abs(difference)) ** 2
    return float(max(0, math.ceil(wanted - n)))
