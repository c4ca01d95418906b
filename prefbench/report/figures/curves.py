"""Panels of lines with intervals, a line for each method, side by side below one key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from prefbench.report.figures.dots import pages
from prefbench.report.figures.keys import draw_keys, height_of, keys_of, stroke
from prefbench.report.figures.palette import colour_of
from prefbench.report.figures.sheet import (
    COLUMN,
    FAINT,
    SPREAD,
    TALLEST,
    blank,
    even_ticks,
    number,
    panel,
    ticks_of_log,
)
from prefbench.report.figures.wording import lines_of
from prefbench.stats.estimates import Estimate

_LEFT, _RIGHT, _BELOW, _TITLE = 0.44, 0.08, 0.34, 0.125
_HEIGHT = 1.5
_FEW = 8


@dataclass(frozen=True)
class Line:
    """Values with intervals by x; without a method it is grey."""

    method: str | None
    values: tuple[tuple[float, Estimate], ...]


@dataclass(frozen=True)
class Panel:
    """Lines on one pair of axes."""

    title: tuple[str, ...]
    across: str
    up: str
    lines: tuple[Line, ...]
    log: bool = False
    """Values of exactly 0 then lie on the lower edge, hollow."""
    level: float | None = None
    """Where a line runs across."""
    scale: float = 1.0
    bars: bool = False
    """Intervals as strokes beside each other; else as bands, which many lines would muddy."""


def figures_of_lines(
    rows: Sequence[Sequence[Panel]], entries: Sequence[tuple[str, str | None]]
) -> list[Figure]:
    """Rows of panels, as many figures as fill a page each; a single panel takes a column.

    Args:
        rows: panels side by side, at most three.
        entries: names and methods for the key.
    """
    across = max(map(len, rows))
    width = COLUMN if across == 1 else SPREAD
    wide = width / across
    inner = wide - _LEFT - _RIGHT
    keys = keys_of(entries, width)
    top = height_of(keys)
    titles = [
        [[line for text in one.title if text for line in lines_of(text, inner)] for one in row]
        for row in rows
    ]
    heads = [max(map(len, row)) * _TITLE + 0.1 for row in titles]
    figures = []
    for page in pages([head + _HEIGHT + _BELOW for head in heads], TALLEST - top):
        figure = blank(width, top + sum(heads[at] + _HEIGHT + _BELOW for at in page))
        draw_keys(figure, keys)
        below = top
        for at in page:
            for place, one in enumerate(rows[at]):
                left = wide * place + _LEFT
                axes = panel(figure, left, below + heads[at], inner, _HEIGHT)
                axes.set_title("\n".join(titles[at][place]), loc="left", pad=3, linespacing=1.15)
                _draw(axes, one)
            below += heads[at] + _HEIGHT + _BELOW
        figures.append(figure)
    return figures


def _draw(axes: Axes, one: Panel) -> None:
    _scale(axes, one)
    if one.level is not None:
        axes.axhline(one.scale * one.level, color=FAINT, linewidth=0.8, zorder=1)
    floor = axes.get_ylim()[0]
    aside = _aside(one)
    for line, by in zip(one.lines, aside, strict=True):
        colour = FAINT if line.method is None else colour_of(line.method)
        kept = [(x + by, e) for x, e in line.values if not (one.log and e.value <= 0)]
        bounded = [(x, e) for x, e in kept if math.isfinite(e.low) and math.isfinite(e.high)]
        xs = [x for x, _ in bounded]
        lows = [max(floor, one.scale * e.low) for _, e in bounded]
        highs = [one.scale * e.high for _, e in bounded]
        if one.bars:
            axes.vlines(xs, lows, highs, color=colour, linewidth=0.8, alpha=0.6)
        else:
            axes.fill_between(xs, lows, highs, color=colour, alpha=0.13, linewidth=0)
        look = (
            stroke(line.method) if line.method is not None else {"color": FAINT, "linewidth": 1.0}
        )
        axes.plot([x for x, _ in kept], [one.scale * e.value for _, e in kept], **look)
    if one.log and not any(e.value > 0 for line in one.lines for _, e in line.values):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "exactly 0", transform=axes.transAxes, ha="center", color=FAINT)
    zeros = {x for line in one.lines for x, e in line.values if one.log and e.value == 0}
    if zeros:
        axes.plot(
            sorted(zeros), [floor] * len(zeros), linestyle="none", marker="o", markersize=4,
            markerfacecolor="white", color=FAINT, clip_on=False, zorder=5,
        )  # fmt: skip
    axes.set_xlabel(one.across, labelpad=1)
    axes.set_ylabel(one.up, labelpad=1)


def _aside(one: Panel) -> list[float]:
    """How far to the right each line stands, so that strokes do not lie on each other."""
    xs = sorted({x for line in one.lines for x, _ in line.values})
    n = len(one.lines)
    if not one.bars or len(xs) < 2 or n < 2:
        return [0.0] * n
    room = 0.5 * min(b - a for a, b in pairwise(xs))
    return [room * (i / (n - 1) - 0.5) for i in range(n)]


def _scale(axes: Axes, one: Panel) -> None:
    """Axes that hold all values, and all intervals that are above 0 where it is logarithmic."""
    xs = [x for line in one.lines for x, _ in line.values]
    aside = max(_aside(one), default=0.0)
    air = 0.04 * (max(xs) - min(xs)) + aside or 0.5
    axes.set_xlim(min(xs) - air, max(xs) + air)
    if len(set(xs)) <= _FEW:
        axes.set_xticks(sorted(set(xs)), [number(x) for x in sorted(set(xs))])
    else:
        even_ticks(axes.xaxis, _FEW, whole=all(float(x).is_integer() for x in xs))
    values = [
        one.scale * v
        for line in one.lines
        for _, e in line.values
        for v in (e.value, e.low, e.high)
        if math.isfinite(v) and not (one.log and v <= 0)
    ] + ([] if one.level is None else [one.scale * one.level])
    if one.log:
        low, high = min(values, default=0.1), max(values, default=1.0)
        room = max((high / low) ** 0.06, 1.05)
        axes.set_yscale("log")
        axes.set_ylim(low / room, high * room)
        ticks = ticks_of_log(low / room, high * room)
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_major_formatter(FixedFormatter([number(tick) for tick in ticks]))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or abs(low) * 0.1 or 1.0
        axes.set_ylim(low - room, high + room)
        even_ticks(axes.yaxis, 5)
