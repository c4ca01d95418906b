"""Win rates with intervals and a line at one half, raw and at equal length side by side."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Board, Column, Gathered
from prefbench.records import Checkpoint
from prefbench.report.figures.dots import Dots, chart, numbered, span_of
from prefbench.report.figures.rows import finals, labels_of, left_out
from prefbench.report.figures.sheet import COLUMN, Drawn, level
from prefbench.report.figures.wording import said
from prefbench.stats.estimates import Estimate

_TITLES = {"win_rate.v1": "win rate ↑", "lc_win_rate.v1": "at equal length ↑"}


def win_rates(gathered: Gathered, shown: Shown) -> Drawn:
    """A line of panels for each opponent and judge."""
    board = shown.board
    by_group: dict[str, list[Column]] = {}
    for column in board.columns:
        if column.metric.name in _TITLES:
            by_group.setdefault(column.group.name, []).append(column)
    rows = _with_values(board, [column for columns in by_group.values() for column in columns])
    if not rows:
        return Drawn(notices=("no checkpoint has a win rate: no figure of them",))
    lines = [
        [_panel(board, rows, column, first=i == 0) for i, column in enumerate(columns)]
        for columns in by_group.values()
    ]
    # One scale, so that what length does to a win rate can be seen.
    span = span_of([one for line in lines for one in line])
    lines = [[dataclasses.replace(one, span=span) for one in line] for line in lines]
    names = labels_of(rows, board)
    figures = chart(rows, [names[row.name] for row in rows], lines, width=COLUMN)
    return Drawn(numbered("win_rates", figures, _caption(board)))


def _with_values(board: Board, columns: Sequence[Column]) -> list[Checkpoint]:
    """Rows with a win rate; not those that were only compared with themselves."""
    return [
        row
        for row in finals(board)
        if any(
            math.isfinite(entry.score.estimate.value)
            and not _is_against_itself(entry.score.estimate)
            for column in columns
            if (entry := board.entry(row, column))
        )
    ]


def _is_against_itself(estimate: Estimate) -> bool:
    return estimate[:3] == (0.5, 0.5, 0.5)


def _panel(board: Board, rows: Sequence[Checkpoint], column: Column, *, first: bool) -> Dots:
    group = column.group
    entries = [board.entry(row, column) for row in rows]
    about = (
        said(group.task),
        said(group.conditions),
        f"vs {said(group.opponent)}, {said(group.judge)}" if group.opponent else "",
    )
    return Dots(
        title=(*(about if first else ()), _TITLES[column.metric.name]),
        unit="%",
        values=tuple(entry.score.estimate if entry else None for entry in entries),
        filled=(True,) * len(rows),
        line=50.0,
        scale=100.0,
    )


def _caption(board: Board) -> str:
    return (
        f"Win rates with {level(board.confidence)} bootstrap intervals over prompts, as judged and "
        "at equal length; the line is at 50%. A question mark stands where verdicts allow no "
        "interval. Intervals are not corrected for several comparisons." + left_out(board)
    )
