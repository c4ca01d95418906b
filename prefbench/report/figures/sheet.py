"""The sheet that figures are drawn on: sizes, type, marks, and files that do not know the time."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from prefbench.report.figures.palette import MARKERS, colour_of, marker_of
from prefbench.report.figures.wording import SIZE

COLUMN, SPREAD = 3.3, 6.9
"""Widths of one column of a paper and of two, in inches."""
TALLEST = 9.0
"""Of a figure that fits a page; rows of panels beyond it go to a further figure."""
INK, FAINT, LINE = "#222222", "#6b6b6b", "#d9d9d9"

_SETTINGS: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.labelsize": SIZE,
    "xtick.labelsize": SIZE,
    "ytick.labelsize": SIZE,
    "legend.fontsize": SIZE,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "axes.labelpad": 2.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "text.usetex": False,
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
    "ps.fonttype": 42,
    "svg.fonttype": "path",  # looks the same where the font is not installed
    "svg.hashsalt": "prefbench",
    "savefig.dpi": 300,
}

# What a file would say of when it was written.
_METADATA: Mapping[str, Mapping[str, Any]] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {},
}
FORMATS = tuple(_METADATA)


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its file, and what a reader must know to read it."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Drawn:
    """What a family of figures gave, and why it gave no more."""

    drawings: tuple[Drawing, ...] = ()
    notices: tuple[str, ...] = ()


@contextmanager
def typeset() -> Iterator[None]:
    """Our settings and nobody else's; figures are made and saved inside."""
    with matplotlib.style.context(["default", dict(_SETTINGS)]):
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, tied to no window; one of its dots is a point."""
    figure = Figure(figsize=(width, height), dpi=72)
    FigureCanvasAgg(figure)
    return figure


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes whose frame lies so many inches from the figure's left and top."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))


def save(drawing: Drawing, path: pathlib.Path) -> None:
    """Writes a figure by its suffix; the same figure gives the same bytes."""
    kind = path.suffix.removeprefix(".")
    about = {"png": "Description", "svg": "Description", "pdf": "Subject"}[kind]
    with typeset():
        drawing.figure.savefig(
            path, format=kind, metadata={**_METADATA[kind], about: drawing.caption}
        )


def mark(
    axes: Axes,
    x: float,
    y: float,
    method: str,
    *,
    size: float = 4.4,
    filled: bool = True,
    **more: Any,
) -> None:
    """One point of a method, `size` points wide were it a disc; hollow where not filled."""
    colour = colour_of(method)
    axes.plot(
        [x], [y], linestyle="none", color=colour, markeredgewidth=0.8,
        markerfacecolor=colour if filled else "white", **marker(method, size), **more,
    )  # fmt: skip


def marker(method: str, size: float) -> dict[str, Any]:
    """A method's shape at a size, as `plot` takes it."""
    outline = MARKERS[marker_of(method)]
    # matplotlib scales a shape to its farthest corner, which would make stars look small.
    reach = max(max(abs(x), abs(y)) for x, y in outline)
    return {"marker": Path([*outline, outline[0]], closed=True), "markersize": size * reach}


def ticks_of_log(low: float, high: float, *, most: int = 5) -> list[float]:
    """Few round numbers between two positive ones, for a log axis."""
    if not 0 < low < high < math.inf:
        return []
    if high / low < 2.5:
        return _even(low, high, most)
    for leads in ((1, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = _multiples(low, high, leads)
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def _multiples(low: float, high: float, leads: Sequence[int]) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [v for p in powers for lead in leads if low <= (v := lead * 10.0**p) <= high]


def _even(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 in some power of ten."""
    power = math.floor(math.log10(high - low)) - 1
    for step in (lead * 10.0 ** (power + more) for more in range(4) for lead in (1, 2, 5)):
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first + 1 <= most:
            # Rounded to the step's own digits: 1.4, not 1.4000000000000001.
            digits = max(0, -math.floor(math.log10(step)))
            return [round(i * step, digits) for i in range(first, last + 1)]
    return []


def number(value: float) -> str:
    """A number at an axis, in as few digits as it has."""
    text = f"{value:.6g}".replace("-", "−")
    return "0" if text == "−0" else text


def even_ticks(axis: Axis, most: int = 5, *, whole: bool = False) -> None:
    """Round numbers at an axis."""
    axis.set_major_locator(
        MaxNLocator(most, steps=[1, 2, 5, 10] if whole else [1, 2, 2.5, 5, 10], integer=whole)
    )
    axis.set_major_formatter(lambda value, _: number(round(value, 10)))


def level(confidence: float) -> str:
    """A share as the notes below a table write it."""
    return f"{100 * confidence:.6g}%"
