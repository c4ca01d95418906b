"""Which checkpoints a figure shows, under which names, and which of them are one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prefbench.leaderboard import Board
from prefbench.provenance import run_folder
from prefbench.records import METHODS, Checkpoint


@dataclass(frozen=True)
class Run:
    """The checkpoints that one training wrote, by step; the final one last."""

    method: str
    folder: str
    rows: tuple[Checkpoint, ...]

    @property
    def steps(self) -> tuple[Checkpoint, ...]:
        """One checkpoint for each step that is known: of equals the final one."""
        return tuple({row.step: row for row in self.rows if row.step is not None}.values())


def method_of(row: Checkpoint) -> str:
    """What gives a row its look: its method, else its name."""
    return row.method or row.name


def runs_of(board: Board) -> list[Run]:
    """The runs of all rows that were measured, in the table's order."""
    measured = {name for name, _ in board.entries}
    runs: dict[tuple[str, int | None, str], list[Checkpoint]] = {}
    for row in board.rows:
        if row.name in measured:
            folder = run_folder(row.path) or row.path
            runs.setdefault((method_of(row), row.seed, str(folder)), []).append(row)
    return [
        Run(method, folder, tuple(sorted(rows, key=_place)))
        for (method, _, folder), rows in runs.items()
    ]


def finals(board: Board) -> list[Checkpoint]:
    """The last checkpoint of each run, and the baseline, in the table's order."""
    last = {run.rows[-1].name for run in runs_of(board)} | {board.baseline}
    measured = {name for name, _ in board.entries}
    return [row for row in board.rows if row.name in last and row.name in measured]


def labels_of(rows: Sequence[Checkpoint], board: Board) -> dict[str, str]:
    """What each row is called in a figure: its method, with its name where that is not enough."""
    from prefbench.report.figures.wording import names_told_apart  # fonts, which the page needs not

    titles = [METHODS.get(row.method or "", row.name) for row in rows]
    full = [
        f"{title} ({row.name})" if titles.count(title) > 1 and title != row.name else title
        for row, title in zip(rows, titles, strict=True)
    ]
    told = names_told_apart(full)
    return {
        row.name: f"{name} (baseline)" if row.name == board.baseline else name
        for row, name in zip(rows, told, strict=True)
    }


def left_out(board: Board) -> str:
    """What a caption says of checkpoints that are not shown."""
    measured = len({name for name, _ in board.entries})
    n = measured - len(finals(board))
    return f" Of runs with several checkpoints the last is shown ({n} are not)." if n > 0 else ""


def _place(row: Checkpoint) -> tuple[float, bool, str]:
    step = row.step if row.step is not None else math.inf
    return step, run_folder(row.path) is None, row.name
