"""All metrics of all checkpoints of a task, and their differences to one, from one resampling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from prefbench.stats.bootstrap import Array, Refit, Replicates, Resampling, Statistic
from prefbench.stats.estimates import (
    Estimate,
    Method,
    estimates,
    present,
    trials,
    with_interval,
    without_interval,
)
from prefbench.stats.paired import differences, exact_p, p_between
from prefbench.stats.pairs import Pairs, pairs_from, pairs_of

ENOUGH = 0.5
"""Share of the items that a checkpoint must have to be compared with all others."""
FEW = 12
"""Checkpoints up to which each two are compared on what both have."""


class Wanted(NamedTuple):
    """A statistic of some of a table's columns."""

    columns: tuple[int, ...]
    statistic: Statistic | Refit
    proportion: bool = False
    pairs: bool = False
    """Whether each two checkpoints are to be compared."""
    in_logs: bool = False
    """Whether differences are tested in logarithms."""


class Found(NamedTuple):
    """What a statistic is of each checkpoint, and how far it lies from the baseline's."""

    estimates: list[Estimate]
    differences: list[Estimate | None]
    pairs: Pairs | None = None


def estimate_all(
    table: Array,
    wanted: Sequence[Wanted],
    *,
    resampling: Resampling,
    baseline: int | None = None,
    confidence: float = 0.95,
    method: Method = "percentile",
) -> list[Found]:
    """Equal to `estimates` and `differences` of each statistic, bit for bit.

    Statistics for which all checkpoints have the same items share one pass over the draws; each
    that is fitted makes its own, over the same draws.

    Args:
        table: per-item numbers (n_items, n_checkpoints, n_columns), NaN where missing.
        wanted: the statistics.
        resampling: the task's draws.
        baseline: the checkpoint that the others' differences are taken to.
        confidence: of the intervals.
        method: as for `estimate`.
    """
    if table.shape[1] == 0:
        return [Found([], []) for _ in wanted]
    found: dict[int, Found] = {}
    passes: dict[bytes, list[int]] = {}
    for i, want in enumerate(wanted):
        there = present(table[..., list(want.columns)])
        if (there == there[:, :1]).all():
            passes.setdefault(there[:, 0].tobytes(), []).append(i)
        else:
            found[i] = _one(table, want, resampling, baseline, confidence, method)
    for mask, members in passes.items():
        rows = np.frombuffer(mask, dtype=np.bool_)
        kept = resampling.only(rows)
        n_missing = resampling.n_items - kept.n_items
        replicates = _replicate(
            table[rows], [wanted[i] for i in members], kept, jackknife=method == "bca"
        )
        for i, one in zip(members, replicates, strict=True):
            found[i] = found_of(
                one,
                baseline=baseline,
                proportion=wanted[i].proportion,
                n=kept.n_items,
                n_missing=n_missing,
                confidence=confidence,
                method=method,
                exact=_exact(table[rows], wanted[i], kept),
                n_trials=_trials(table[rows], wanted[i], kept),
                pairs=wanted[i].pairs,
                in_logs=wanted[i].in_logs,
            )
    for i, want in enumerate(wanted):
        if isinstance(want.statistic, Refit):
            found[i] = _as_known(found[i], baseline, table[..., list(want.columns)], want.statistic)
    return [found[i] for i in range(len(wanted))]


def _exact(table: Array, want: Wanted, resampling: Resampling) -> Array | None:
    return exact_p(table[..., list(want.columns)], resampling) if want.proportion else None


def _trials(table: Array, want: Wanted, resampling: Resampling) -> list[int] | None:
    """Of a share, of how many clusters it is the share, by checkpoint."""
    if not want.proportion:
        return None
    return [
        trials(table[:, i][:, list(want.columns)], want.statistic, resampling)
        for i in range(table.shape[1])
    ]


def _as_known(found: Found, baseline: int | None, columns: Array, refit: Refit) -> Found:
    """No interval where the items do not allow one, none of a difference where a fit is 0 or 1.

    Such a fit's draws end there too, all or most, which is no sign of how sure it is; what is known
    of the value itself its Wilson interval says.
    """
    rows = [columns[present(columns[:, i]), i] for i in range(columns.shape[1])]
    enough = [refit.is_enough(some) for some in rows]
    own = [e if ok else without_interval(e) for e, ok in zip(found.estimates, enough, strict=True)]
    known = [ok and e.value not in (0, 1) for e, ok in zip(own, enough, strict=True)]
    gaps = [
        gap
        if gap is None or (baseline is not None and known[i] and known[baseline])
        else without_interval(gap)
        for i, gap in enumerate(found.differences)
    ]
    return Found(
        own, gaps, found.pairs and found.pairs.without([i for i, ok in enumerate(known) if not ok])
    )


def _replicate(
    table: Array, wanted: Sequence[Wanted], resampling: Resampling, *, jackknife: bool
) -> list[Replicates]:
    """Each statistic with its replicates; those of sums from sums that are drawn once."""
    summed = [want for want in wanted if not isinstance(want.statistic, Refit)]
    used = sorted({column for want in summed for column in want.columns})
    at = {column: place for place, column in enumerate(used)}
    if summed:
        sums = resampling.replicate(table[..., used], lambda sums: sums)
    results = []
    for want in wanted:
        if isinstance(want.statistic, Refit):
            columns = table[..., list(want.columns)]
            results.append(resampling.refit(columns, want.statistic.fit, jackknife=jackknife))
            continue
        places = [at[column] for column in want.columns]
        with np.errstate(divide="ignore", invalid="ignore"):
            results.append(Replicates(*(want.statistic(part[..., places]) for part in sums)))
    return results


def found_of(
    replicates: Replicates,
    *,
    baseline: int | None,
    n: int,
    n_missing: int,
    confidence: float,
    method: Method,
    proportion: bool = False,
    exact: Array | None = None,
    n_trials: Sequence[int] | None = None,
    pairs: bool = False,
    in_logs: bool = False,
) -> Found:
    """What replicates (..., n_checkpoints) say of each checkpoint and of its baseline.

    Args:
        replicates: from draws that all checkpoints share.
        baseline: the checkpoint that the others' differences are taken to.
        n: items that were resampled.
        n_missing: items that were not.
        confidence: of the intervals.
        method: as for `estimate`.
        proportion: as for `estimate`.
        n_trials: of a share, by checkpoint, of how many clusters it is the share; None for all.
        exact: p-values of each two checkpoints to take instead of the bootstrap's.
        pairs: compare each two checkpoints as well.
        in_logs: differences are tested in logarithms.
    """

    def interval(
        one: Replicates, *, share: bool = False, of: int | None = None, p: float = np.nan
    ) -> Estimate:
        return with_interval(
            float(one.value),
            one.resampled,
            one.jackknife,
            n=n,
            n_missing=n_missing,
            confidence=confidence,
            method=method,
            proportion=share,
            n_trials=of,
            p=p,
        )

    def p_of(i: int, j: int) -> float:
        return p_between(tested, i, j, n_clusters) if exact is None else float(exact[i, j])

    n_clusters = len(replicates.jackknife)
    tested = replicates.in_logs() if in_logs else replicates
    members = range(len(replicates.value))
    own = [
        interval(_member(replicates, i), share=proportion, of=n_trials[i] if n_trials else None)
        for i in members
    ]
    gaps = [
        None
        if baseline is None or i == baseline
        else interval(_gap(replicates, i, baseline), p=p_of(i, baseline))
        for i in members
    ]
    if not pairs:
        return Found(own, gaps)
    compared = pairs_of(
        replicates,
        members=tuple(members),
        n=n,
        n_clusters=n_clusters,
        exact=exact,
        in_logs=in_logs,
    )
    return Found(own, gaps, compared)


def _member(replicates: Replicates, i: int) -> Replicates:
    return Replicates(*(part[..., i] for part in replicates))


def _gap(replicates: Replicates, i: int, baseline: int) -> Replicates:
    return Replicates(*(part[..., i] - part[..., baseline] for part in replicates))


def _one(
    table: Array,
    want: Wanted,
    resampling: Resampling,
    baseline: int | None,
    confidence: float,
    method: Method,
) -> Found:
    """A statistic whose items differ between checkpoints."""
    columns = table[..., list(want.columns)]
    own = estimates(
        columns,
        want.statistic,
        resampling=resampling,
        confidence=confidence,
        method=method,
        proportion=want.proportion,
    )
    others = [i for i in range(len(own)) if baseline is not None and i != baseline]
    gaps: list[Estimate | None] = [None] * len(own)
    if baseline is not None:
        pairs = [(i, baseline) for i in others]
        told = differences(
            columns,
            pairs,
            want.statistic,
            resampling=resampling,
            confidence=confidence,
            method=method,
            proportion=want.proportion,
            in_logs=want.in_logs,
        )
        for i, gap in zip(others, told, strict=True):
            gaps[i] = gap
    return Found(
        own, gaps, _pairs_where_items_differ(columns, want, resampling) if want.pairs else None
    )


def _pairs_where_items_differ(columns: Array, want: Wanted, resampling: Resampling) -> Pairs | None:
    """Each two of the checkpoints that have enough of the items.

    On what both have where they are few, and otherwise on what all of these have, as every two
    have other items then and need a resampling of their own.
    """
    there = present(columns)
    members = tuple(map(int, np.flatnonzero(there.mean(axis=0) >= ENOUGH)))
    if not members:
        return None
    if len(members) <= FEW and not isinstance(want.statistic, Refit):
        twos = list(combinations(range(len(members)), 2))
        gaps = differences(
            columns[:, members],
            twos,
            want.statistic,
            resampling=resampling,
            proportion=want.proportion,
            in_logs=want.in_logs,
        )
        return pairs_from(members, twos, gaps)
    rows = np.asarray(there[:, members].all(axis=1))
    kept, common = resampling.only(rows), columns[rows][:, members]
    return pairs_of(
        kept.replicate(common, want.statistic, jackknife=False),
        members=members,
        n=kept.n_items,
        n_clusters=kept.n_clusters,
        exact=exact_p(common, kept) if want.proportion else None,
        in_logs=want.in_logs,
    )
