"""How a judge behaves, from its verdicts: shares, what hangs on length, agreement with people.

Preferences are 0 to 1 for the first of two texts, half for a tie, NaN where there is none. Which of
the two is the first is arbitrary: every statistic here is the same with the two exchanged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from prefbench.errors import InputError
from prefbench.stats.agreement import krippendorff_alpha
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import Estimate, estimate


def share(
    part: ArrayLike, whole: ArrayLike, *, resampling: Resampling, confidence: float = 0.95
) -> Estimate:
    """How much of a whole, summed over pairs: Σ part / Σ whole.

    Args:
        part: (n_pairs,), between 0 and the whole.
        whole: (n_pairs,), how much of a pair counts, 0 where the question does not arise: such a
            pair is neither counted nor missing. NaN in either is missing, and counted so.
        resampling: draws of the pairs.
        confidence: of the interval.

    Returns:
        Its n is the sum of the whole; NaN without any. At 0 and 1 the interval is Wilson's.
    """
    columns = np.column_stack([_flat(part), _flat(whole)])
    arises = columns[:, 1] != 0  # NaN does
    if not arises.any():
        return Estimate(np.nan, np.nan, np.nan, 0, 0, "none")
    found = estimate(
        columns[arises],
        _ratio,
        resampling=resampling.only(arises),
        confidence=confidence,
        proportion=True,
    )
    there = ~np.isnan(columns).any(axis=1)
    return found._replace(n=round(float(columns[there, 1].sum())))


def sides(preference: ArrayLike) -> Array:
    """Which text is preferred: 1 the first, −1 the second, 0 neither; NaN stays."""
    return np.sign(_flat(preference) - 0.5)


def changed(before: ArrayLike, after: ArrayLike) -> Array:
    """1 where a judge that was asked twice prefers another text, else 0; (n,).

    A reply that can be read once and not the other time is a change too; NaN, which is what cannot
    be read, is a side of its own here.
    """
    one, other = sides(before), sides(after)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    return np.where(same, 0.0, 1.0)


def longer_preferred(
    preference: ArrayLike,
    n_first: ArrayLike,
    n_second: ArrayLike,
    *,
    resampling: Resampling,
    confidence: float = 0.95,
) -> Estimate:
    """How often the longer text is preferred, among decided pairs of texts of unlike length.

    Args:
        preference: (n_pairs,).
        n_first: length of the first text, (n_pairs,).
        n_second: length of the second.
        resampling: draws of the pairs.
        confidence: of the interval.
    """
    side, longer = sides(preference), np.sign(_flat(n_first) - _flat(n_second))
    whole = np.where(np.isnan(side), np.nan, (side != 0) & (longer != 0))
    whole = np.where(longer == 0, 0, whole)
    part = np.where(np.isnan(side), np.nan, (side == longer) * whole)
    return share(part, whole, resampling=resampling, confidence=confidence)


def length_correlation(
    preference: ArrayLike,
    n_first: ArrayLike,
    n_second: ArrayLike,
    *,
    resampling: Resampling,
    confidence: float = 0.95,
) -> Estimate:
    """How far preference follows length: Σxy / √(Σx² Σy²), −1 to 1.

    x is the difference of the lengths as a share of their sum, y the preference minus a half. The
    means are not taken off: with the texts exchanged both change sign, and the value stays.

    Returns:
        NaN where all lengths are equal or all pairs are ties.
    """
    first, second = _flat(n_first), _flat(n_second)
    x = (first - second) / np.maximum(first + second, 1)
    y = _flat(preference) - 0.5
    return estimate(
        np.column_stack([x * y, x * x, y * y]),
        lambda sums: sums[..., 0] / np.sqrt(sums[..., 1] * sums[..., 2]),
        resampling=resampling,
        confidence=confidence,
    )


def accuracy(
    judge: ArrayLike, human: ArrayLike, *, resampling: Resampling, confidence: float = 0.95
) -> Estimate:
    """How often judge and people prefer the same text, among pairs that both decide."""
    ours, theirs = sides(judge), sides(human)
    whole = np.where(theirs == 0, 0, np.where(np.isnan(ours + theirs), np.nan, ours != 0))
    part = np.where(np.isnan(whole), np.nan, (ours == theirs) * whole)
    return share(part, whole, resampling=resampling, confidence=confidence)


def agreement(
    judge: ArrayLike, human: ArrayLike, *, resampling: Resampling, confidence: float = 0.95
) -> Estimate:
    """Krippendorff's α of judge and people, preferences on an interval scale.

    Every pair counts as seen from both of its texts, or α would hang on which is the first: where
    that is always the one that people prefer, chance would agree with them too.
    """
    ratings = np.column_stack([_flat(judge), _flat(human)])
    clusters = np.concatenate([resampling.clusters, resampling.clusters])
    both = Resampling(clusters, n_resamples=resampling.n_resamples, seed=resampling.seed)
    found = krippendorff_alpha(
        np.concatenate([ratings, 1 - ratings]),
        level="interval",
        resampling=both,
        confidence=confidence,
    )
    return found._replace(n=found.n // 2, n_missing=found.n_missing // 2)


def _ratio(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / sums[..., 1])


def _flat(values: ArrayLike) -> Array:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1:
        raise InputError(f"one number per pair is needed, not {found.shape}")
    return found
