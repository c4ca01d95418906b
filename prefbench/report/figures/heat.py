"""Cosines between the gradients of single tokens, as a map for each checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered
from prefbench.report.effects.heat import MOST, Heat, Heats, heats
from prefbench.report.figures.dots import numbered, pages
from prefbench.report.figures.rows import finals, labels_of, left_out
from prefbench.report.figures.sheet import (
    COLUMN,
    FAINT,
    SPREAD,
    TALLEST,
    Drawing,
    Drawn,
    blank,
    panel,
)
from prefbench.report.figures.wording import fitted, said, width_of
from prefbench.store import Store

_CELL = 0.118
"""Of a token, in inches: the least that a line of text takes."""
_LABEL = 0.72
"""Of the longest token."""
_HEAD, _NAME, _GAP, _KEY = 0.19, 0.17, 0.12, 0.38
COLOURS = ("#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b")
"""From -1 over 0 to 1: blue pulls apart, red pulls together. After ColorBrewer's RdBu."""
_MAP = LinearSegmentedColormap.from_list("cosines", COLOURS)
_UNKNOWN = "#c8c8c8"


def token_cosines(gathered: Gathered, shown: Shown, store: Store | None = None) -> Drawn:
    """A figure for each task that has them, with a map of one pair for each checkpoint."""
    board = shown.board
    found, notices = heats(gathered, board, store)
    names = labels_of(finals(board), board)
    drawings: list[Drawing] = []
    for i, one in enumerate(found, 1):
        name = f"token_cosines_{i}" if len(found) > 1 else "token_cosines"
        drawings += numbered(name, _figures(one, names), _caption(one) + left_out(board))
    return Drawn(tuple(drawings), tuple(said(notice) for notice in notices))


def _figures(one: Heats, names: dict[str, str]) -> list[Figure]:
    n_rows = max(heat.cosines.shape[0] for heat in one.heats)
    n_columns = max(heat.cosines.shape[1] for heat in one.heats)
    left = 0.08 + _longest([token for heat in one.heats for token in heat.chosen])
    top = _longest([token for heat in one.heats for token in heat.rejected])
    wide, tall = n_columns * _CELL, n_rows * _CELL
    across = max(1, int((SPREAD - 0.1) // (left + wide + _GAP)))
    across = min(across, len(one.heats))
    width = COLUMN if across * (left + wide + _GAP) <= COLUMN - 0.1 else SPREAD
    each = (width - 0.1) / across
    line = _NAME + top + 0.06 + tall + _GAP
    figures = []
    for page in pages([line] * math.ceil(len(one.heats) / across), TALLEST - _HEAD - _KEY):
        figure = blank(width, _HEAD + line * len(page) + _KEY)
        height = figure.get_size_inches()[1]
        parts = said(one.group.task), said(one.group.conditions), f"item {one.item}"
        about = fitted(", ".join(part for part in parts if part), width - 0.1)
        figure.text(0.05 / width, 1 - _HEAD / 2 / height, about, va="center_baseline")
        for i, heat in enumerate(one.heats[page[0] * across : (page[-1] + 1) * across]):
            down, place = divmod(i, across)
            start = _HEAD + down * line
            n, m = heat.cosines.shape
            figure.text(
                (place * each + left) / width, 1 - (start + _NAME / 2) / height,
                fitted(names[heat.row.name], each - left), va="center_baseline",
            )  # fmt: skip
            axes = panel(
                figure, place * each + left, start + _NAME + top + 0.06, m * _CELL, n * _CELL
            )
            draw_heat(axes, heat)
        _key(figure)
        figures.append(figure)
    return figures


def _longest(tokens: Sequence[str]) -> float:
    return min(_LABEL, max((width_of(said(token)) for token in tokens), default=0.1))


def draw_heat(axes: Axes, heat: Heat) -> None:
    """The map of one pair: chosen tokens down, rejected tokens across, from -1 to 1."""
    n, m = heat.cosines.shape
    edges = np.arange(m + 1) - 0.5, np.arange(n + 1) - 0.5
    axes.set_facecolor(_UNKNOWN)
    # One rectangle for each cosine: as sharp in print as on a screen.
    axes.pcolormesh(*edges, heat.cosines, cmap=_MAP, vmin=-1, vmax=1)
    axes.set_xlim(-0.5, m - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(m), [fitted(said(t), _LABEL) for t in heat.rejected], rotation=90)
    axes.set_yticks(range(n), [fitted(said(t), _LABEL) for t in heat.chosen])
    axes.tick_params(length=0, pad=2)
    for side in ("left", "bottom", "top", "right"):
        axes.spines[side].set_visible(True)
        axes.spines[side].set_color(FAINT)


def _key(figure: Figure) -> None:
    width, height = figure.get_size_inches()
    axes = panel(figure, 0.3, height - _KEY + 0.08, 1.4, 0.09)
    steps = np.linspace(-1, 1, 41)
    axes.pcolormesh(
        np.append(steps - 0.025, 1.025), [0, 1], steps[None, :], cmap=_MAP, vmin=-1, vmax=1
    )
    axes.set_yticks([])
    axes.set_xlim(-1, 1)
    axes.set_xticks([-1, 0, 1], ["−1", "0", "1"])
    figure.text(1.85 / width, (_KEY - 0.125) / height, "cosine", va="center_baseline")


def _caption(one: Heats) -> str:
    text = (
        f"Cosines between the gradients of single tokens' log-probs, of item {one.item} of "
        f"{said(one.group.name)}: tokens of the chosen text downwards, of the rejected text to the "
        "right; a dot is a space. Red: raising one token's log-prob raises the other's."
    )
    cut = [n for heat in one.heats for n in heat.n_left_out]
    if any(cut):
        text += f" The first {MOST} tokens of each text are shown."
    return text
