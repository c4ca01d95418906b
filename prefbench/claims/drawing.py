"""Values of many rows and tasks with their bootstrap replicates, in one pass for each set of items.

The draws are those of the leaderboard: one resampling per task, shared by all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefbench.boards.aligned import all_items, seed_of, table_of
from prefbench.claims.numbers import Number
from prefbench.leaderboard import Group, Measured
from prefbench.stats.bootstrap import Array, Refit, Replicates, Resampling
from prefbench.stats.estimates import Estimate, present, with_interval
from prefbench.stats.paired import exact_p, p_between
from prefbench.stats.significance import bootstrap_p, mcnemar

FEWEST = 20
"""Clusters, of each kind of item that a number is about, below which nothing is asked of them: so
that hardly one resample in a hundred million lacks a kind."""
N_TOGETHER = 64
"""Numbers summed at once: their columns in 10,000 resamples are some 20 MiB."""


class Wanted(NamedTuple):
    """Numbers on one task, each of one row, on the items that all of them have."""

    group: str
    members: tuple[tuple[str, Number], ...]
    """Row and number."""


class Drawn(NamedTuple):
    """The numbers that were wanted, (k,), and their replicates, (n_resamples, k)."""

    replicates: Replicates
    n: int
    n_missing: int
    n_clusters: int
    exact: Array | None
    """McNemar's p-values of each two, (k, k), where it is the test to take."""
    halves: Array | None
    """The sign test's p-values that shares are one half, (k,), where it is the test to take."""
    numbers: tuple[Number, ...]

    def own(self, at: int, confidence: float, neutral: float | None = None) -> Estimate:
        """One number with its interval, and the p-value that it is a neutral one."""
        value, resampled, left_out = (part[..., at] for part in self.replicates)
        p = np.nan
        if neutral is not None:
            p = float(bootstrap_p(value - neutral, resampled - neutral, self.n_clusters))
            if self.halves is not None and neutral == 0.5:
                p = float(self.halves[at])
        return with_interval(
            float(value),
            resampled,
            left_out,
            n=self.n,
            n_missing=self.n_missing,
            confidence=confidence,
            proportion=self.numbers[at].metric.proportion,
            p=p,
        )

    def gap(self, confidence: float) -> Estimate:
        """The first number minus the second, with the p-value that they are alike."""
        tested = self.replicates
        if self.numbers[0].metric.exponential:
            tested = tested.in_logs()
        value, resampled, left_out = (part[..., 0] - part[..., 1] for part in self.replicates)
        return with_interval(
            float(value),
            resampled,
            left_out,
            n=self.n,
            n_missing=self.n_missing,
            confidence=confidence,
            p=float(self.exact[0, 1])
            if self.exact is not None
            else p_between(tested, 0, 1, self.n_clusters),
        )


def draw(
    wanted: Sequence[Wanted],
    cells: Mapping[tuple[str, str], Measured],
    groups: Mapping[str, Group],
    *,
    n_resamples: int,
) -> dict[Wanted, Drawn | str]:
    """What was wanted; or why it cannot be: too few items, of all or of one kind.

    Args:
        wanted: on tasks that all of its rows have.
        cells: what was measured, by row and task.
        groups: the tasks.
        n_resamples: bootstrap resamples.
    """
    found: dict[Wanted, Drawn | str] = {}
    for name in dict.fromkeys(one.group for one in wanted):
        here = [one for one in dict.fromkeys(wanted) if one.group == name]
        rows = dict.fromkeys(row for one in here for row, _ in one.members)
        items, clusters = all_items([cells[row, name] for row in rows])
        resampling = Resampling(clusters, n_resamples=n_resamples, seed=seed_of(groups[name]))
        task = _Task(name, cells, items, resampling)
        by_items: dict[bytes, list[Wanted]] = {}
        for one in here:
            there = task.there(one)
            by_items.setdefault(there.tobytes(), []).append(one)
        for alike in by_items.values():
            found.update(task.drawn(alike))
    return found


class _Task:
    """One task's items, and what rows gave on them."""

    def __init__(
        self,
        name: str,
        cells: Mapping[tuple[str, str], Measured],
        items: NDArray[np.int32],
        resampling: Resampling,
    ) -> None:
        self.name, self.cells, self.items, self.resampling = name, cells, items, resampling
        self.columns: dict[tuple[str, str], Array] = {}

    def column(self, row: str, quantity: str) -> Array:
        """A row's quantity for all items, (n_items,); NaN where it lacks the item."""
        key = row, quantity
        if key not in self.columns:
            self.columns[key] = table_of(self.cells[row, self.name], [quantity], self.items)[:, 0]
        return self.columns[key]

    def table(self, row: str, number: Number) -> Array:
        return np.stack([self.column(row, one) for one in number.metric.quantities], axis=1)

    def given(self, one: Wanted) -> NDArray[np.bool_]:
        """The items that all members have."""
        return np.asarray(np.all([present(self.table(*member)) for member in one.members], axis=0))

    def there(self, one: Wanted) -> NDArray[np.bool_]:
        """Those of them that the numbers are about."""
        rows = self.given(one)
        for row, number in one.members:
            if number.bands:
                rows &= np.any([self.column(row, band) > 0 for band in number.bands], axis=0)
        return rows

    def drawn(self, alike: Sequence[Wanted]) -> Iterator[tuple[Wanted, Drawn | str]]:
        """What was wanted of the same items."""
        rows = self.there(alike[0])
        kept = self.resampling.only(rows)
        ready = []
        for one in alike:
            if why := self._too_few(one, rows, kept):
                yield one, why
            else:
                ready.append(one)
        for start in range(0, len(ready), N_TOGETHER):
            some = ready[start : start + N_TOGETHER]
            sums = self._sums(some, rows, kept)
            for one in some:
                yield one, self._of(one, rows, kept, sums)

    def _too_few(self, one: Wanted, rows: NDArray[np.bool_], kept: Resampling) -> str:
        clusters = self.resampling.clusters
        for row, number in one.members:
            for band in number.bands:
                n = len(np.unique(clusters[rows & (self.column(row, band) > 0)]))
                if n < FEWEST:
                    kind = band.removeprefix("in@").replace("_", " ")
                    return f"of {kind} distance there are {n} items; {FEWEST} are needed"
        n = kept.n_clusters
        return "" if n >= FEWEST else f"{n} items have what it takes; {FEWEST} are needed"

    def _sums(
        self, wanted: Sequence[Wanted], rows: NDArray[np.bool_], kept: Resampling
    ) -> dict[tuple[str, str], tuple[Array, Array]]:
        """By row and quantity, the sum over the items and over each resample."""
        keys = list(
            dict.fromkeys(
                (row, quantity)
                for one in wanted
                for row, number in one.members
                if not isinstance(number.metric.statistic, Refit)
                for quantity in number.metric.quantities
            )
        )
        if not keys:
            return {}
        columns = np.stack([self.column(*key)[rows] for key in keys], axis=1)
        found = kept.replicate(columns, np.asarray, jackknife=False)
        return {key: (found.value[at], found.resampled[:, at]) for at, key in enumerate(keys)}

    def _of(
        self,
        one: Wanted,
        rows: NDArray[np.bool_],
        kept: Resampling,
        sums: Mapping[tuple[str, str], tuple[Array, Array]],
    ) -> Drawn:
        values, draws = [], []
        tables = [self.table(row, number)[rows] for row, number in one.members]
        for (row, number), table in zip(one.members, tables, strict=True):
            statistic = number.metric.statistic
            if isinstance(statistic, Refit):
                fitted = kept.refit(table, statistic.fit, jackknife=False)
                values.append(fitted.value)
                draws.append(fitted.resampled)
                continue
            parts = [sums[row, quantity] for quantity in number.metric.quantities]
            with np.errstate(divide="ignore", invalid="ignore"):
                values.append(statistic(np.stack([part[0] for part in parts])))
                draws.append(statistic(np.stack([part[1] for part in parts], axis=-1)))
        shares = all(number.metric.proportion for _, number in one.members)
        exact = exact_p(np.stack(tables, axis=1), kept) if shares else None
        halves = None
        if exact is not None:
            n_right = np.array([table[:, 0].sum() for table in tables])
            halves = mcnemar(n_right, kept.n_items - n_right)
        return Drawn(
            Replicates(
                np.asarray(values),
                np.stack(draws, axis=-1),
                np.full((kept.n_clusters, len(values)), np.nan),
            ),
            kept.n_items,
            int((~self.given(one)).sum()),
            kept.n_clusters,
            exact,
            halves,
            tuple(number for _, number in one.members),
        )
