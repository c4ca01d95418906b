"""The key above panels of lines: every method's line and shape, with its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prefbench.report.figures.palette import colour_of, dash_of
from prefbench.report.figures.sheet import FAINT, marker
from prefbench.report.figures.wording import fitted, width_of

_LINE = 0.15
_SWATCH = 0.32


class Key(NamedTuple):
    """A name and where it stands; without a method it is a grey line."""

    left: float
    """Inches from the figure's left."""
    label: str
    method: str | None


def stroke(method: str) -> dict[str, Any]:
    """A method's line with its marks, as `plot` takes it."""
    dash = dash_of(method)
    return {
        "color": colour_of(method),
        "linewidth": 1.0,
        "linestyle": (0, dash) if dash else "-",
        "markeredgewidth": 0.0,
        **marker(method, 3.4),
    }


def keys_of(entries: Sequence[tuple[str, str | None]], width: float) -> list[list[Key]]:
    """Names and methods in lines that fit a width in inches."""
    lines: list[list[Key]] = []
    room = 0.0
    for name, method in entries:
        label = fitted(name, width - _SWATCH - 0.2)
        needed = _SWATCH + width_of(label) + 0.12
        if not lines or needed > room:
            lines.append([])
            room = width - 0.08
        lines[-1].append(Key(width - room, label, method))
        room -= needed
    return lines


def height_of(keys: Sequence[Sequence[Key]]) -> float:
    """Inches that the key takes, with the air below it."""
    return _LINE * len(keys) + 0.06


def draw_keys(figure: Figure, keys: Sequence[Sequence[Key]]) -> None:
    """Draws the key at the figure's top."""
    width, height = figure.get_size_inches()
    for at, line in enumerate(keys):
        y = 1 - (0.02 + _LINE * (at + 0.5)) / height
        for left, label, method in line:
            ends = [left / width, (left + _SWATCH - 0.08) / width]
            middle = sum(ends) / 2
            look: dict[str, Any] = (
                {"color": FAINT, "linewidth": 1.0} if method is None else stroke(method)
            )
            bare = {k: v for k, v in look.items() if not k.startswith("marker")}
            figure.add_artist(Line2D(ends, [y, y], **bare))
            if method is not None:
                figure.add_artist(Line2D([middle], [y], **look))
            figure.text((left + _SWATCH) / width, y, label, va="center_baseline")
