"""Small planes side by side, a checkpoint in each: its pairs as points, shares in the corners."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from prefbench.report.effects.planes import BANDS, Corner, Plane, Planes
from prefbench.report.effects.scales import Scale
from prefbench.report.figures.dots import pages
from prefbench.report.figures.palette import colour_of
from prefbench.report.figures.rows import method_of
from prefbench.report.figures.sheet import (
    COLUMN,
    FAINT,
    INK,
    LINE,
    SPREAD,
    TALLEST,
    blank,
    mark,
    number,
    panel,
)
from prefbench.report.figures.wording import SIZE, fitted, said, width_of
from prefbench.stats.estimates import Estimate

_LEFT, _RIGHT, _BELOW, _GAP = 0.5, 0.06, 0.34, 0.1
_HEAD, _KEY, _NAME = 0.19, 0.16, 0.18
_EDGE = 0.05
BAND_COLOURS = ("#0b2a4a", "#3a7fb5", "#7fb8e0")
"""Of pairs that differ little, more, and most: dark is close, in grey prints too."""


def sheets_of(
    found: Planes, names: Mapping[str, str], labels: tuple[str, str], *, shaded: Corner
) -> list[Figure]:
    """The planes of a task, as many figures as fill a page each.

    Args:
        found: the planes.
        names: of the checkpoints.
        labels: of both axes.
        shaded: the quarter that training is to fill.
    """
    n = len(found.planes)
    width, across = (COLUMN, 2) if n <= 2 else (SPREAD, 4 if n > 3 else 3)
    wide = (width - _LEFT - _RIGHT - _GAP * (across - 1)) / across
    tall = _NAME + wide
    top = _HEAD + (_KEY if found.banded else 0.0)
    figures = []
    for page in pages([tall] * math.ceil(n / across), TALLEST - top - _BELOW):
        some = found.planes[page[0] * across : (page[-1] + 1) * across]
        figure = blank(width, top + len(page) * tall + _BELOW)
        _head(figure, found)
        for i, plane in enumerate(some):
            down, place = divmod(i, across)
            left = _LEFT + place * (wide + _GAP)
            axes = panel(figure, left, top + down * tall + _NAME, wide, wide)
            axes.set_title(fitted(names[plane.row.name], wide), loc="left", pad=2.5)
            _draw(axes, found, plane, shaded)
            _ticks(axes, found, below=i + across >= len(some), left=place == 0)
        used = _LEFT + min(len(some), across) * (wide + _GAP) - _GAP
        _label(figure, labels, (_LEFT + used) / 2, top + (len(page) * tall + _NAME) / 2)
        figures.append(figure)
    return figures


def share(estimate: Estimate) -> str:
    """A share in percent over its interval, in two short lines."""
    value, low, high = (f"{100 * part:.0f}" for part in estimate[:3])
    there = math.isfinite(estimate.low) and math.isfinite(estimate.high)
    return f"{value}%\n[{low}, {high}]" if there else f"{value}%"


def _head(figure: Figure, found: Planes) -> None:
    """The task, and below it what the shades of points mean."""
    width, height = figure.get_size_inches()
    parts = said(found.group.task), said(found.group.conditions)
    about = fitted(", ".join(part for part in parts if part), width - 2 * _EDGE)
    figure.text(_EDGE / width, 1 - _HEAD / 2 / height, about, va="center_baseline")
    if not found.banded:
        return
    x, y = _EDGE, 1 - (_HEAD + 0.4 * _KEY) / height
    words = "edit distance:"
    figure.text(x / width, y, words, va="center_baseline")
    x += width_of(words) + 0.12
    for band in found.banded:
        words = list(BANDS.values())[band]
        figure.add_artist(
            Line2D(
                [x / width], [y], marker="o", markersize=4, linestyle="none",
                color=BAND_COLOURS[band], markeredgewidth=0,
            )
        )  # fmt: skip
        figure.text((x + 0.07) / width, y, words, va="center_baseline")
        x += width_of(words) + 0.26


def _draw(axes: Axes, found: Planes, plane: Plane, shaded: Corner) -> None:
    across, up = found.across, found.up
    axes.set_xlim(across.low, across.high)
    axes.set_ylim(up.low, up.high)
    x0, y0 = float(across.place(found.line)), float(up.place(found.line))
    x1 = across.high if shaded[0] > 0 else across.low
    y1 = up.high if shaded[1] > 0 else up.low
    axes.add_patch(
        Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=LINE, alpha=0.4, linewidth=0, zorder=0)
    )
    axes.axvline(x0, color=FAINT, linewidth=0.7, zorder=1)
    axes.axhline(y0, color=FAINT, linewidth=0.7, zorder=1)
    at, bands = plane.points[plane.drawn()], plane.bands[plane.drawn()]
    for band in sorted(set(bands.tolist()), reverse=True):
        colour = colour_of(method_of(plane.row)) if band < 0 else BAND_COLOURS[band]
        these = at[bands == band]
        axes.plot(
            across.place(these[:, 0]), up.place(these[:, 1]), linestyle="none", marker="o",
            markersize=2.0, markeredgewidth=0, color=colour, alpha=0.45 if band < 0 else 0.75,
            zorder=2,
        )  # fmt: skip
    x, y = float(across.place(plane.middle[0])), float(up.place(plane.middle[1]))
    mark(axes, x, y, method_of(plane.row), size=5.2, zorder=4, markeredgecolor="white")
    for (right, above), estimate in plane.shares.items():
        if math.isfinite(estimate.value):
            axes.text(
                0.97 if right > 0 else 0.03, 0.975 if above > 0 else 0.025, share(estimate),
                transform=axes.transAxes, ha="right" if right > 0 else "left",
                va="top" if above > 0 else "bottom", color=INK, linespacing=1.1, zorder=5,
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.6},
            )  # fmt: skip


def _ticks(axes: Axes, found: Planes, *, below: bool, left: bool) -> None:
    for axis, scale, told in ((axes.xaxis, found.across, below), (axes.yaxis, found.up, left)):
        length = (axes.bbox.width if axis is axes.xaxis else axes.bbox.height) / 72
        ticks = [t for t in scale.ticks(4) if _fits(t, scale, length)]
        if sum(width_of(number(t), SIZE) + 0.08 for t in ticks) > length:
            ticks = [t for i, t in enumerate(ticks) if (i - _zero(ticks)) % 2 == 0]
        axis.set_major_locator(FixedLocator([float(scale.place(t)) for t in ticks]))
        axis.set_major_formatter(FixedFormatter([number(t) if told else "" for t in ticks]))
        axis.set_minor_locator(NullLocator())


def _fits(tick: float, scale: Scale, length: float) -> bool:
    """Whether a number below an axis of so many inches reaches no farther than its ends."""
    share = (float(scale.place(tick)) - scale.low) / (scale.high - scale.low)
    return min(share, 1 - share) * length >= width_of(number(tick), SIZE) / 2 - 0.04


def _zero(ticks: list[float]) -> int:
    """Where among ticks 0 is, which stays when others go."""
    return ticks.index(0.0) if 0.0 in ticks else 0


def _label(figure: Figure, labels: tuple[str, str], x: float, y: float) -> None:
    """What the axes are, once for all planes: around places in inches from the left and top."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 0.03 / height, labels[0], ha="center", va="bottom")
    figure.text(0.03 / width, 1 - y / height, labels[1], rotation=90, ha="left", va="center")
