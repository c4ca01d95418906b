"""The leaderboard: checkpoints × metrics, every value with its interval, differences paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefbench.errors import InputError
from prefbench.metrics import Metric
from prefbench.records import METHODS, Checkpoint, Score
from prefbench.stats.bootstrap import Array
from prefbench.stats.estimates import Estimate
from prefbench.stats.pairs import Pairs


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
    repeated: tuple[Measured, ...] = ()
    """What was measured a second time; says how much the engine varies."""
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
