"""Perplexity against agility: one panel per task of pairs, each method with its ellipse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Board, Gathered, Group
from prefbench.records import Checkpoint
from prefbench.report.figures.ellipses import ellipse, replicates
from prefbench.report.figures.naming import name_points
from prefbench.report.figures.palette import colour_of
from prefbench.report.figures.rows import finals, labels_of, left_out, method_of
from prefbench.report.figures.sheet import (
    COLUMN,
    LINE,
    SPREAD,
    TALLEST,
    Drawing,
    Drawn,
    blank,
    even_ticks,
    level,
    mark,
    number,
    panel,
    ticks_of_log,
)
from prefbench.report.figures.wording import fitted, said
from prefbench.stats.bootstrap import Array

_LEFT, _RIGHT, _TOP, _BOTTOM = 0.46, 0.08, 0.22, 0.38
_HEIGHT = 2.1
_FEW, _NAMED = 2, 5


class Spot(NamedTuple):
    """Where a checkpoint lies: log-perplexity and agility, and the region around, if any."""

    row: Checkpoint
    centre: tuple[float, float]
    region: Array | None


def perplexity_and_agility(gathered: Gathered, shown: Shown, *, n_resamples: int = 10_000) -> Drawn:
    """A panel for each task that has both; wider than a column from three panels on."""
    board = shown.board
    panels, notices = [], []
    for group in gathered.groups:
        found = spots(gathered, board, group, n_resamples=n_resamples)
        if found:
            panels.append((group, found))
    if not panels:
        return Drawn(notices=("no task of pairs has perplexity and agility: no figure of them",))
    across = 1 if len(panels) <= _FEW else 2 if len(panels) == 4 else 3
    width = COLUMN if across == 1 else SPREAD
    wide = width / across
    tall = _TOP + _HEIGHT + _BOTTOM
    per_sheet = across * max(1, int(TALLEST // tall))
    names = labels_of(finals(board), board)
    drawings = []
    for first in range(0, len(panels), per_sheet):
        some = panels[first : first + per_sheet]
        figure = blank(width, tall * math.ceil(len(some) / across))
        for i, (group, found) in enumerate(some):
            axes = panel(
                figure,
                wide * (i % across) + _LEFT,
                tall * (i // across) + _TOP,
                wide - _LEFT - _RIGHT,
                _HEIGHT,
            )
            missed = _draw(axes, group, found, names, board.baseline)
            if missed:
                few = ", ".join(missed[:_NAMED]) + (" and others" if missed[_NAMED:] else "")
                notices.append(
                    f"perplexity and agility on {said(group.name)}: no room for {len(missed)} "
                    f"of {len(found)} names: {few}"
                )
        part = "" if len(panels) <= per_sheet else f"_{first // per_sheet + 1}"
        drawings.append(Drawing(f"perplexity_agility{part}", figure, _caption(board)))
    return Drawn(tuple(drawings), tuple(notices))


def spots(gathered: Gathered, board: Board, group: Group, *, n_resamples: int) -> list[Spot]:
    """The checkpoints that have both values on a task."""
    columns = {c.metric.name: c for c in board.columns if c.group.name == group.name}
    if not {"perplexity.v1", "agility.v1"} <= columns.keys():
        return []
    centres = {}
    for row in finals(board):
        entries = [board.entry(row, columns[name]) for name in ("perplexity.v1", "agility.v1")]
        values = [entry.score.estimate.value if entry else math.nan for entry in entries]
        if all(map(math.isfinite, values)) and values[0] > 0:
            centres[row.name] = (row, (math.log(values[0]), values[1]))
    drawn = replicates(gathered, group, list(centres), n_resamples=n_resamples)
    return [
        Spot(
            row,
            centre,
            ellipse(centre, drawn[name], confidence=board.confidence) if name in drawn else None,
        )
        for name, (row, centre) in centres.items()
    ]


def _draw(
    axes: Axes, group: Group, found: list[Spot], names: Mapping[str, str], baseline: str | None
) -> list[str]:
    """One panel; the names for which it has no room."""
    _frame(axes, found)
    conditions = f" ({said(group.conditions)})" if group.conditions else ""
    width = axes.bbox.width / 72
    axes.set_title(fitted(said(group.task) + conditions, width), loc="left", pad=4)
    for spot in found:
        if spot.row.name == baseline:
            for line, at in (
                (axes.axvline, math.exp(spot.centre[0])),
                (axes.axhline, spot.centre[1]),
            ):
                line(at, color=LINE, linewidth=0.8, zorder=0)
    for spot in found:
        if spot.region is not None:
            outline = _seen(spot.region)
            colour = colour_of(method_of(spot.row))
            for fill in (True, False):
                axes.add_patch(
                    Polygon(
                        outline, closed=True, fill=fill, alpha=0.16 if fill else 0.9,
                        linewidth=0 if fill else 0.6, facecolor=colour, edgecolor=colour,
                    )
                )  # fmt: skip
    for spot in found:
        x, y = math.exp(spot.centre[0]), spot.centre[1]
        mark(axes, x, y, method_of(spot.row), zorder=3)
    return _name(axes, found, names)


def _frame(axes: Axes, found: list[Spot]) -> None:
    """A log axis for perplexity, and room around all regions for the names."""
    corners = np.concatenate(
        [
            np.asarray([spot.centre for spot in found]),
            *(spot.region for spot in found if spot.region is not None),
        ]
    )
    low, high = corners.min(axis=0), corners.max(axis=0)
    air = np.maximum((high - low) * (0.22, 0.16), (0.01, 0.01))
    low, high = low - air, high + air
    left, right = float(np.exp(low[0])), float(np.exp(min(high[0], 700)))
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(float(low[1]), float(high[1]))
    ticks = ticks_of_log(left, right)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([number(tick) for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    even_ticks(axes.yaxis)
    axes.set_xlabel("perplexity ↓ (log scale)")
    axes.set_ylabel("agility ↑ (nats per token)")


def _name(axes: Axes, found: list[Spot], names: Mapping[str, str]) -> list[str]:
    return name_points(
        axes,
        _seen(np.asarray([spot.centre for spot in found])),
        [names[spot.row.name] for spot in found],
        outlines=[_seen(spot.region) for spot in found if spot.region is not None],
    )


def _seen(outline: Array) -> Array:
    """Perplexity and agility, of what has the former's log."""
    return np.stack([np.exp(outline[:, 0]), outline[:, 1]], axis=-1)


def _caption(board: Board) -> str:
    text = (
        f"Perplexity (log scale) against agility. Ellipses hold both values together with "
        f"{level(board.confidence)} confidence, from bootstrap draws that both share; where two "
        "ellipses overlap, the paired difference may still be clear. Of points without an ellipse "
        "the interval is unknown."
    )
    if board.baseline:
        text += f" Grey lines pass through {said(board.baseline)}."
    return text + left_out(board)
