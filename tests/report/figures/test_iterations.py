"""The figure of iterates: which values stand at which iteration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from prefbench.boards.scored import board_of
from prefbench.boards.shown import show
from prefbench.leaderboard import Gathered, Group, Measured
from prefbench.records import Checkpoint
from prefbench.report.figures.iterations import iterations
from prefbench.report.figures.sheet import Drawn, typeset
from tests.report.figures.looking import is_legible
from tests.report.figures.made_up import HOSTILE

N = 60
QUIZ = Group("quiz", "quiz", shown=("acc",), higher_is_better={"acc": True})


def row(name: str, method: str, reference: str | None = None) -> Checkpoint:
    path = f"/runs/{reference}" if reference else None
    return Checkpoint(name, Path("/runs") / name, "ready", method=method, reference=path)


SFT = row("sft", "sft")
SPIN = tuple(row(f"spin_{n}", "spin", f"spin_{n - 1}" if n > 1 else "sft") for n in (1, 2, 3))


def drawn(right: dict[str, int], rows: tuple[Checkpoint, ...] = (SFT, *SPIN)) -> Drawn:
    items = np.arange(N, dtype=np.int32)
    cells = tuple(
        Measured(name, "quiz", items, items.astype(str), {"acc": (items < n).astype(float)})
        for name, n in right.items()
    )
    data = Gathered(rows, (QUIZ,), cells)
    with typeset():
        found = iterations(data, show(board_of(data, n_resamples=500)))
    for one in found.drawings:
        is_legible(one)
    return found


def lines(axes: Axes) -> list[list[tuple[float, float]]]:
    return [list(map(tuple, line.get_xydata())) for line in axes.lines]


def test_values_stand_at_their_iteration() -> None:
    found = drawn({"sft": 30, "spin_1": 36, "spin_2": 42, "spin_3": 39})
    (one,) = found.drawings
    assert one.name == "iterations"
    (axes,) = one.figure.axes
    (line,) = lines(axes)
    assert line == [(0, 50), (1, 60), (2, 70), (3, 65)]
    assert axes.get_xlabel() == "iteration"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1", "2", "3"]
    assert "SPIN" in {text.get_text() for text in one.figure.texts}


def test_what_was_not_measured_leaves_a_gap() -> None:
    (one,) = drawn({"spin_1": 36, "spin_3": 39}).drawings
    assert lines(one.figure.axes[0]) == [[(1, 60), (3, 65)]]
    assert drawn({"sft": 30, "spin_3": 39}) == Drawn()  # one iterate is no line
    assert drawn({"sft": 30, "dpo": 20}, (SFT, row("dpo", "dpo", "sft"))) == Drawn()


def test_chains_that_part_are_told_apart() -> None:
    other = row("spin_2b", "spin", "spin_1")
    right = {"sft": 30, "spin_1": 36, "spin_2": 42, "spin_3": 39, "spin_2b": 48}
    (one,) = drawn(right, (SFT, *SPIN, other)).drawings
    assert sorted(map(len, lines(one.figure.axes[0]))) == [3, 4]
    named = {text.get_text() for text in one.figure.texts}
    assert {"SPIN (to spin_3)", "SPIN (to spin_2b)"} <= named


@pytest.mark.filterwarnings("error")
def test_hostile_names_do_nothing() -> None:
    first = row(HOSTILE, HOSTILE, "sft")
    second = Checkpoint("b", Path("/b"), "ready", method=HOSTILE, reference=str(first.path))
    (one,) = drawn({"sft": 30, HOSTILE: 36, "b": 39}, (SFT, first, second)).drawings
    assert not any(text.get_parse_math() for text in one.figure.texts)
    assert not any("\x1b" in text.get_text() for text in one.figure.texts)
