"""Estimate: a value with its interval; how one is made from columns of per-item numbers."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefbench.errors import InputError
from prefbench.stats.bootstrap import (
    Array,
    Refit,
    Resampling,
    Statistic,
    bca_interval,
    percentile_interval,
)

Method: TypeAlias = Literal["percentile", "bca"]


class Estimate(NamedTuple):
    """A value with its confidence interval; NaN bounds where an interval does not exist."""

    value: float
    low: float
    high: float
    n: int
    n_missing: int = 0
    method: str = "percentile"
    se: float = np.nan
    """Standard error: the replicates' standard deviation."""
    p: float = np.nan
    """Of a difference: two-sided p-value that it is 0."""


def estimate(
    columns: ArrayLike,
    statistic: Statistic | Refit,
    *,
    resampling: Resampling,
    confidence: float = 0.95,
    method: Method = "percentile",
    n_missing: int = 0,
    proportion: bool = False,
) -> Estimate:
    """A statistic of one checkpoint's columns, with its interval.

    Args:
        columns: what is summed or fitted to, (n_items, n_columns). A row with NaN is a missing
            item: left out and counted.
        statistic: sums (..., n_columns) to values (...), or what is fitted anew in every draw.
        resampling: the task's draws.
        confidence: of the interval, between 0 and 1.
        method: "percentile" or "bca"; the latter gives way to the former where it is undefined,
            and the estimate's method says so.
        n_missing: missing items that have no row.
        proportion: the statistic is a share: at 0 or 1, where no resample differs from the data,
            the interval is Wilson's, over clusters.

    Returns:
        NaN value without items, NaN bounds with fewer than two clusters or where a replicate is
        undefined. Any other statistic without spread has both bounds at its value: the items did
        not differ, which is not to say that further ones would not.
    """
    found = estimates(
        np.asarray(columns, dtype=np.float64)[:, None, :],
        statistic,
        resampling=resampling,
        confidence=confidence,
        method=method,
        proportion=proportion,
    )[0]
    return found._replace(n_missing=found.n_missing + n_missing)


def estimates(
    columns: ArrayLike,
    statistic: Statistic | Refit,
    *,
    resampling: Resampling,
    confidence: float = 0.95,
    method: Method = "percentile",
    proportion: bool = False,
) -> list[Estimate]:
    """The estimates of many checkpoints, columns (n_items, n_checkpoints, n_columns).

    Equal to `estimate` of each, bit for bit; checkpoints that miss the same items share one pass.
    """
    table = np.asarray(columns, dtype=np.float64)
    found: dict[int, Estimate] = {}
    for rows, members in alike(present(table)):
        kept = resampling.only(rows)
        value, resampled, jackknife = kept.replicate(
            table[rows][:, members], statistic, jackknife=method == "bca"
        )
        for column, member in enumerate(members):
            found[member] = with_interval(
                float(value[column]),
                resampled[:, column],
                jackknife[:, column],
                n=kept.n_items,
                n_missing=resampling.n_items - kept.n_items,
                confidence=confidence,
                method=method,
                proportion=proportion,
                n_trials=trials(table[rows][:, member], statistic, kept) if proportion else None,
            )
            if isinstance(statistic, Refit) and not statistic.is_enough(table[rows][:, member]):
                found[member] = without_interval(found[member])
    return [found[member] for member in range(table.shape[1])]


def without_interval(estimate: Estimate) -> Estimate:
    """The value alone."""
    return estimate._replace(low=np.nan, high=np.nan, method="none", se=np.nan, p=np.nan)


def with_normal_interval(estimate: Estimate, *, confidence: float) -> Estimate:
    """A value with the interval that its standard error gives; none where that is unknown."""
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * estimate.se
    return estimate._replace(low=estimate.value - reach, high=estimate.value + reach)


def with_interval(
    value: float,
    resampled: Array,
    jackknife: Array,
    *,
    n: int,
    n_missing: int = 0,
    confidence: float = 0.95,
    method: Method = "percentile",
    proportion: bool = False,
    n_trials: int | None = None,
    p: float = np.nan,
) -> Estimate:
    """One value with the interval its replicates give; the rules are those of `estimate`.

    Of a share at an end, `n_trials` is how many clusters it is a share of, where not of all; `p` is
    kept where there is an interval.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, not {confidence}")
    if method not in ("percentile", "bca"):
        raise InputError(f"interval method must be percentile or bca, not {method!r}")
    n_clusters = len(jackknife)
    used: str = method
    if n_clusters < 2:
        value = value if n else np.nan
        low, high, used = np.nan, np.nan, "none"
    elif proportion and value in (0, 1):
        n_trials = n_clusters if n_trials is None else n_trials
        low, high = wilson_interval(value * n_trials, n_trials, confidence)
        used = "wilson"
    elif method == "bca":
        low, high = bca_interval(value, resampled, jackknife, confidence=confidence)
        if np.isnan(low):
            low, high = percentile_interval(resampled, confidence=confidence)
            used = "percentile, bca undefined"
    else:
        low, high = percentile_interval(resampled, confidence=confidence)
    if not np.isfinite(low):
        return Estimate(value, low, high, n, n_missing, "none")
    # A share at an end has replicates without spread, and Wilson's interval instead of them.
    with np.errstate(over="ignore"):  # perplexities of a diverged model: infinity is true of them
        se = np.nan if used == "wilson" else float(resampled.std(ddof=1))
    return Estimate(value, low, high, n, n_missing, used, se, p)


def trials(columns: Array, statistic: Statistic | Refit, resampling: Resampling) -> int:
    """Clusters of which a share is the share: those whose items count in its denominator.

    Args:
        columns: of one checkpoint, (n_items, n_columns), the denominator last.
        statistic: what is fitted is a share of all.
        resampling: the clusters of these items.
    """
    if isinstance(statistic, Refit) or not len(columns):
        return resampling.n_clusters
    return int(np.count_nonzero(resampling.by_cluster(columns[:, -1])))


def wilson_interval(successes: float, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval for a proportion; NaN without trials.

    Source: Wilson 1927, doi.org/10.1080/01621459.1927.10502953.
    """
    if n == 0:
        return np.nan, np.nan
    share = successes / n
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    scale = 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / scale
    reach = z / scale * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At the ends the bound is exactly 0 or 1; rounding must not put it beyond.
    return (
        0.0 if successes == 0 else float(middle - reach),
        1.0 if successes == n else float(middle + reach),
    )


def present(columns: Array) -> NDArray[np.bool_]:
    """Which rows hold a number in every column: (..., n_columns) to (...)."""
    return np.asarray(~np.isnan(columns).any(axis=-1))


def alike(rows: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], list[int]]]:
    """The columns of rows (n_items, n) grouped where they are equal: the rows, which columns."""
    groups: dict[bytes, list[int]] = {}
    for column in range(rows.shape[1]):
        groups.setdefault(rows[:, column].tobytes(), []).append(column)
    for members in groups.values():
        yield rows[:, members[0]], members
