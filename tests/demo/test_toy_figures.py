"""Figures of the toys: what is drawn is what came out, legible, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefbench.demo.toys.actions import ipo_optimum
from prefbench.demo.toys.entangled import turning_point
from prefbench.demo.toys.findings import PROBABILITIES, Toys, work_out
from prefbench.errors import InputError
from prefbench.report.figures.palette import colour_of
from prefbench.report.figures.sheet import Drawing
from prefbench.report.figures.toys.draw import draw_toys, figures_of_toys
from tests.report.figures.looking import is_legible, titled

NAMES = [
    "toy_three_actions",
    "toy_shared_token",
    "toy_losses",
    "toy_gradients",
    "toy_landscapes",
    "toy_one_differing_token",
]


@pytest.fixture(scope="module")
def toys() -> Toys:
    return work_out(n_steps=300, n_seeds=2)


@pytest.fixture(scope="module")
def drawings(toys: Toys) -> list[Drawing]:
    return figures_of_toys(toys)


def named(drawings: list[Drawing], name: str) -> Figure:
    return next(one.figure for one in drawings if one.name == name)


def lines(axes: Axes, colour: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """What is drawn in a colour, points and strokes alike."""
    return [
        (np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float))
        for line in axes.lines
        if line.get_color() == colour
    ]


# --- what is drawn


def test_actions_go_between_uniform_and_the_closed_form(
    toys: Toys, drawings: list[Drawing]
) -> None:
    figure = named(drawings, "toy_three_actions")
    for learning in toys.ipo:
        axes = titled(figure, f"IPO, τ = {learning.tau:g}")
        level = [y[0] for x, y in lines(axes, "#6b6b6b") if len(set(y)) == 1]
        assert level == pytest.approx(list(ipo_optimum(learning.tau)))
        drawn = lines(axes, colour_of("ipo"))
        for action, (steps, values) in enumerate(drawn):
            assert steps[0] == 1
            assert steps[-1] == 300
            assert values == pytest.approx(learning.probabilities[1:, :, action].mean(axis=1))
            assert values[0] == pytest.approx(1 / 3, abs=0.02)


def test_slopes_are_drawn_on_their_lines(toys: Toys, drawings: list[Drawing]) -> None:
    (axes,) = named(drawings, "toy_shared_token").axes
    for one in toys.slopes:
        known, found = lines(axes, colour_of(one.law.method))
        assert len(found[0]) >= 5
        assert found[1] == pytest.approx(np.interp(*found[:1], *known), abs=1e-3)
    rings = [line.get_xdata()[0] for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert sorted(rings) == [0.5, 1, 1]


def test_losses_are_cut_through_the_middle(drawings: list[Drawing]) -> None:
    left, right = named(drawings, "toy_losses").axes
    half = PROBABILITIES[len(PROBABILITIES) // 2]
    assert half == pytest.approx(0.5)
    p, loss = lines(left, colour_of("exmate"))[0]
    assert loss == pytest.approx(-np.log(p) + 0.5)
    q, loss = lines(right, colour_of("exmate"))[0]
    assert loss == pytest.approx(np.log(2) + q)
    left, right = named(drawings, "toy_gradients").axes
    p, slope = lines(left, colour_of("dpo"))[0]
    assert slope == pytest.approx(-0.5 / (p * (p + 0.5)))
    q, slope = lines(right, colour_of("unlikelihood"))[0]
    assert slope == pytest.approx(1 / (1 - q))


def test_dots_are_steps_that_were_taken(toys: Toys, drawings: list[Drawing]) -> None:
    _, falling, rising = named(drawings, "toy_one_differing_token").axes
    for axes, cases in ((falling, toys.entangled[0]), (rising, toys.entangled[1])):
        _, chosen, _, rejected = (y for _, y in lines(axes, colour_of("dpo")))
        assert chosen == pytest.approx([case.actual.chosen for case in cases])
        assert rejected == pytest.approx([case.actual.rejected for case in cases])
        (grey,) = axes.patches
        assert grey.get_x() == pytest.approx(turning_point(cases[0].confidence))
        alike = [chosen[i] * rejected[i] > 0 for i in range(len(cases))]
        assert alike == [case.n_shared > grey.get_x() for case in cases]


# --- how it looks


def test_words_stand_on_the_sheet_and_apart(drawings: list[Drawing]) -> None:
    assert [one.name for one in drawings] == NAMES
    for one in drawings:
        is_legible(one)


def test_captions_say_what_is_ours(drawings: list[Drawing]) -> None:
    for one in drawings:
        assert "ours" in one.caption or "could not be verified" in one.caption
        assert "arxiv.org/abs/" in one.caption
        assert "  " not in one.caption


# --- the files


def test_files_are_the_same_every_time(toys: Toys, tmp_path: Path) -> None:
    kinds = ("pdf", "svg", "png")
    once, again = (draw_toys(tmp_path / at, formats=kinds, toys=toys) for at in ("a", "b"))
    expected = [f"{name}.{kind}" for name in NAMES for kind in kinds]
    assert [path.name for path in once] == [*expected, "captions.txt"]
    for path, other in zip(once, again, strict=True):
        assert path.read_bytes() == other.read_bytes(), path.name
    captions = once[-1].read_text(encoding="utf-8")
    assert [line.split(":")[0] for line in captions.splitlines() if line] == NAMES


def test_what_differs_is_told(toys: Toys, tmp_path: Path) -> None:
    """After 300 steps DPO is not certain yet, and IPO at τ = 0.1 not at its optimum."""
    told: list[str] = []
    draw_toys(tmp_path, formats=("svg",), toys=toys, tell=told.append)
    assert any("DPO, β = 1: nothing but a" in line and "known 0" in line for line in told)
    assert not any("shared" in line for line in told)


def test_an_unknown_format_is_refused_before_anything_is_worked_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no figure format is named 'gif'; there are: pdf"):
        draw_toys(tmp_path / "none", formats=("gif",))
    assert not (tmp_path / "none").exists()
