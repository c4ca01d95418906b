"""A table of one training run with several checkpoints, and of others with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prefbench.leaderboard import Board, Group, Measured
from prefbench.records import Checkpoint
from prefbench.trackers.curves import Curve, curves_of
from tests.boards.made import build_board

EVIL = "evil\x1b[31m/../\u202e<script>"


def row(path: str, step: int | None, fingerprint: str = "", name: str = "") -> Checkpoint:
    return Checkpoint(
        name or path, Path("runs") / path, "ready", method="dpo", step=step, seed=3,
        fingerprint=fingerprint or f"bytes of {path}",
    )  # fmt: skip


ROWS = (
    row("dpo/checkpoint-200", 200),
    row("dpo/checkpoint-100", 100),
    row("dpo", 300),
    row("ipo", 50),
    row(EVIL, 7),
)


def board(rows: Sequence[Checkpoint] = ROWS, *, tasks: Sequence[str] = ("quiz", "puzzle")) -> Board:
    """Exact matches of 40 items, more of them the later the step."""
    items = np.arange(40, dtype=np.int32)
    groups = [
        Group(task, task, shown=("exact_match,strict",), higher_is_better={"exact_match": True})
        for task in tasks
    ]
    measured = [
        Measured(
            one.name,
            task,
            items,
            items.astype(str),
            {"exact_match,strict": (items < 5 + (one.step or 0) // 10).astype(float)},
        )
        for task in tasks
        for one in rows
    ]
    return build_board(rows, groups, measured, n_resamples=200)


def curves(**facts: object) -> list[Curve]:
    """By name."""
    found = curves_of(board(**facts)).curves  # type: ignore[arg-type]
    return sorted(found, key=lambda curve: curve.name)


def expected(curve: Curve) -> dict[str, list[tuple[int, float]]]:
    """The points of each score of a curve, as a tracker must give them back."""
    found: dict[str, list[tuple[int, float]]] = {}
    for point in curve.points:
        for name, value in point.scores.items():
            found.setdefault(name, []).append((point.step, value))
    return found
