"""Lines of methods, and the key above the panels that says whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prefbench.report.figures.palette import colour_of, dash_of
from prefbench.report.figures.sheet import marker
from prefbench.report.figures.wording import width_of

KEY = 0.15
"""Height of a line of the key, in inches."""
_SWATCH = 0.34
_GAP = 0.14


def stroke(method: str) -> dict[str, Any]:
    """A method's line, as `plot` takes it."""
    dash = dash_of(method)
    return {
        "color": colour_of(method),
        "linewidth": 1.0,
        "linestyle": (0, dash) if dash else "-",
    }


def dots(method: str) -> dict[str, Any]:
    """A method's shape upon its line."""
    return {"markeredgewidth": 0.0, **marker(method, 3.2)}


def key_lines(titles: Sequence[str], width: float) -> list[list[int]]:
    """Which entries stand in which line of a key of a width in inches."""
    lines: list[list[int]] = []
    room = 0.0
    for i, title in enumerate(titles):
        needed = _SWATCH + width_of(title)
        if not lines or needed > room:
            lines.append([])
            room = width
        lines[-1].append(i)
        room -= needed + _GAP
    return lines


def draw_key(figure: Figure, titles: Sequence[str], methods: Sequence[str], left: float) -> None:
    """Swatches and titles from the figure's top left on, in as many lines as they need."""
    width, height = figure.get_size_inches()
    for at, line in enumerate(key_lines(titles, width - left)):
        x, y = left, 1 - (0.02 + KEY * (at + 0.5)) / height
        for i in line:
            ends = [x / width, (x + _SWATCH - 0.08) / width]
            figure.add_artist(Line2D(ends, [y, y], **stroke(methods[i])))
            look = stroke(methods[i]) | dots(methods[i])
            figure.add_artist(Line2D([sum(ends) / 2], [y], **look))
            figure.text((x + _SWATCH) / width, y, titles[i], va="center_baseline")
            x += _SWATCH + width_of(titles[i]) + _GAP
