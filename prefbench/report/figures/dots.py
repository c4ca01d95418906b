"""Charts of points with intervals: a row for each checkpoint, panels side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefbench.records import Checkpoint
from prefbench.report.figures.palette import colour_of
from prefbench.report.figures.rows import method_of
from prefbench.report.figures.sheet import (
    FAINT,
    LINE,
    TALLEST,
    Drawing,
    blank,
    even_ticks,
    mark,
    number,
    panel,
)
from prefbench.report.figures.wording import SIZE, fitted, lines_of, width_of
from prefbench.stats.estimates import Estimate

_ROW = 0.145
"""Height of a checkpoint's row, in inches."""
_TITLE = 0.125
"""Height of a line of a title."""
_BELOW = 0.34
_GAP, _EDGE = 0.16, 0.06
_LONGEST = 1.25
"""Width of the longest name, in inches."""


@dataclass(frozen=True)
class Dots:
    """One panel: a value for each row, None where there is none.

    Beside a value without an interval stands a question mark: else it would look the surest.
    """

    title: tuple[str, ...]
    """Lines, the most important one last; those that do not fit are broken."""
    unit: str
    """What stands below the axis."""
    values: tuple[Estimate | None, ...]
    filled: tuple[bool, ...]
    line: float | None = None
    """Where no effect is."""
    scale: float = 1.0
    """What values are multiplied by before they are drawn: 100 for percentages."""
    span: tuple[float, float] | None = None
    """What the axis reaches over; else what this panel needs."""
    references: tuple[float, ...] = ()
    """What a value is to be held against, row by row, as a grey stroke; NaN for none."""


def chart(
    rows: Sequence[Checkpoint],
    names: Sequence[str],
    lines: Sequence[Sequence[Dots]],
    *,
    width: float,
) -> list[Figure]:
    """Lines of panels, with names at the left of each; as many figures as fill a page each.

    Args:
        rows: top to bottom.
        names: of the rows.
        lines: panels side by side, each with a value per row.
        width: of a figure, in inches.
    """
    names = [fitted(name, _LONGEST) for name in names]
    left = max(map(width_of, names), default=0) + 0.1
    across = max(map(len, lines))
    wide = (width - left - _EDGE - _GAP * (across - 1)) / across
    titles = [[_title(one, wide) for one in line] for line in lines]
    tall = len(rows) * _ROW + 0.06
    heights = [max(map(len, line)) * _TITLE + 0.08 + tall + _BELOW for line in titles]
    figures = []
    for some in pages(heights, TALLEST):
        figure = blank(width, sum(heights[i] for i in some))
        top = 0.0
        for i in some:
            start = top + heights[i] - tall - _BELOW
            for place, (one, title) in enumerate(zip(lines[i], titles[i], strict=True)):
                axes = panel(figure, left + place * (wide + _GAP), start, wide, tall)
                _draw(axes, rows, one, title, names if place == 0 else None)
            top += heights[i]
        figures.append(figure)
    return figures


def span_of(panels: Sequence[Dots]) -> tuple[float, float]:
    """From the smallest to the largest of all that panels draw."""
    drawn = [
        one.scale * value
        for one in panels
        for estimate in one.values
        if estimate is not None
        for value in estimate[:3]
        if math.isfinite(value)
    ]
    drawn += [one.line for one in panels if one.line is not None]
    drawn += [one.scale * v for one in panels for v in one.references if math.isfinite(v)]
    return min(drawn, default=0.0), max(drawn, default=1.0)


def in_lines(panels: Sequence[Dots], across: int) -> list[Sequence[Dots]]:
    """Panels in lines of at most so many, as even as they can be."""
    n_lines = math.ceil(len(panels) / across)
    each = math.ceil(len(panels) / n_lines)
    return [panels[first : first + each] for first in range(0, len(panels), each)]


def numbered(name: str, figures: Sequence[Figure], caption: str) -> tuple[Drawing, ...]:
    """Figures that belong together, numbered where they are several."""
    return tuple(
        Drawing(f"{name}_{i}" if len(figures) > 1 else name, figure, caption)
        for i, figure in enumerate(figures, 1)
    )


def pages(heights: Sequence[float], tallest: float) -> list[list[int]]:
    """Which lines fit a page together, at least one on each."""
    found: list[list[int]] = []
    room = 0.0
    for i, height in enumerate(heights):
        if not found or height > room:
            found.append([])
            room = tallest
        found[-1].append(i)
        room -= height
    return found


def _title(one: Dots, width: float) -> list[str]:
    return [line for text in one.title if text for line in lines_of(text, width)]


def _draw(
    axes: Axes,
    rows: Sequence[Checkpoint],
    one: Dots,
    title: Sequence[str],
    names: Sequence[str] | None,
) -> None:
    axes.set_title("\n".join(title), loc="left", pad=3, linespacing=1.15)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), names or [""] * len(rows))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for at in range(len(rows)):
        axes.axhline(at, color=LINE, linewidth=0.4, zorder=0)
    if one.line is not None:
        axes.axvline(one.line, color=FAINT, linewidth=0.8, zorder=1)
    for at, value in enumerate(one.references):
        if math.isfinite(value):
            ends = [at - 0.5, at + 0.5]
            axes.plot([one.scale * value] * 2, ends, color=FAINT, linewidth=1.2, zorder=1)
    for at, (row, estimate, filled) in enumerate(zip(rows, one.values, one.filled, strict=True)):
        method = method_of(row)
        if estimate is None or not math.isfinite(estimate.value):
            middle = axes.get_yaxis_transform()
            axes.text(0.5, at, "–", transform=middle, ha="center", va="center", color=FAINT)
            continue
        ends = [one.scale * end for end in (estimate.low, estimate.high)]
        if all(map(math.isfinite, ends)):
            axes.plot(ends, [at, at], color=colour_of(method), linewidth=1.0, zorder=2)
        else:
            axes.annotate(
                "?", (one.scale * estimate.value, at), (4, 0), textcoords="offset points",
                ha="left", va="center", color=FAINT,
            )  # fmt: skip
        mark(axes, one.scale * estimate.value, at, method, filled=filled, zorder=3)
    _scale(axes, one)


def _scale(axes: Axes, one: Dots) -> None:
    low, high = one.span or span_of([one])
    air = 0.06 * (high - low) or abs(low) * 0.1 or 1.0
    unsure = any(e is not None and not math.isfinite(e.low) for e in one.values)
    high += air if unsure else 0.0  # room for the question marks
    axes.set_xlim(low - air, high + air)
    even_ticks(axes.xaxis)
    axes.set_xlabel(one.unit)
    # Numbers that would run into each other: every second one is enough.
    width = axes.bbox.width / 72
    inch = (high - low + 2 * air) / width
    ticks = [
        float(tick)
        for tick in axes.get_xticks()
        if low - air <= tick <= high + air - inch * _beyond(float(tick))
    ]
    while len(ticks) > 2 and _crowded([number(round(t, 10)) for t in ticks], width):
        ticks = ticks[::2]
    axes.set_xticks(ticks)


def _beyond(tick: float) -> float:
    """How far from an axis' right end a number must stay to be whole, in inches."""
    return max(0.0, width_of(number(round(tick, 10)), SIZE) / 2 - _EDGE)


def _crowded(texts: Sequence[str], width: float) -> bool:
    return sum(width_of(text, SIZE) + 0.06 for text in texts) > width
