"""Metrics over a training's steps, or over iterates: where it gets worse, and which to take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from prefbench.boards.aligned import align, metrics_in
from prefbench.boards.scored import board_of
from prefbench.errors import InputError
from prefbench.leaderboard import Board, Column, Entry, Gathered
from prefbench.metrics import Metric
from prefbench.records import Checkpoint
from prefbench.stats.corrections import holm
from prefbench.stats.estimates import Estimate
from prefbench.stats.selection import Choice, choose
from prefbench.steps.changes import Change, changes_of
from prefbench.steps.lineage import Run, reference_of, run_named, source_of


@dataclass(frozen=True)
class Selected:
    """The best step by one metric, chosen among those that have it."""

    column: Column
    steps: tuple[str, ...]
    """Names of the rows that were chosen from, in the order of the steps."""
    choice: Choice

    @property
    def best(self) -> str:
        return self.steps[self.choice.best]

    @property
    def alike(self) -> tuple[str, ...]:
        """Steps that cannot be told apart from the best."""
        return tuple(self.steps[member] for member in self.choice.alike)

    @property
    def earliest(self) -> str:
        """The first of them: as good, for all that is known, with the least training."""
        return self.alike[0]


@dataclass(frozen=True)
class Trajectory:
    """What was measured of one run step by step, or of a chain iterate by iterate.

    `adjusted` holds p-values of the differences to the reference, corrected by Holm over the steps
    of a column, by row and column; `changes` those of iterates to the one before.
    """

    run: str
    steps: tuple[Checkpoint, ...]
    reference: str | None
    board: Board
    """Of the steps and the reference."""
    columns: tuple[Column, ...]
    adjusted: Mapping[tuple[str, tuple[str, str]], float]
    selected: Selected | None
    notes: tuple[str, ...] = ()
    iterations: tuple[int, ...] = ()
    """Of a chain, which iterate each of `steps` is, from 1."""
    start: str | None = None
    """Of a chain, the row that the first iterate was tuned from, if it was measured."""
    changes: Mapping[tuple[str, tuple[str, str]], Change] = field(default_factory=dict)

    @property
    def unit(self) -> Literal["step", "iteration"]:
        """What one of `steps` is called."""
        return "iteration" if self.iterations else "step"

    def iteration(self, step: Checkpoint) -> int | None:
        """Which iterate of a chain it is."""
        return self.iterations[self.steps.index(step)] if self.iterations else None

    def entry(self, step: Checkpoint, column: Column) -> Entry | None:
        return self.board.entry(step, column)

    def verdict(self, step: Checkpoint, column: Column) -> str:
        """`better`, `worse` or `different` than the reference; `noise`; empty if it may be chance.

        `noise` is a difference no larger than one checkpoint's, measured twice.
        """
        entry = self.entry(step, column)
        p = self.adjusted.get((step.name, column.key), math.nan)
        return self._verdict(entry.difference if entry else None, p, column)

    def verdict_of_change(self, step: Checkpoint, column: Column) -> str:
        """The same of an iterate against the one before."""
        change = self.changes.get((step.name, column.key))
        return self._verdict(change.difference, change.p_corrected, column) if change else ""

    def _verdict(self, difference: Estimate | None, p: float, column: Column) -> str:
        if difference is None or not p < 1 - self.board.confidence:
            return ""
        if abs(difference.value) <= self.board.noise.get(column.key, -1):
            return "noise"
        better = column.metric.higher_is_better
        if better is None:
            return "different"
        return "better" if (difference.value > 0) == better else "worse"

    def first_worse(self, column: Column) -> Checkpoint | None:
        """The first step that is significantly worse than the reference."""
        return next((s for s in self.steps if self.verdict(s, column) == "worse"), None)

    def stays_worse(self, column: Column) -> bool:
        """Whether all measured steps after the first that is worse are worse, too."""
        first = self.first_worse(column)
        if first is None:
            return False
        later = self.steps[self.steps.index(first) :]
        return all(self.verdict(s, column) == "worse" for s in later if self.entry(s, column))


def trajectory(
    gathered: Gathered,
    run: str,
    *,
    by: str | None = None,
    reference: str | None = None,
    everything: bool = False,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
) -> Trajectory:
    """The steps of a run, or the iterates of a chain, beside their reference, and the best of them.

    Args:
        gathered: what was measured.
        run: the name of a run's folder, of one of its rows, or their beginning; of iterates also
            their method.
        by: what to choose the best step by, `TASK/METRIC`; None takes the first column shown that
            has a direction.
        reference: a row or method; None takes the checkpoint that the run, or the first iterate,
            was tuned from, else the one SFT.
        everything: all metrics, not those that the tasks show.
        confidence: of intervals, and of all that is corrected.
        n_resamples: bootstrap resamples.

    Raises:
        InputError: no run or several have that name, or what was asked for is not there.
    """
    found = run_named(gathered, run)
    steps, notes = found.steps, list(found.notes)
    compared, said = reference_of(found, gathered, reference)
    notes += said
    start = source_of(found, gathered) if found.iterations else None
    rows = {row.name for row in steps} | ({compared} if compared else set())
    part = dataclasses.replace(
        gathered,
        # All that was measured stays, as the noise is known from any row.
        checkpoints=tuple(row for row in gathered.checkpoints if row.name in rows),
    )
    board = board_of(
        part,
        # Without a reference any row will do: what is compared with it is not shown.
        baseline=compared or steps[0].name,
        confidence=confidence,
        n_resamples=n_resamples,
        hidden=everything,
    )
    if compared is None:
        board = _without_differences(board)
    columns = tuple(
        column
        for column in board.columns
        if (column.shown or everything) and any(board.entry(row, column) for row in steps)
    )
    if not columns:
        raise InputError(f"{run}: none of its {len(steps)} {found.unit}s was measured")
    selected, said = _selected(part, found, columns, by, confidence, n_resamples)
    return Trajectory(
        run,
        steps,
        compared,
        board,
        columns,
        _adjusted(board, steps, columns),
        selected,
        (*notes, *said, *gathered.notes),
        found.iterations,
        start,
        changes_of(
            gathered, _in_order(found, start), columns, confidence=confidence,
            n_resamples=n_resamples,
        ),
    )  # fmt: skip


def _in_order(run: Run, start: str | None) -> list[str | None]:
    """The rows of a chain by iteration, from 0; None where an iterate cannot be measured."""
    names = {number: row.name for number, row in zip(run.iterations, run.steps, strict=False)}
    return [start, *(names.get(number) for number in range(1, max(names, default=0) + 1))]


def _without_differences(board: Board) -> Board:
    entries = {
        key: dataclasses.replace(entry, difference=None) for key, entry in board.entries.items()
    }
    return dataclasses.replace(board, entries=entries, baseline=None)


def _adjusted(
    board: Board, steps: Sequence[Checkpoint], columns: Sequence[Column]
) -> dict[tuple[str, tuple[str, str]], float]:
    """Corrected p-values; the family is a column's steps."""
    found = {}
    for column in columns:
        known = [
            (step.name, entry.difference.p)
            for step in steps
            if (entry := board.entry(step, column)) and entry.difference
        ]
        for (name, _), p in zip(known, holm([p for _, p in known]), strict=True):
            found[name, column.key] = float(p)
    return found


def _selected(
    gathered: Gathered,
    run: Run,
    columns: Sequence[Column],
    by: str | None,
    confidence: float,
    n_resamples: int,
) -> tuple[Selected | None, list[str]]:
    """The best step by a metric; None with the reason where there is none."""
    robins = {robin.group for robin in gathered.ranked}
    if by is None:
        fit = (c for c in columns if _can_choose(c.metric) and c.group.name not in robins)
        column = next(fit, None)
        if column is None:
            return None, [f"no best {run.unit}: no metric that is shown has a better direction"]
    else:
        column = _named(gathered, by)
        if column.group.name in robins:
            raise InputError(f"{by}: strengths hang on who takes part; name another metric")
        if not _can_choose(column.metric):
            raise InputError(f"{by}: neither direction is better; name another metric")
    sure = {one.checkpoint for one in gathered.measured if one.sure}
    names = [row.name for row in run.steps]
    aligned = align(
        gathered,
        column.group,
        column.metric,
        [name for name in names if name not in sure],
        n_resamples=n_resamples,
    )
    title = f"{column.group.name}/{column.metric.name}"
    there = list(np.flatnonzero(aligned.there.any(axis=0))) if aligned else []
    if aligned is None or not there:
        return None, [f"no best {run.unit} by {title}: no {run.unit} has it"]
    kept = tuple(aligned.checkpoints[place] for place in there)
    lacking = [name for name in names if name not in kept]
    notes = [f"not chosen from, as it lacks {title}: {name}" for name in lacking]
    try:
        choice = choose(
            aligned.columns[:, there],
            column.metric.statistic,
            resampling=aligned.resampling,
            higher_is_better=bool(column.metric.higher_is_better),
            confidence=confidence,
            proportion=column.metric.proportion,
        )
    except InputError as error:
        return None, [*notes, f"no best {run.unit} by {title}: {error}"]
    return Selected(column, kept, choice), notes


def _can_choose(metric: Metric) -> bool:
    return metric.higher_is_better is not None


def _named(gathered: Gathered, by: str) -> Column:
    """The column of `TASK/METRIC`.

    Raises:
        InputError: there is none, or several.
    """
    task, _, wanted = by.rpartition("/")
    found = [
        Column(group, metric, shown=name in group.shown)
        for group in gathered.groups
        if task in (group.task, group.name)
        for name, metric in metrics_in(gathered, group).items()
        if wanted in (name, metric.name)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        there = "; ".join(f"{column.group.name}/{wanted}" for column in found)
        raise InputError(f"{by!r} is measured in several ways; give one of: {there}")
    groups = [group for group in gathered.groups if task in (group.task, group.name)]
    if groups:
        there = ", ".join(metrics_in(gathered, groups[0]))
        raise InputError(f"{by!r}: {task} has no such metric; there are: {there}")
    there = ", ".join(group.name for group in gathered.groups) or "none"
    raise InputError(f"{by!r}: give TASK/METRIC; tasks measured here: {there}")
