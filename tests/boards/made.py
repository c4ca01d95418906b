"""Boards of what a test makes up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefbench.boards.scored import board_of
from prefbench.leaderboard import Board, Gathered, Group, Measured, Ranked
from prefbench.records import Checkpoint


def build_board(
    checkpoints: Sequence[Checkpoint],
    groups: Sequence[Group],
    measured: Sequence[Measured],
    *,
    ranked: Sequence[Ranked] = (),
    repeated: Sequence[Measured] = (),
    reasons: Mapping[tuple[str, str], str] | None = None,
    notes: Sequence[str] = (),
    **settings: Any,
) -> Board:
    """The board of these rows."""
    gathered = Gathered(
        tuple(checkpoints),
        tuple(groups),
        tuple(measured),
        tuple(ranked),
        tuple(repeated),
        reasons or {},
        tuple(notes),
    )
    return board_of(gathered, **settings)
