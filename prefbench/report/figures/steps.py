"""Every metric against the training step: a line for each run, the baseline across."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Board, Column, Gathered
from prefbench.records import METHODS
from prefbench.report.figures.dots import numbered, pages
from prefbench.report.figures.keys import draw_keys, height_of, keys_of, stroke
from prefbench.report.figures.palette import colour_of
from prefbench.report.figures.rows import Run, runs_of
from prefbench.report.figures.sheet import (
    COLUMN,
    FAINT,
    SPREAD,
    TALLEST,
    Drawn,
    blank,
    even_ticks,
    level,
    number,
    panel,
    ticks_of_log,
)
from prefbench.report.figures.wording import lines_of, names_told_apart, said
from prefbench.stats.estimates import Estimate

_LEFT, _RIGHT, _BELOW, _TITLE = 0.4, 0.08, 0.3, 0.125
_HEIGHT = 1.15


def trajectories(gathered: Gathered, shown: Shown) -> Drawn:
    """A panel for each column that is shown, where a run has two steps or more."""
    board = shown.board
    runs = [run for run in runs_of(board) if len(run.steps) >= 2]
    columns = [c for c in shown.columns if any(len(_line(board, run, c)) >= 2 for run in runs)]
    if not columns:
        return Drawn(notices=("no run has two steps that were measured: no figure of training",))
    runs = [run for run in runs if any(len(_line(board, run, c)) >= 2 for c in columns)]
    names = _names(runs)
    across = min(len(columns), 3)
    width = COLUMN if across == 1 else SPREAD
    wide = width / across
    keys = keys_of(_entries(board, runs, names), width)
    top = height_of(keys)
    titles = [_title(column, wide - _LEFT - _RIGHT) for column in columns]
    lines = [
        range(first, min(first + across, len(columns))) for first in range(0, len(columns), across)
    ]
    heads = [max(len(titles[i]) for i in line) * _TITLE + 0.08 for line in lines]
    figures = []
    for page in pages([head + _HEIGHT + _BELOW for head in heads], TALLEST - top):
        figure = blank(width, top + sum(heads[at] + _HEIGHT + _BELOW for at in page))
        draw_keys(figure, keys)
        below = top
        for at in page:
            for place, i in enumerate(lines[at]):
                axes = panel(
                    figure, wide * place + _LEFT, below + heads[at], wide - _LEFT - _RIGHT, _HEIGHT
                )
                axes.set_title("\n".join(titles[i]), loc="left", pad=3, linespacing=1.15)
                _draw(axes, board, runs, columns[i])
            below += heads[at] + _HEIGHT + _BELOW
        figures.append(figure)
    return Drawn(numbered("training_steps", figures, _caption(board)))


def _line(board: Board, run: Run, column: Column) -> list[tuple[int, Estimate]]:
    """The run's values by step, those that there are."""
    found = []
    for row in run.steps:
        entry = board.entry(row, column)
        if entry and row.step is not None and math.isfinite(entry.score.estimate.value):
            found.append((row.step, entry.score.estimate))
    return found


def _names(runs: Sequence[Run]) -> list[str]:
    titles = [METHODS.get(run.method, run.method) for run in runs]
    return names_told_apart(
        [
            f"{title} ({Path(run.folder).name})" if titles.count(title) > 1 else title
            for run, title in zip(runs, titles, strict=True)
        ]
    )


def _title(column: Column, width: float) -> list[str]:
    group = column.group
    against = f"vs {said(group.opponent)}, {said(group.judge)}" if group.opponent else ""
    unit = " (%)" if column.metric.unit == "percent" else ""
    parts = (said(group.task), said(group.conditions), against, said(column.metric.title) + unit)
    return [line for part in parts if part for line in lines_of(part, width)]


def _draw(axes: Axes, board: Board, runs: Sequence[Run], column: Column) -> None:
    scale = 100.0 if column.metric.unit == "percent" else 1.0
    _draw_baseline(axes, board, column, scale)
    for run in runs:
        line = _line(board, run, column)
        colour = colour_of(run.method)
        steps = [step for step, _ in line]
        values = [scale * estimate.value for _, estimate in line]
        bounded = [(step, e) for step, e in line if math.isfinite(e.low) and math.isfinite(e.high)]
        axes.fill_between(
            [step for step, _ in bounded],
            [scale * e.low for _, e in bounded],
            [scale * e.high for _, e in bounded],
            color=colour, alpha=0.13, linewidth=0,
        )  # fmt: skip
        axes.plot(steps, values, **stroke(run.method))
    axes.set_xlabel("training step", labelpad=1)
    even_ticks(axes.xaxis, 4, whole=True)
    axes.xaxis.set_major_formatter(lambda value, _: _thousands(value))
    if column.metric.unit == "perplexity" and axes.get_ylim()[0] > 0:
        low, high = axes.get_ylim()
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        ticks = ticks_of_log(low, high)
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_major_formatter(FixedFormatter([number(tick) for tick in ticks]))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        even_ticks(axes.yaxis, 4)


def _draw_baseline(axes: Axes, board: Board, column: Column, scale: float) -> None:
    row = next((row for row in board.rows if row.name == board.baseline), None)
    entry = board.entry(row, column) if row else None
    if entry is None or not math.isfinite(entry.score.estimate.value):
        return
    value, low, high = (scale * number for number in entry.score.estimate[:3])
    if math.isfinite(low) and math.isfinite(high):
        axes.axhspan(low, high, color=FAINT, alpha=0.15, linewidth=0, zorder=0)
    axes.axhline(value, color=FAINT, linewidth=1.0, zorder=1)


def _thousands(value: float) -> str:
    return f"{number(value / 1000)}k" if abs(value) >= 10_000 else number(round(value, 6))


def _entries(
    board: Board, runs: Sequence[Run], names: Sequence[str]
) -> list[tuple[str, str | None]]:
    """Names and methods of the runs, the baseline without a method first."""
    entries: list[tuple[str, str | None]] = [
        (name, run.method) for name, run in zip(names, runs, strict=True)
    ]
    row = next((row for row in board.rows if row.name == board.baseline), None)
    if row:
        title = METHODS.get(row.method or "", row.name)
        (label,) = names_told_apart([title])
        entries.insert(0, (f"{label} (baseline)", None))
    return entries


def _caption(board: Board) -> str:
    text = (
        f"Values against the training step, with {level(board.confidence)} bootstrap bands where "
        "intervals are known; each checkpoint's is its own, not one for the whole line."
    )
    if board.baseline:
        text += f" The grey line and its band are {said(board.baseline)}."
    return text
