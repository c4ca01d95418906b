"""The leaderboard: checkpoints × metrics, every value with its interval, differences paired."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefbench.errors import InputError
from prefbench.metrics import RANKING_METRICS, Metric, metric_named, metrics_of
from prefbench.records import METHODS, Checkpoint, Score
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import Estimate, Method
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

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `different`, or empty where the difference's interval holds 0."""
        if self.difference is None or not (self.difference.low > 0 or self.difference.high < 0):
            return ""
        if self.score.higher_is_better is None:
            return "different"
        return "better" if (self.difference.low > 0) == self.score.higher_is_better else "worse"


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
        notes: to be shown below the table.

    Raises:
        InputError: the baseline is not among the checkpoints.
    """
    rows = sorted(checkpoints, key=row_order)
    base = find_baseline(rows, baseline)
    columns: list[Column] = []
    entries: dict[tuple[str, tuple[str, str]], Entry] = {}
    robins = {one.group: one for one in ranked}
    for group in groups:
        if group.name in robins:
            for column, scored in _rank_group(
                group,
                robins[group.name],
                base,
                confidence=confidence,
                interval=interval,
                n_resamples=n_resamples,
            ):
                columns.append(column)
                for entry in scored:
                    entries[entry.score.checkpoint, column.key] = entry
            continue
        cells = {one.checkpoint: one for one in measured if one.group == group.name}
        members = [cells[row.name] for row in rows if row.name in cells]
        if not members:
            columns += [Column(group, metric_named(name), True) for name in group.shown]
            continue
        at = next((i for i, one in enumerate(members) if one.checkpoint == base), None)
        for column, scored in _score_group(
            group,
            members,
            at,
            confidence=confidence,
            interval=interval,
            n_resamples=n_resamples,
        ):
            columns.append(column)
            for entry in scored:
                entries[entry.score.checkpoint, column.key] = entry
    return Board(
        tuple(rows), tuple(columns), entries, dict(reasons or {}), base, confidence, tuple(notes)
    )


def _score_group(
    group: Group,
    members: Sequence[Measured],
    baseline: int | None,
    *,
    confidence: float,
    interval: Method,
    n_resamples: int,
) -> Iterator[tuple[Column, list[Entry]]]:
    """Each metric of a group with the entries of its members, all from one resampling."""
    names = {name for one in members for name in one.quantities}
    metrics = _ordered(metrics_of(names, group.higher_is_better), group.shown)
    used = sorted({quantity for _, metric in metrics for quantity in metric.quantities})
    items, clusters = _all_items(members)
    found = estimate_all(
        np.stack([_table(one, used, items) for one in members], axis=1),
        [
            Wanted(tuple(map(used.index, metric.quantities)), metric.statistic, metric.proportion)
            for _, metric in metrics
        ],
        resampling=Resampling(clusters, n_resamples=n_resamples, seed=_seed(group)),
        baseline=baseline,
        confidence=confidence,
        method=interval,
    )
    base_sure = baseline is not None and members[baseline].sure is not None
    for (name, metric), (own, gaps) in zip(metrics, found, strict=True):
        better = metric.higher_is_better
        yield (
            Column(group, metric, name in group.shown or not group.shown),
            [
                Entry(
                    Score(
                        one.checkpoint, group.task, metric.name, _told(one, name, estimate), better
                    ),
                    None if one.sure or base_sure else gap,
                )
                for one, estimate, gap in zip(members, own, gaps, strict=True)
            ],
        )


def _rank_group(
    group: Group,
    robin: Ranked,
    base: str | None,
    *,
    confidence: float,
    interval: Method,
    n_resamples: int,
) -> Iterator[tuple[Column, list[Entry]]]:
    """Strengths of the checkpoints of a round robin, in nats and on Elo's scale."""
    names = robin.checkpoints
    own, gaps = ranking(
        robin.wins,
        robin.ties,
        resampling=Resampling(robin.clusters, n_resamples=n_resamples, seed=_seed(group)),
        baseline=names.index(base) if base in names else None,
        confidence=confidence,
        method=interval,
    )
    for name, metric in RANKING_METRICS.items():
        entries = []
        for checkpoint, estimate, gap in zip(names, own, gaps, strict=True):
            if name == "elo":
                estimate, gap = _on_elo(estimate), gap and _on_elo(gap, mean=0)
            entries.append(Entry(Score(checkpoint, group.task, metric.name, estimate, True), gap))
        # The task's own columns are those of comparisons with one opponent.
        yield Column(group, metric, name == "strength" or name in group.shown), entries


def _on_elo(estimate: Estimate, mean: float = 1500) -> Estimate:
    value, low, high = map(float, elo(estimate[:3], mean=mean))
    return estimate._replace(value=value, low=low, high=high)


def _told(one: Measured, name: str, estimate: Estimate) -> Estimate:
    """The estimate, or what may be said of a comparison that ended when it was sure."""
    if one.sure is None:
        return estimate
    if name == "win_rate":
        return one.sure._replace(n=estimate.n, n_missing=estimate.n_missing)
    return estimate._replace(low=np.nan, high=np.nan, method="none: it ended when it was sure")


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
    return int.from_bytes(hashlib.sha256(group.task.encode()).digest()[:4])


def _all_items(members: Sequence[Measured]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """All items that any member has, with their clusters."""
    items = np.concatenate([one.items for one in members])
    clusters = np.concatenate([one.clusters for one in members])
    unique, first = np.unique(items, return_index=True)
    return unique, clusters[first]


def _table(one: Measured, quantities: Sequence[str], items: NDArray[np.int32]) -> Array:
    """A checkpoint's quantities for all items, NaN where it lacks the item."""
    table = np.full((len(items), len(quantities)), np.nan)
    rows = np.searchsorted(items, one.items)
    for column, name in enumerate(quantities):
        if name == "1":
            table[rows, column] = 1.0
        elif name in one.quantities:
            table[rows, column] = one.quantities[name]
    return table
