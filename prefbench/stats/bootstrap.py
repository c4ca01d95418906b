"""Bootstrap over clusters: one resampling that all checkpoints of a task share.

Nearly every metric is a smooth function of sums over items: accuracy is Σx/Σ1, perplexity
exp(−Σlogp/Σtokens). So items are summed into their clusters once, a replicate is one row of a
matrix product, and any number of checkpoints, and all their differences, come from the same draws.
What is fitted to the items instead (`Refit`) is fitted anew in every draw, and in the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefbench.errors import InputError

Array: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[Array], Array]
"""Sums (..., n_columns) to values (...)."""
Fit: TypeAlias = Callable[[Array, Array], Array]
"""Columns (n_items, n_columns) and how often each draw holds each item, (n_draws, n_items), to
values (n_draws,). A draw's value depends on its own row alone: draws are fitted some at a time."""

N_CELLS = 1 << 17
"""Multiplicities held at once: 1 MiB, which stays in the cache."""
N_ROWS = 128
"""Resamples summed at once at least, where columns are so many that reading them takes longest."""
N_FITTED = 1 << 15
"""The same where something is fitted, which makes several arrays of the size."""


@dataclass(frozen=True)
class Refit:
    """A statistic that no sums determine: fitted to the items anew in every resample.

    `is_enough` says whether some items (n_items, n_columns) allow an interval: of few, all draws
    may end in a certainty that the items do not give.
    """

    fit: Fit
    is_enough: Callable[[Array], bool] = lambda columns: True


class Replicates(NamedTuple):
    """A statistic of one or more checkpoints, on the data and around it."""

    value: Array
    """On all items, (...)."""
    resampled: Array
    """On each bootstrap resample, (n_resamples, ...)."""
    jackknife: Array
    """With one cluster left out, (n_clusters, ...); NaN where it was not asked for."""

    def in_logs(self) -> Replicates:
        """The logarithms of what is above 0; NaN elsewhere, and where a value is infinite."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = (np.log(part) for part in self)
            return Replicates(*(np.where(np.isfinite(part), part, np.nan) for part in logs))


class Resampling:
    """The bootstrap draws of one task: n_resamples times n_clusters clusters with replacement.

    The draws depend on the seed and on the number of clusters, on nothing else: not on which
    checkpoints are measured, how many, or in which order.

    Args:
        clusters: the cluster of each item, (n_items,), labels of any kind. Items of one cluster
            (questions on one passage, both judge orders of one prompt) are drawn together.
        n_resamples: how many resamples.
        seed: seed of the draws.
    """

    def __init__(self, clusters: ArrayLike, *, n_resamples: int = 10_000, seed: int) -> None:
        self.clusters: NDArray[Any] = np.asarray(clusters)
        if self.clusters.ndim != 1:
            raise InputError(f"clusters must be (n_items,), not {self.clusters.shape}")
        if n_resamples < 1:
            raise InputError(f"n_resamples must be at least 1, not {n_resamples}")
        self.n_resamples = n_resamples
        self.seed = seed
        labels, codes, sizes = np.unique(self.clusters, return_inverse=True, return_counts=True)
        self.n_items = len(self.clusters)
        self.n_clusters = len(labels)
        self._codes = codes
        self._order = np.argsort(codes, kind="stable")
        self._starts = np.cumsum(sizes) - sizes
        self._n_terms = self.n_clusters * int(sizes.max(initial=0))

    def only(self, rows: NDArray[np.bool_]) -> Resampling:
        """The resampling of some of the items, from the same seed; itself where it is all."""
        if rows.all():
            return self
        return Resampling(self.clusters[rows], n_resamples=self.n_resamples, seed=self.seed)

    def by_cluster(self, columns: ArrayLike) -> Array:
        """Sums over the items of each cluster: (n_items, ...) to (n_clusters, ...).

        The columns are rounded first, so that every sum the bootstrap takes is exact (`_summable`).
        """
        values = self._checked(columns)
        if self.n_items == 0:
            return values
        rounded = _summable(values, self._n_terms)
        sums: Array = np.add.reduceat(rounded[self._order], self._starts, axis=0)
        return sums

    def sums(self, columns: ArrayLike) -> Array:
        """Sums over each resample: (n_items, ...) to (n_resamples, ...)."""
        return self._resampled(self.by_cluster(columns))

    def replicate(
        self, columns: ArrayLike, statistic: Statistic | Refit, *, jackknife: bool = True
    ) -> Replicates:
        """A statistic of the columns, with its bootstrap and jackknife replicates.

        Args:
            columns: (n_items, ..., n_columns); axes between are checkpoints.
            statistic: sums (..., n_columns) to values (...), NaN or infinite where undefined; or
                what is fitted anew in every draw.
            jackknife: whether those replicates are needed where they cost a fit each.
        """
        if isinstance(statistic, Refit):
            return self.refit(columns, statistic.fit, jackknife=jackknife)
        clusters = self.by_cluster(columns)
        whole = clusters.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return Replicates(
                value=statistic(whole),
                resampled=statistic(self._resampled(clusters)),
                jackknife=statistic(whole - clusters),
            )

    def refit(self, columns: ArrayLike, fit: Fit, *, jackknife: bool = True) -> Replicates:
        """What is fitted to the items, fitted anew in the draws that `sums` has.

        Args:
            columns: (n_items, ..., n_columns); axes between are checkpoints, fitted one by one.
            fit: columns (n_items, n_columns) and counts (n_draws, n_items) to values (n_draws,).
            jackknife: fit with each cluster left out too; else those replicates are NaN.

        Returns:
            Replicates; all NaN, and nothing fitted, without items.
        """
        values = self._checked(columns)
        shape = values.shape[1:-1]
        if self.n_items == 0:
            return Replicates(
                np.full(shape, np.nan),
                np.full((self.n_resamples, *shape), np.nan),
                np.full((0, *shape), np.nan),
            )

        # Each checkpoint in memory of its own: how it is laid out must not depend on its company.
        table = values.reshape(self.n_items, -1, values.shape[-1])
        members = [table[:, member].copy() for member in range(table.shape[1])]

        def fitted(counts: NDArray[Any]) -> Array:
            by_item = counts[:, self._codes].astype(np.float64)
            with np.errstate(divide="ignore", invalid="ignore"):
                each = [fit(member, by_item) for member in members]
            return np.stack(each, axis=-1).reshape(len(counts), *shape)

        n_rows = max(1, N_FITTED // self.n_items)
        drawn = cluster_counts(
            self.n_clusters,
            n_resamples=self.n_resamples,
            rng=np.random.default_rng(self.seed),
            chunk=n_rows,
        )
        left_out = np.full((self.n_clusters, *shape), np.nan)
        for start in range(0, self.n_clusters if jackknife else 0, n_rows):
            rows = np.arange(start, min(start + n_rows, self.n_clusters))
            left_out[rows] = fitted(np.arange(self.n_clusters) != rows[:, None])
        return Replicates(
            value=fitted(np.ones((1, self.n_clusters)))[0],
            resampled=np.concatenate([fitted(counts) for counts in drawn]),
            jackknife=left_out,
        )

    def _checked(self, columns: ArrayLike) -> Array:
        values = np.asarray(columns, dtype=np.float64)
        if len(values) != self.n_items:
            raise InputError(f"{len(values)} rows of columns for {self.n_items} items")
        if not np.isfinite(values).all():
            raise InputError(
                "columns hold NaN or infinity: leave such items out, count them as missing"
            )
        return values

    def _resampled(self, clusters: Array) -> Array:
        if self.n_clusters == 0:
            return np.zeros((self.n_resamples, *clusters.shape[1:]))
        flat, place = _distinct(clusters.reshape(self.n_clusters, -1))
        sums = np.empty((self.n_resamples, flat.shape[1]))
        rng = np.random.default_rng(self.seed)
        chunk = max(N_CELLS // self.n_clusters, N_ROWS if flat.shape[1] > N_ROWS else 1)
        start = 0
        for counts in cluster_counts(
            self.n_clusters, n_resamples=self.n_resamples, rng=rng, chunk=chunk
        ):
            sums[start : start + len(counts)] = counts.astype(np.float64) @ flat
            start += len(counts)
        return sums[:, place].reshape(self.n_resamples, *clusters.shape[1:])


def _distinct(columns: Array) -> tuple[Array, list[int]]:
    """Columns that differ, and where among them each one is.

    Token counts, and what counts items, are those of every checkpoint.
    """
    first: dict[bytes, int] = {}
    kept: list[int] = []
    place: list[int] = []
    for at, column in enumerate(np.ascontiguousarray(columns.T)):
        found = first.setdefault(column.tobytes(), len(kept))
        if found == len(kept):
            kept.append(at)
        place.append(found)
    return np.ascontiguousarray(columns[:, kept]), place


def cluster_counts(
    n_clusters: int, *, n_resamples: int, rng: np.random.Generator, chunk: int | None = None
) -> Iterator[NDArray[np.intp]]:
    """How often each resample holds each cluster, `chunk` resamples at a time.

    Yields:
        Multiplicities (chunk, n_clusters), each row summing to n_clusters. The chunk's size does
        not change the draws.
    """
    # Indices counted with bincount: about six times faster than rng.multinomial.
    chunk = chunk or max(1, N_CELLS // n_clusters)
    for start in range(0, n_resamples, chunk):
        n_rows = min(chunk, n_resamples - start)
        drawn = rng.integers(n_clusters, size=(n_rows, n_clusters))
        drawn += n_clusters * np.arange(n_rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n_rows * n_clusters)
        yield counts.reshape(n_rows, n_clusters)


def percentile_interval(resampled: Array, *, confidence: float) -> tuple[float, float]:
    """The central `confidence` of the replicates (n_resamples,).

    NaN where a replicate is undefined: quantiles of those that happen to be defined would be an
    interval for another question.
    """
    if not np.isfinite(resampled).all():
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def bca_interval(
    value: float, resampled: Array, jackknife: Array, *, confidence: float
) -> tuple[float, float]:
    """Bias-corrected and accelerated interval.

    Args:
        value: the statistic on all items.
        resampled: its bootstrap replicates, (n_resamples,).
        jackknife: its values with one cluster left out, (n_clusters,).
        confidence: between 0 and 1.

    Returns:
        Lower and upper bound. NaN where undefined: no spread, all replicates on one side of the
        value, a replicate that is not finite, or an acceleration too strong for the level.

    Source: Efron 1987, doi.org/10.1080/01621459.1987.10478410; ties count half.
    """
    undefined = np.nan, np.nan
    if not (np.isfinite(resampled).all() and np.isfinite(jackknife).all()):
        return undefined
    below = float(np.mean(resampled < value) + np.mean(resampled == value) / 2)
    influence = jackknife.mean() - jackknife
    spread = np.sum(influence**2) ** 1.5
    if spread == 0 or np.ptp(resampled) == 0 or not 0 < below < 1:
        return undefined
    acceleration = np.sum(influence**3) / (6 * spread)
    normal = NormalDist()
    bias = normal.inv_cdf(below)
    levels = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        shifted = bias + normal.inv_cdf(tail)
        stretch = 1 - acceleration * shifted
        if stretch <= 0:
            return undefined
        levels.append(normal.cdf(bias + shifted / stretch))
    low, high = np.quantile(resampled, levels)
    return float(low), float(high)


def _summable(columns: Array, n_terms: int) -> Array:
    """Columns rounded so that every sum of up to n_terms of their rows is exact in float64.

    Then the order of addition does not matter, and neither the linear-algebra library, its threads
    nor a neighbouring column can change a bit of a result. Whole numbers stay as they are; others
    move by less than n_terms · 2⁻⁵² of their column's largest.
    """
    largest = np.abs(columns).max(axis=0)
    exponent = np.frexp(largest * n_terms)[1] - 52
    unit = np.ldexp(1.0, np.maximum(exponent, -1000))
    rounded: Array = np.rint(columns / unit) * unit
    return rounded
