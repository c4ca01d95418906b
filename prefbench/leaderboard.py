"""The leaderboard: checkpoints × metrics, every value with its interval, differences paired."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prefbench.errors import InputError
from prefbench.metrics import RANKING_METRICS, Metric, metric_named, metrics_of
from prefbench.records import METHODS, Checkpoint, Score
from prefbench.stats.bootstrap import Array, Refit, Resampling
from prefbench.stats.estimates import Estimate, Method, present, without_interval
from prefbench.stats.paired import unpaired_difference
from prefbench.stats.pairs import Pairs
from prefbench.stats.ranking import elo, ranking
from prefbench.stats.shared import Wanted, estimate_all


@dataclass(frozen=True)
class Measured:
    """What one checkpoint gave on one column group, as the store has it.

    `quantities` maps names to values (n_items,), NaN where an item lacks one.
    """

    checkpoint: str
    group: str
    items: NDArray[np.int32]
    clusters: NDArray[Any]
    quantities: Mapping[str, Array]
    sure: Estimate | None = None
    """The win rate of a comparison that ended when it was sure. No interval over the items that
    were judged holds then: their number depends on what they gave."""
    repeat: int = 0
    """Above 0: how many times it had been measured before; says how much the engine varies."""
    given: Mapping[str, Estimate] = field(default_factory=dict)
    """By metric, values that came without items; differences to them cannot be paired."""


@dataclass(frozen=True)
class Ranked:
    """What a round robin gave on one column group: every two checkpoints on every prompt.

    `wins` says by item with what weight row i beats row j, (n_items, k, k), `ties` likewise; 0
    where they were not compared.
    """

    group: str
    checkpoints: tuple[str, ...]
    clusters: NDArray[Any]
    wins: Array
    ties: Array


@dataclass(frozen=True)
class Group:
    """A task under one set of conditions: what its columns share."""

    name: str
    """Unique among groups: the task and its conditions."""
    task: str
    conditions: str = ""
    """What is not the task's default, e.g. `first 50 items`."""
    shown: tuple[str, ...] = ()
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    opponent: str = ""
    """Of judged comparisons: against whom, as the task or the user names it."""
    judge: str = ""


@dataclass(frozen=True)
class Gathered:
    """What was measured, as a leaderboard needs it."""

    checkpoints: tuple[Checkpoint, ...]
    """In any order; also those that were not measured."""
    groups: tuple[Group, ...]
    """In the table's order."""
    measured: tuple[Measured, ...]
    ranked: tuple[Ranked, ...] = ()
    """The round robins."""
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Why a checkpoint lacks a group."""
    notes: tuple[str, ...] = ()
    """To be shown below the table."""
    cells: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """The store's cell by checkpoint and group, of all that is in `measured`."""


@dataclass(frozen=True)
class Column:
    """One metric of one group."""

    group: Group
    metric: Metric
    shown: bool

    @property
    def key(self) -> tuple[str, str]:
        return self.group.name, self.metric.name


@dataclass(frozen=True)
class Entry:
    """A value in the table, and its difference to the baseline's on the same items."""

    score: Score
    difference: Estimate | None = None


class Contest(NamedTuple):
    """How each two rows of a column differ."""

    rows: tuple[str, ...]
    """Names of the rows, in the order of the pairs."""
    pairs: Pairs


@dataclass(frozen=True)
class Board:
    """A leaderboard: rows by method, columns by task and metric, reasons for missing cells."""

    rows: tuple[Checkpoint, ...]
    columns: tuple[Column, ...]
    entries: Mapping[tuple[str, tuple[str, str]], Entry]
    reasons: Mapping[tuple[str, str], str]
    """By checkpoint and group."""
    baseline: str | None
    confidence: float
    notes: tuple[str, ...] = ()
    contests: Mapping[tuple[str, str], Contest] = field(default_factory=dict)
    """By column, of those where each two rows were compared."""
    noise: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """By column, the most that a checkpoint differed by from itself, measured again."""

    def entry(self, row: Checkpoint, column: Column) -> Entry | None:
        return self.entries.get((row.name, column.key))

    def reason(self, row: Checkpoint, column: Column) -> str:
        """Why an entry is missing."""
        if row.state != "ready":
            return row.reason or row.state
        return self.reasons.get((row.name, column.group.name), "not measured")


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
    """Scores all that was gathered; arguments and errors are those of `build_board`."""
    return build_board(
        gathered.checkpoints,
        gathered.groups,
        gathered.measured,
        ranked=gathered.ranked,
        reasons=gathered.reasons,
        notes=gathered.notes,
        baseline=baseline,
        confidence=confidence,
        interval=interval,
        n_resamples=n_resamples,
        everything=everything,
        hidden=hidden,
    )


def build_board(
    checkpoints: Sequence[Checkpoint],
    groups: Sequence[Group],
    measured: Sequence[Measured],
    *,
    ranked: Sequence[Ranked] = (),
    reasons: Mapping[tuple[str, str], str] | None = None,
    baseline: str | None = None,
    confidence: float = 0.95,
    interval: Method = "percentile",
    n_resamples: int = 10_000,
    everything: bool = False,
    hidden: bool = True,
    notes: Sequence[str] = (),
) -> Board:
    """Scores all that was measured.

    Args:
        checkpoints: the rows, in any order; also those that were not measured.
        groups: the column groups, in the table's order.
        measured: what there is.
        ranked: the round robins.
        reasons: why a checkpoint lacks a group.
        baseline: a checkpoint's name or a method that one of them has; None means SFT where there
            is exactly one.
        confidence: of the intervals.
        interval: percentile or bca.
        n_resamples: bootstrap resamples.
        everything: compare each two rows in all columns; else in those that the tasks show.
        hidden: score the columns that the tasks do not show, too.
        notes: to be shown below the table.

    Raises:
        InputError: the baseline is not among the checkpoints.
    """
    rows = sorted(checkpoints, key=row_order)
    base = find_baseline(rows, baseline)
    robins = {one.group: one for one in ranked}
    columns: list[Column] = []
    entries: dict[tuple[str, tuple[str, str]], Entry] = {}
    contests: dict[tuple[str, str], Contest] = {}
    noise: dict[tuple[str, str], float] = {}
    settings = _Settings(base, confidence, interval, n_resamples, everything, hidden or everything)
    for group in groups:
        cells = {
            one.checkpoint: one for one in measured if one.group == group.name and not one.repeat
        }
        members = [cells[row.name] for row in rows if row.name in cells]
        if group.name in robins:
            scored = _rank_group(group, robins[group.name], settings)
        elif members:
            scored = _score_group(group, members, settings)
        else:
            columns += [Column(group, metric_named(name), True) for name in group.shown]
            continue
        again = [one for one in measured if one.group == group.name and one.repeat]
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
        dict(reasons or {}),
        base,
        confidence,
        tuple(notes),
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
        return Resampling(clusters, n_resamples=self.n_resamples, seed=_seed(group))


_Scored: TypeAlias = Iterator[tuple[Column, list[Entry], Contest | None]]


def _score_group(group: Group, members: Sequence[Measured], settings: _Settings) -> _Scored:
    """Each metric of a group with the entries of its members, all from one resampling."""
    names = {name for one in members for name in one.quantities}
    metrics = _ordered(metrics_of(names, group.higher_is_better), group.shown)
    metrics += [
        (name, metric_named(name))
        for name in dict.fromkeys(name for one in members for name in one.given)
        if name not in dict(metrics)
    ]
    if not settings.hidden and group.shown:
        metrics = [(name, metric) for name, metric in metrics if name in group.shown]
    used = sorted({quantity for _, metric in metrics for quantity in metric.quantities})
    items, clusters = _all_items(members)
    at = [one.checkpoint for one in members]
    baseline = at.index(settings.baseline) if settings.baseline in at else None
    columns = [
        Column(group, metric, name in group.shown or not group.shown) for name, metric in metrics
    ]
    compared = len(members) > 1
    found = estimate_all(
        np.stack([_table(one, used, items) for one in members], axis=1),
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
    unpaired = [i for i, one in enumerate(members) if one.sure]
    for column, (name, metric), (own, gaps, pairs) in zip(columns, metrics, found, strict=True):
        told = [_told(one, name, estimate) for one, estimate in zip(members, own, strict=True)]
        known = _known(members, told, gaps, name, baseline, settings.confidence)
        better = metric.higher_is_better
        entries = [
            Entry(Score(one.checkpoint, group.task, metric.name, estimate, better), gap)
            for one, estimate, gap in zip(members, told, known, strict=True)
            if one.quantities or name in one.given
        ]
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
    columns = [_table(one, metric.quantities, items) for one in (first, again)]
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


def _told(one: Measured, name: str, estimate: Estimate) -> Estimate:
    """The estimate, what was given instead, or what may be said of one that ended when sure."""
    if name in one.given:
        return one.given[name]
    if one.sure is None:
        return estimate
    if name == "win_rate":
        return one.sure._replace(n=estimate.n, n_missing=estimate.n_missing)
    return without_interval(estimate)._replace(method="none: it ended when it was sure")


def row_order(checkpoint: Checkpoint) -> tuple[Any, ...]:
    """Rows by method in the field's order, then step, seed and name."""
    known = list(METHODS)
    method = checkpoint.method
    place = known.index(method) if method in known else len(known)
    step = checkpoint.step if checkpoint.step is not None else float("inf")
    return place, method or "", step, checkpoint.seed or 0, checkpoint.name


def find_baseline(rows: Sequence[Checkpoint], wanted: str | None) -> str | None:
    """The name of the checkpoint that others are compared with.

    Raises:
        InputError: the wanted one is not there, or a method names several.
    """
    if wanted is not None:
        if any(row.name == wanted for row in rows):
            return wanted
        named = [row.name for row in rows if row.method == wanted.lower()]
        if len(named) == 1:
            return named[0]
        what = f"{len(named)} checkpoints: {', '.join(named)}" if named else "no checkpoint"
        raise InputError(f"the baseline {wanted!r} names {what}; give one row's name")
    tuned = [row.name for row in rows if row.method == "sft" and row.state == "ready"]
    return tuned[0] if len(tuned) == 1 else None


def _ordered(metrics: Mapping[str, Metric], shown: Sequence[str]) -> list[tuple[str, Metric]]:
    first = [name for name in shown if name in metrics]
    return [(name, metrics[name]) for name in [*first, *(n for n in metrics if n not in first)]]


def _seed(group: Group) -> int:
    """One resampling per task: the same whatever else is in the table."""
    return int.from_bytes(hashlib.sha256(group.task.encode(errors="surrogatepass")).digest()[:4])


def _all_items(members: Sequence[Measured]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """All items that any member has, with their clusters."""
    items = np.concatenate([one.items for one in members])
    clusters = np.concatenate([one.clusters for one in members])
    unique, first = np.unique(items, return_index=True)
    return unique, clusters[first]


def _table(one: Measured, quantities: Sequence[str], items: NDArray[np.int32]) -> Array:
    """A checkpoint's quantities for all items, NaN where it lacks the item."""
    table = np.full((len(items), len(quantities)), np.nan)
    at = np.searchsorted(items, one.items)
    here = np.isin(one.items, items)
    rows = at[here]
    for column, name in enumerate(quantities):
        if name == "1":
            table[rows, column] = 1.0
        elif name in one.quantities:
            table[rows, column] = one.quantities[name][here]
    return table
