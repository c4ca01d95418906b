"""Three actions: how their probabilities go under IPO and under DPO."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from prefbench.demo.toys.actions import ACTIONS, BATCH, LEARNING_RATE, Learning, ipo_optimum
from prefbench.demo.toys.findings import Toys
from prefbench.report.figures.palette import colour_of
from prefbench.report.figures.sheet import FAINT, SPREAD, Drawing, blank, number, panel
from prefbench.stats.bootstrap import Array

_LEFT, _RIGHT, _TOP, _BOTTOM = 0.42, 0.24, 0.24, 0.34
_HEIGHT = 1.4
_CLOSE = 0.085
"""Difference of probabilities below which two names would touch."""
_DASHES = ((), (4, 1.5), (1, 1.2))


def three_actions(toys: Toys) -> Drawing:
    """A row for each objective, a panel for each strength."""
    rows = (toys.ipo, toys.dpo)
    wide, tall = SPREAD / len(toys.ipo), _TOP + _HEIGHT + _BOTTOM
    figure = blank(SPREAD, tall * len(rows))
    for down, row in enumerate(rows):
        for across, learning in enumerate(row):
            axes = panel(
                figure,
                wide * across + _LEFT,
                tall * down + _TOP,
                wide - _LEFT - _RIGHT,
                _HEIGHT,
            )
            _draw(axes, learning)
            if across == 0:
                axes.set_ylabel("probability of an action")
    return Drawing("toy_three_actions", figure, _caption(toys))


def _draw(axes: Axes, learning: Learning) -> None:
    ipo = learning.objective == "ipo_sum"
    colour = colour_of("ipo" if ipo else "dpo")
    name, strength = ("IPO", "τ") if ipo else ("DPO", "β")
    axes.set_title(f"{name}, {strength} = {learning.tau:g}", loc="left", pad=4)
    # A log axis has no 0; what stands there is that all actions are alike.
    steps, probabilities = learning.steps[1:], learning.probabilities[1:]
    for action, dash in enumerate(_DASHES):
        seeds = probabilities[:, :, action]
        axes.fill_between(
            steps, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.3, linewidth=0
        )
        axes.plot(
            steps, seeds.mean(axis=1), color=colour, linewidth=1.0,
            linestyle=(0, dash) if dash else "-",
        )  # fmt: skip
    for value in ipo_optimum(learning.tau) if ipo else (0.0, 1.0):
        axes.axhline(value, color=FAINT, linewidth=0.6, zorder=0)
    axes.set_xscale("log")
    last = float(steps[-1])
    axes.set_xlim(1, last)
    axes.set_ylim(-0.03, 1.03)
    ticks = [tick for tick in (1, 10, 100, 1000, 10_000) if tick <= last]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.set_xlabel("step (log scale)", labelpad=1)
    _name(axes, probabilities[-1].mean(axis=0))


def _name(axes: Axes, ends: Array) -> None:
    """The actions at the right, those whose lines end together in one word."""
    groups: list[list[int]] = []
    for action, end in enumerate(ends):
        if groups and abs(ends[groups[-1][-1]] - end) < _CLOSE:
            groups[-1].append(action)
        else:
            groups.append([action])
    for group in groups:
        middle = float(ends[group].mean())
        axes.annotate(
            ", ".join(ACTIONS[action] for action in group),
            (1, middle), xycoords=axes.get_yaxis_transform(),
            xytext=(3, 0), textcoords="offset points", va="center_baseline",
        )  # fmt: skip


def _caption(toys: Toys) -> str:
    first = toys.ipo[0]
    return (
        "Probabilities of three actions while a softmax policy, uniform at first as is its "
        "reference, learns from the pairs a > b, b > c and a > c: mini-batches of "
        f"{BATCH} pairs, drawn with replacement, Adam at {LEARNING_RATE:g}, "
        f"{first.steps[-1]:,.0f} steps; means and, as bands, least and largest of "
        f"{first.late.shape[0]} seeds. IPO stops at the closed form of its optimum (grey lines: "
        "logits 2d, d, 0 with d = 1/(3τ)); DPO gives all to a (grey lines at 0 and 1), at every "
        "strength. After the toy of Azar et al. 2023, section 5.4, arxiv.org/abs/2310.12036; the "
        "closed form is ours."
    )
