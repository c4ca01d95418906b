"""Losses and their slopes over the probabilities of a chosen and a rejected response."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from prefbench.demo.toys.curves import BEFORE, Surface
from prefbench.demo.toys.findings import PROBABILITIES, Toys
from prefbench.report.figures.keys import draw_keys, height_of, keys_of, stroke
from prefbench.report.figures.palette import colour_of
from prefbench.report.figures.sheet import (
    FAINT,
    SPREAD,
    Drawing,
    blank,
    even_ticks,
    number,
    panel,
)
from prefbench.report.figures.wording import SIZE
from prefbench.stats.bootstrap import Array

_LEFT, _RIGHT, _TITLE, _BOTTOM = 0.46, 0.1, 0.22, 0.38
_HEIGHT = 1.9
_HELD = len(PROBABILITIES) // 2
"""Where one probability is held while the other changes: one half."""
_LEVELS = (0.25, 0.5, 1, 2)
_SPARSE = slice(8, None, 16)

Side = Callable[[Surface], Array]


def losses(toys: Toys) -> Drawing:
    """Each loss along either probability, the other held at one half."""
    figure = _two_panels(
        toys.surfaces,
        (lambda one: one.values[_HELD, :], lambda one: one.values[:, _HELD]),
        ((-0.1, 4.0), (-0.1, 4.0)),
        ("loss", "loss"),
    )
    caption = (
        "Losses as a function of the probability of the chosen response (left) and of the rejected "
        "one (right), the other being one half. " + _settings()
    )
    return Drawing("toy_losses", figure, caption)


def gradients(toys: Toys) -> Drawing:
    """The slope of each loss along either probability, the other held at one half."""
    figure = _two_panels(
        toys.surfaces,
        (lambda one: one.chosen_slopes[_HELD, :], lambda one: one.rejected_slopes[:, _HELD]),
        ((-8.0, 2.0), (-2.0, 8.0)),
        ("d loss / d P(chosen)", "d loss / d P(rejected)"),
    )
    caption = (
        "Slopes of the losses in the probability of the chosen response (left) and of the rejected "
        "one (right), by autograd, the other being one half; steeper ones go on beyond the frame. "
        "Unlikelihood pushes ever harder at a rejected response that is probable, ExMATE equally "
        "everywhere, DPO hardest where it is improbable already. In the chosen one, MLE, "
        "unlikelihood and ExMATE are the same. " + _settings()
    )
    return Drawing("toy_gradients", figure, caption)


def landscapes(toys: Toys) -> Drawing:
    """A panel for each loss: lines of equal loss, and where descent goes."""
    across = 3
    left, right, title, below, height = 0.42, 0.12, 0.24, 0.36, 1.75
    wide, tall = SPREAD / across, title + height + below
    figure = blank(SPREAD, tall * -(-len(toys.surfaces) // across))
    for i, one in enumerate(toys.surfaces):
        axes = panel(
            figure,
            wide * (i % across) + left,
            tall * (i // across) + title,
            wide - left - right,
            height,
        )
        _landscape(axes, one)
        if i % across == 0:
            axes.set_ylabel("P(rejected)")
    caption = (
        "Lines of equal loss over the probabilities of the chosen and the rejected response; "
        "arrows point where the loss falls fastest, and are all of one length. DPO's and IPO's "
        "losses are the same along every line through the corner: they see only the ratio of the "
        "two. " + _settings()
    )
    return Drawing("toy_landscapes", figure, caption)


def _two_panels(
    surfaces: Sequence[Surface],
    sides: tuple[Side, Side],
    limits: tuple[tuple[float, float], tuple[float, float]],
    labels: tuple[str, str],
) -> Figure:
    keys = keys_of([(one.loss.title, one.loss.method) for one in surfaces], SPREAD)
    top = height_of(keys)
    figure = blank(SPREAD, top + _TITLE + _HEIGHT + _BOTTOM)
    draw_keys(figure, keys)
    names = ("chosen", "rejected")
    wide = SPREAD / 2
    for at, (side, limit) in enumerate(zip(sides, limits, strict=True)):
        axes = panel(figure, wide * at + _LEFT, top + _TITLE, wide - _LEFT - _RIGHT, _HEIGHT)
        axes.set_title(f"P({names[1 - at]}) = {BEFORE:g}", loc="left", pad=4)
        axes.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
        for i, one in enumerate(surfaces):
            # Marks set off against each other: some lines lie on one another.
            axes.plot(PROBABILITIES, side(one), markevery=(2 * i, 18), **stroke(one.loss.method))
        axes.set_xlim(0, 1)
        axes.set_ylim(*limit)
        even_ticks(axes.xaxis)
        even_ticks(axes.yaxis)
        axes.set_xlabel(f"P({names[at]})")
        axes.set_ylabel(labels[at])
    return figure


def _landscape(axes: Axes, one: Surface) -> None:
    axes.set_title(one.loss.title, loc="left", pad=4)
    lines = axes.contour(
        one.chosen, one.rejected, one.values,
        levels=_LEVELS, colors=colour_of(one.loss.method), linewidths=0.8,
    )  # fmt: skip
    for text in axes.clabel(lines, fontsize=SIZE, fmt=number, inline_spacing=2):
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # hides arrows
    p, q, dp, dq = (
        grid[_SPARSE, _SPARSE]
        for grid in (one.chosen, one.rejected, one.chosen_slopes, one.rejected_slopes)
    )
    length = np.hypot(dp, dq)
    axes.quiver(
        p, q, -dp / length, -dq / length,
        color=FAINT, pivot="mid", scale=16, width=0.006, zorder=0,
    )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axis.set_major_formatter(lambda value, _: number(value))
    axes.set_xlabel("P(chosen)")


def _settings() -> str:
    return (
        "Responses are one token long, so that forms by token, mean and sequence are the same; the "
        f"reference gives both {BEFORE:g}; constants are as in the titles. Reconstructed from the "
        "captions of Tuan & Wang 2024, arxiv.org/abs/2408.16751: the paper's own formulas and "
        "constants could not be verified, and DPOP and IPO are added."
    )
