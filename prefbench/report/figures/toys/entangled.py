"""One differing token: products of gradients, and one step of DPO, by shared tokens after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from prefbench.demo.toys.entangled import (
    BETA,
    N_TOKENS,
    RATE,
    Entanglement,
    known_products,
    turning_point,
)
from prefbench.demo.toys.findings import Toys
from prefbench.report.figures.palette import colour_of
from prefbench.report.figures.sheet import (
    FAINT,
    INK,
    LINE,
    SPREAD,
    Drawing,
    blank,
    even_ticks,
    panel,
)
from prefbench.stats.bootstrap import Array

_LEFT, _RIGHT, _TOP, _BOTTOM = 0.44, 0.54, 0.34, 0.38
_HEIGHT = 1.7
_DASH = (0, (4, 1.5))


def one_differing_token(toys: Toys) -> Drawing:
    """The products where the chosen context is surer, and a step for that and for its mirror."""
    surer_chosen, surer_rejected, *_ = toys.entangled
    wide = SPREAD / 3
    figure = blank(SPREAD, _TOP + _HEIGHT + _BOTTOM)
    panels = [
        panel(figure, wide * i + _LEFT, _TOP, wide - _LEFT - _RIGHT, _HEIGHT) for i in range(3)
    ]
    _products(panels[0], surer_chosen)
    _step(panels[1], surer_chosen, "both fall")
    _step(panels[2], surer_rejected, "both rise")
    return Drawing("toy_one_differing_token", figure, _caption())


def _products(axes: Axes, cases: Sequence[Entanglement]) -> None:
    sure, numbers = cases[0].confidence, [case.n_shared for case in cases]
    axes.set_title("products of gradients\n" + _shares(cases), loc="left", pad=4)
    blue = colour_of("dpo")
    looks = (
        (r"$\langle g_w, g_l \rangle$", INK, "-"),
        (r"$\|g_w\|^2$", blue, "-"),
        (r"$\|g_l\|^2$", blue, _DASH),
    )
    known = np.array([known_products(sure, n) for n in numbers])
    found = np.array([case.products for case in cases])
    for i, (name, colour, dash) in enumerate(looks):
        axes.plot(numbers, known[:, i], color=colour, linewidth=1.0, linestyle=dash)
        _dots(axes, numbers, found[:, i], colour, filled=i < 2)
        _label(axes, known[-1, i], name)
    _frame(axes, cases)


def _step(axes: Axes, cases: Sequence[Entanglement], both: str) -> None:
    numbers = [case.n_shared for case in cases]
    axes.set_title("change by one step of DPO (nats)\n" + _shares(cases), loc="left", pad=4)
    predicted = np.array([case.predicted for case in cases])
    actual = np.array([case.actual for case in cases])
    blue = colour_of("dpo")
    for i, (name, dash) in enumerate((("chosen", "-"), ("rejected", _DASH))):
        axes.plot(numbers, predicted[:, i], color=blue, linewidth=1.0, linestyle=dash)
        _dots(axes, numbers, actual[:, i], blue, filled=i == 0)
        _label(axes, predicted[-1, i], name)
    _frame(axes, cases)
    turn = turning_point(cases[0].confidence)
    axes.axvspan(turn, numbers[-1], color=LINE, alpha=0.5, linewidth=0, zorder=0)
    falling = predicted[-1].max() < 0
    axes.text(
        (turn + numbers[-1]) / 2, 0.97 if falling else 0.03, both,
        transform=axes.get_xaxis_transform(), ha="center", va="top" if falling else "bottom",
    )  # fmt: skip


def _dots(axes: Axes, numbers: Sequence[int], values: Array, colour: str, *, filled: bool) -> None:
    axes.plot(
        numbers, values, linestyle="none", marker="o", markersize=2.8, color=colour,
        markerfacecolor=colour if filled else "white", markeredgewidth=0.7, clip_on=False,
    )  # fmt: skip


def _label(axes: Axes, height: float, name: str) -> None:
    axes.annotate(
        name, (1, height), xycoords=axes.get_yaxis_transform(),
        xytext=(5, 0), textcoords="offset points", va="center_baseline",
        parse_math=True,  # our own words: no name of a checkpoint comes here
    )  # fmt: skip


def _frame(axes: Axes, cases: Sequence[Entanglement]) -> None:
    axes.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    axes.set_xlim(0, cases[-1].n_shared)
    even_ticks(axes.xaxis, whole=True)
    even_ticks(axes.yaxis)
    axes.set_xlabel("shared tokens after the difference")


def _shares(cases: Sequence[Entanglement]) -> str:
    sure = cases[0].confidence
    return f"shared token at {sure.chosen:g} and {sure.rejected:g}"


def _caption() -> str:
    return (
        "Two responses differ in one token, uniform over a vocabulary of "
        f"{N_TOKENS}, and share the tokens after it; logits are free and common to both, with a "
        "fixed offset that makes the shared tokens more probable after one token than after the "
        "other (probabilities after the chosen and after the rejected token in the titles). Left: "
        "inner product and squared norms of the gradients of the two log-probs. Middle and right: "
        f"change of the two log-probs by one step of plain gradient descent on DPO (β = {BETA:g}, "
        f"rate {RATE:g}). Lines: closed form, and its first-order prediction; dots: autograd, and "
        "the step itself. Without shared tokens the chosen response rises and the rejected one "
        "falls; where ⟨g_w, g_l⟩ passes ‖g_w‖² both fall, where it passes ‖g_l‖² both rise (grey). "
        "Where shared tokens are equally probable on both sides (not shown), neither ever happens, "
        "however large the inner product. The two conditions are those of Yuan et al. 2024, "
        "arxiv.org/abs/2410.13828; this toy is ours, its theorems could not be verified."
    )
