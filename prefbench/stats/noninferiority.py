"""Whether a difference lies beyond a margin: intervals that hold at few items, and items needed."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array, percentile_interval

POWER = 0.8
"""Chance of a decision that `items_to_decide` plans for."""
HOPELESS = 1000
"""A decision that takes so many times the items at hand is called undecidable."""


class Flips(NamedTuple):
    """How far two checkpoints differ on items that count from 0 to 1 each."""

    gained: float
    """Sum of the differences where the first counts more."""
    lost: float
    """Sum of those where it counts less, as a positive number."""
    n: float
    """Independent items that the sums are over; less than all where items hang together."""


def flips_of(differences: Array, sizes: Array) -> Flips:
    """The flips of clusters of items, brought to as many independent items as they are worth.

    Args:
        differences: sum of the items' differences by cluster, each from −1 to 1, (n_clusters,).
        sizes: items of each cluster, (n_clusters,).

    Source: Kish 1965, Survey Sampling, for n = (Σ size)² / Σ size².
    """
    total = float(sizes.sum())
    n = total**2 / float((sizes**2).sum()) if total else 0.0
    scale = n / total if total else 0.0
    return Flips(
        float(differences[differences > 0].sum()) * scale,
        float(-differences[differences < 0].sum()) * scale,
        n,
    )


def tango_interval(flips: Flips, confidence: float) -> tuple[float, float]:
    """Score interval of the difference of two paired shares.

    With no flip at all it reaches as far as Wilson's of a share of 0, where resamples see no spread
    and have none. Items that count between 0 and 1 vary less than those that count 0 or 1, so that
    for them it is wide enough.

    Source: Tango 1998, doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B.
    """
    gained, lost, n = flips
    if n <= 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return -_tango_bound(lost, gained, n, z), _tango_bound(gained, lost, n, z)


def _tango_bound(gained: float, lost: float, n: float, z: float) -> float:
    """The largest difference that `gained` and `lost` of n items do not speak against."""

    def excess(difference: float) -> float:
        linear = -gained - lost + (2 * n - gained + lost) * difference
        constant = lost * difference * (1 - difference)
        share_lost = (math.sqrt(max(0.0, linear**2 + 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * share_lost + difference * (1 - difference))
        return gained - lost - n * difference + z * math.sqrt(max(0.0, variance))

    # Where all flip alike, or none, the variance is 0 at what was seen and positive beside it.
    beside = (gained - lost) / n + 1e-9
    if beside >= 1 or excess(1.0) >= 0:
        return 1.0
    return float(brentq(excess, beside, 1.0))


def cautious_interval(
    value: float,
    resampled: Array,
    *,
    n_clusters: int,
    confidence: float,
    flips: Flips | None = None,
    scale: float = 1.0,
) -> tuple[float, float]:
    """An interval of a paired difference that a verdict may hang on.

    On each side it reaches as far as the farthest of: the percentile interval; Student's t around
    the bootstrap's standard error, which is wider for few clusters and beyond the few replicates
    that a strict level leaves; and, for shares, Tango's, which knows that items which did not
    differ so far may.

    Args:
        value: the difference.
        resampled: its replicates, (n_resamples,).
        n_clusters: how many clusters were resampled.
        confidence: between 0 and 1.
        flips: of a difference of shares.
        scale: what a difference of shares is multiplied by, for relative ones.

    Returns:
        NaN with fewer than two clusters or where a replicate is undefined.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, not {confidence}")
    low, high = percentile_interval(resampled, confidence=confidence)
    if n_clusters < 2 or math.isnan(low) or not math.isfinite(value):
        return math.nan, math.nan
    # The bootstrap's variance of a mean is smaller than the sample's by (n − 1) / n.
    se = float(resampled.std()) * math.sqrt(n_clusters / (n_clusters - 1))
    reach = se * float(stdtrit(n_clusters - 1, (1 + confidence) / 2))
    lows, highs = [low, value - reach], [high, value + reach]
    if flips is not None:
        bounds = tango_interval(flips, confidence)
        lows.append(bounds[0] * scale)
        highs.append(bounds[1] * scale)
    return min(lows), max(highs)


def items_to_decide(
    gap: float, reach: float, n: int, *, confidence: float, spread: bool = True
) -> int | None:
    """About how many items in all would decide on which side of a threshold a difference lies.

    Args:
        gap: how far the difference lies from the threshold.
        reach: how far its interval reaches towards it, at least as far.
        n: items at hand.
        confidence: of the interval.
        spread: whether the items differ at all. If not, an interval of shares shrinks with their
            number and not with its root.

    Returns:
        More than n; as many as decide in four of five repetitions (POWER), were the difference what
        it seems and the reach to shrink with the root of the number. None where the difference lies
        at the threshold, as near as no thousand times the items would tell (HOPELESS).
    """
    normal = NormalDist()
    z = normal.inv_cdf((1 + confidence) / 2)
    if not math.isfinite(reach) or abs(gap) * math.sqrt(HOPELESS) <= reach:
        return None
    if spread:
        needed = n * (reach / abs(gap) * (z + normal.inv_cdf(POWER)) / z) ** 2
    else:
        needed = n * reach / abs(gap)
    return max(n + 1, math.ceil(float(np.round(needed, 6))))
