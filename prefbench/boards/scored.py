"""The leaderboard scored: every value with its interval, differences paired, all from one draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prefbench.boards.aligned import all_items, seed_of, table_of
from prefbench.leaderboard import (
    Board,
    Column,
    Contest,
    Entry,
    Gathered,
    Group,
    Measured,
    Ranked,
    find_baseline,
    row_order,
)
from prefbench.metrics import RANKING_METRICS, Metric, metric_named, metrics_of
from prefbench.records import Score
from prefbench.stats.bootstrap import Array, Refit, Resampling
from prefbench.stats.estimates import (
    Estimate,
    Method,
    present,
    with_normal_interval,
    without_interval,
)
from prefbench.stats.paired import unpaired_difference
from prefbench.stats.pairs import Pairs
from prefbench.stats.ranking import elo, ranking
from prefbench.stats.shared import Wanted, estimate_all


def board_of(
    gathered: Gathered,
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
    interval: Method = "percentile",
    n_resamples: int = 10_000,
    everything: bool = False,
    hidden: bool = True,
) -> Board:
    """Scores all that was gathered.

    Args:
        gathered: what was measured.
        baseline: a checkpoint's name or a method that one of them has; None means SFT where there
            is exactly one.
        confidence: of the intervals.
        interval: percentile or bca.
        n_resamples: bootstrap resamples.
        everything: compare each two rows in all columns; else in those that the tasks show.
        hidden: score the columns that the tasks do not show, too.

    Raises:
        InputError: the baseline is not among the checkpoints.
    """
    rows = sorted(gathered.checkpoints, key=row_order)
    base = find_baseline(rows, baseline)
    robins = {one.group: one for one in gathered.ranked}
    columns: list[Column] = []
    entries: dict[tuple[str, tuple[str, str]], Entry] = {}
    contests: dict[tuple[str, str], Contest] = {}
    noise: dict[tuple[str, str], float] = {}
    settings = _Settings(base, confidence, interval, n_resamples, everything, hidden or everything)
    for group in gathered.groups:
        cells = {one.checkpoint: one for one in gathered.measured if one.group == group.name}
        members = [cells[row.name] for row in rows if row.name in cells]
        if group.name in robins:
            scored = _rank_group(group, robins[group.name], settings)
        elif members:
            scored = _score_group(group, members, settings)
        else:
            columns += [Column(group, metric_named(name), True) for name in group.shown]
            continue
        again = [one for one in gathered.repeated if one.group == group.name]
        for column, found, contest in scored:
            columns.append(column)
            for entry in found:
                entries[entry.score.checkpoint, column.key] = entry
            if contest:
                contests[column.key] = contest
            gaps = [
                _gap(cells[o.checkpoint], o, column.metric) for o in again if o.checkpoint in cells
            ]
            if known := [gap for gap in gaps if np.isfinite(gap)]:
                noise[column.key] = max(known)
    return Board(
        tuple(rows),
        tuple(columns),
        entries,
        dict(gathered.reasons),
        base,
        confidence,
        tuple(gathered.notes),
        contests,
        noise,
    )


class _Settings(NamedTuple):
    baseline: str | None
    confidence: float
    interval: Method
    n_resamples: int
    everything: bool
    hidden: bool

    def resampling(self, group: Group, clusters: NDArray[Any]) -> Resampling:
        return Resampling(clusters, n_resamples=self.n_resamples, seed=seed_of(group))


_Scored: TypeAlias = Iterator[tuple[Column, list[Entry], Contest | None]]


def _score_group(group: Group, members: Sequence[Measured], settings: _Settings) -> _Scored:
    """Each metric of a group with the entries of its members, all from one resampling."""
    names = {name for one in members for name in one.quantities}
    metrics = _ordered(metrics_of(names, group.higher_is_better), group.shown)
    metrics += [
        (name, metric_named(name, group.higher_is_better))
        for name in dict.fromkeys(name for one in members for name in one.given)
        if name not in dict(metrics)
    ]
    if not settings.hidden and group.shown:
        metrics = [(name, metric) for name, metric in metrics if name in group.shown]
    used = sorted({quantity for _, metric in metrics for quantity in metric.quantities})
    items, clusters = all_items(members)
    at = [one.checkpoint for one in members]
    baseline = at.index(settings.baseline) if settings.baseline in at else None
    columns = [
        Column(group, metric, name in group.shown or not group.shown) for name, metric in metrics
    ]
    compared = len(members) > 1
    found = estimate_all(
        np.stack([table_of(one, used, items) for one in members], axis=1),
        [
            Wanted(
                tuple(map(used.index, metric.quantities)),
                metric.statistic,
                metric.proportion,
                pairs=compared and (column.shown or settings.everything),
                in_logs=metric.exponential,
            )
            for column, (_, metric) in zip(columns, metrics, strict=True)
        ],
        resampling=settings.resampling(group, clusters),
        baseline=baseline,
        confidence=settings.confidence,
        method=settings.interval,
    )
    for column, (name, metric), (own, gaps, pairs) in zip(columns, metrics, found, strict=True):
        told = [
            _told(one, name, metric, estimate, settings.confidence)
            for one, estimate in zip(members, own, strict=True)
        ]
        known = _known(members, told, gaps, name, baseline, settings.confidence)
        better = metric.higher_is_better
        entries = [
            Entry(Score(one.checkpoint, group.task, metric.name, estimate, better), gap)
            for one, estimate, gap in zip(members, told, known, strict=True)
            if one.quantities or name in one.given
        ]
        unpaired = [i for i, one in enumerate(members) if one.sure or name in one.given]
        yield column, entries, pairs and _contest(at, pairs.without(unpaired))


def _known(
    members: Sequence[Measured],
    told: Sequence[Estimate],
    gaps: Sequence[Estimate | None],
    name: str,
    baseline: int | None,
    confidence: float,
) -> list[Estimate | None]:
    """Differences to the baseline: paired, unpaired where a value came without items, or none."""
    if baseline is None:
        return list(gaps)
    base = members[baseline]
    known: list[Estimate | None] = []
    for i, (one, gap) in enumerate(zip(members, gaps, strict=True)):
        if i == baseline or one.sure or base.sure:
            known.append(None)
        elif name in one.given or name in base.given:
            known.append(unpaired_difference(told[i], told[baseline], confidence=confidence))
        else:
            known.append(gap)
    return known


def _contest(names: Sequence[str], pairs: Pairs) -> Contest:
    return Contest(tuple(names[member] for member in pairs.members), pairs)


def _rank_group(group: Group, robin: Ranked, settings: _Settings) -> _Scored:
    """Strengths of the checkpoints of a round robin, in nats and on Elo's scale."""
    names = robin.checkpoints
    own, gaps, pairs = ranking(
        robin.wins,
        robin.ties,
        resampling=settings.resampling(group, robin.clusters),
        baseline=names.index(settings.baseline) if settings.baseline in names else None,
        confidence=settings.confidence,
        method=settings.interval,
        pairs=True,
    )
    for name, metric in RANKING_METRICS.items():
        entries = []
        for checkpoint, estimate, gap in zip(names, own, gaps, strict=True):
            if name == "elo":
                estimate, gap = _on_elo(estimate), gap and _on_elo(gap, mean=0)
            entries.append(Entry(Score(checkpoint, group.task, metric.name, estimate, True), gap))
        # The task's own columns are those of comparisons with one opponent.
        shown = name == "strength" or name in group.shown
        # Elo is the same comparison on another scale.
        contest = _contest(names, pairs) if pairs and name == "strength" else None
        yield Column(group, metric, shown), entries, contest


def _gap(first: Measured, again: Measured, metric: Metric) -> float:
    """How far a checkpoint is from itself, measured again, on the items that both times have."""
    items = np.intersect1d(first.items, again.items)
    columns = [table_of(one, metric.quantities, items) for one in (first, again)]
    rows = present(columns[0]) & present(columns[1])
    if not rows.any():
        return np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        values = [_value(table[rows], metric) for table in columns]
    return abs(values[0] - values[1])


def _value(columns: Array, metric: Metric) -> float:
    if isinstance(metric.statistic, Refit):
        return float(metric.statistic.fit(columns, np.ones((1, len(columns))))[0])
    return float(metric.statistic(columns.sum(axis=0)))


def _on_elo(estimate: Estimate, mean: float = 1500) -> Estimate:
    value, low, high = map(float, elo(estimate[:3], mean=mean))
    se = float(elo(estimate.se, mean=0))
    return estimate._replace(value=value, low=low, high=high, se=se)


def _told(
    one: Measured, name: str, metric: Metric, estimate: Estimate, confidence: float
) -> Estimate:
    """The estimate, what was given instead, or what may be said of one that ended when sure."""
    if name in one.given:
        given = with_normal_interval(one.given[name], confidence=confidence)
        if metric.proportion and 0 <= given.value <= 1 and np.isfinite(given.se):
            given = given._replace(low=max(0.0, given.low), high=min(1.0, given.high))
        return given
    if one.sure is None:
        return estimate
    if name == "win_rate":
        return one.sure._replace(n=estimate.n, n_missing=estimate.n_missing)
    return without_interval(estimate)._replace(method="none: it ended when it was sure")


def _ordered(metrics: Mapping[str, Metric], shown: Sequence[str]) -> list[tuple[str, Metric]]:
    first = [name for name in shown if name in metrics]
    return [(name, metrics[name]) for name in [*first, *(n for n in metrics if n not in first)]]
