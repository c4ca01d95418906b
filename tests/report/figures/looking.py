"""What tests look for in a figure: its marks, its words, and whether these can be read."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from prefbench.report.figures.sheet import COLUMN, SPREAD, TALLEST, Drawing, Drawn, typeset


def named(found: Drawn, name: str) -> Figure:
    return next(one.figure for one in found.drawings if one.name == name)


def titled(figure: Figure, *words: str) -> Axes:
    return next(
        axes
        for axes in figure.axes
        if all(word in axes.get_title(loc="left").replace("\n", " ") for word in words)
    )


def marks(axes: Axes) -> list[Line2D]:
    """The points, each a line of one point."""
    return [line for line in axes.lines if line.get_linestyle() == "None"]


def texts(figure: Figure) -> list[Text]:
    """All that is written, without the numbers of ticks beyond an axis."""
    found = list(figure.texts)
    for axes in figure.axes:
        found += [axes.xaxis.label, axes.yaxis.label]
        found += [text for text in axes.get_children() if isinstance(text, Text)]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            found += [one for t in ticks for one in (t.label1, t.label2) if one.get_visible()]
    return [text for text in dict.fromkeys(found) if text.get_text().strip()]


def is_legible(one: Drawing) -> None:
    """Fails unless the figure fits a page and no word is cut, tiny, or upon another."""
    width, height = one.figure.get_size_inches()
    assert width in (COLUMN, SPREAD)
    assert height <= TALLEST
    with typeset():
        renderer = FigureCanvasAgg(one.figure).get_renderer()
        one.figure.draw(renderer)
        boxes = [(text, text.get_window_extent(renderer)) for text in texts(one.figure)]
    whole = one.figure.bbox
    inside = [(text, box) for text, box in boxes if box.width > 0]
    for i, (text, box) in enumerate(inside):
        assert text.get_fontsize() >= 7
        assert whole.x0 - 0.5 <= box.x0 <= box.x1 <= whole.x1 + 0.5, (one.name, text)
        assert whole.y0 - 0.5 <= box.y0 <= box.y1 <= whole.y1 + 0.5, (one.name, text)
        for other, there in inside[:i]:
            apart = (
                box.x1 <= there.x0 + 0.5 or there.x1 <= box.x0 + 0.5
                or box.y1 <= there.y0 + 0.5 or there.y1 <= box.y0 + 0.5
            )  # fmt: skip
            assert apart, (one.name, text.get_text(), other.get_text())
