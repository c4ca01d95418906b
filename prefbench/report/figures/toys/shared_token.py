"""A token that both responses share: the slope of each loss on its logit."""

from __future__ import annotations

import numpy as np

from prefbench.demo.toys.findings import Toys
from prefbench.report.figures.keys import draw_keys, height_of, keys_of, stroke
from prefbench.report.figures.sheet import (
    COLUMN,
    FAINT,
    Drawing,
    blank,
    even_ticks,
    panel,
)

_LEFT, _RIGHT, _BOTTOM = 0.46, 0.1, 0.38
_HEIGHT = 1.9


def shared_token(toys: Toys) -> Drawing:
    """One panel: known slopes as lines, those of autograd as marks, zeros as rings."""
    keys = keys_of([(one.law.title, one.law.method) for one in toys.slopes], COLUMN)
    top = height_of(keys) + 0.04
    figure = blank(COLUMN, top + _HEIGHT + _BOTTOM)
    draw_keys(figure, keys)
    axes = panel(figure, _LEFT, top, COLUMN - _LEFT - _RIGHT, _HEIGHT)
    axes.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    whole = np.linspace(0, 1, 101)
    for i, one in enumerate(toys.slopes):
        axes.plot(whole, one.law.slope(whole), **stroke(one.law.method) | {"marker": "None"})
        some = slice(4 * i, None, 16)  # set off against each other: some lines meet
        axes.plot(
            one.probabilities[some], one.slopes[some],
            **stroke(one.law.method) | {"linestyle": "none"},
        )  # fmt: skip
        if one.law.rests is not None:
            axes.plot(
                [one.law.rests], [0], linestyle="none", marker="o", markersize=6,
                markerfacecolor="none", markeredgecolor=FAINT, markeredgewidth=0.8, clip_on=False,
            )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(-1.05, 1.05)
    even_ticks(axes.xaxis)
    even_ticks(axes.yaxis)
    axes.set_xlabel("probability p of the shared token")
    axes.set_ylabel("d loss / d logit of the token")
    return Drawing("toy_shared_token", figure, _caption(toys))


def _caption(toys: Toys) -> str:
    slopes = ", ".join(f"{one.law.title} {one.law.formula}" for one in toys.slopes)
    return (
        "What a loss does to a token that the chosen and the rejected response share, at the same "
        "probability p on both sides: below 0 it makes the token more probable, above 0 less, and "
        f"in the rings p comes to rest. Lines: {slopes}; marks: the objectives by autograd. MLE "
        "and ExMATE learn the token, unlikelihood holds it at one half, DPO leaves it alone. The "
        "argument is ours; it fits the captions of Tuan & Wang 2024, arxiv.org/abs/2408.16751, "
        "whose own could not be verified."
    )
