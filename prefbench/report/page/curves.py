"""Values with intervals along an axis that all checkpoints share: steps, and temperatures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered, Group
from prefbench.report.effects.aligned import MEASURES, curves
from prefbench.report.effects.temperatures import sweeps
from prefbench.report.page.looks import class_of, mark, method_of
from prefbench.report.page.sheets import WIDTH, lines_of_text, sheet, stroke, title_of
from prefbench.report.page.svg import Axis, axis, element
from prefbench.report.tables import label
from prefbench.stats.estimates import Estimate

_HEIGHT, _LEFT = 220.0, 52.0


class Series(NamedTuple):
    """A line; without a method it is grey."""

    name: str
    method: str | None
    values: Sequence[tuple[float, Estimate]]


def by_step(
    gathered: Gathered, shown: Shown
) -> Iterator[tuple[Group, tuple[tuple[str, Markup], ...]]]:
    """Per task, a drawing for each measure of how a pair's texts differ."""
    for _, some in groupby(curves(gathered, shown.board), lambda one: one.group.name):
        found = list(some)
        drawings = []
        for one in found:
            series = [
                Series(label(curve.row, shown.board), method_of(curve.row), curve.values)
                if curve.row
                else Series("random weights", None, curve.values)
                for curve in sorted(one.curves, key=lambda curve: curve.row is not None)
            ]
            drawing = curves_drawing(series, "step t →", log=True)
            if drawing:
                drawings.append((MEASURES[one.measure], drawing))
        if drawings:
            yield found[0].group, tuple(drawings)


def by_temperature(gathered: Gathered, shown: Shown) -> Iterator[tuple[str, Markup]]:
    """A title and a drawing for each sweep."""
    for one in sweeps(gathered, shown.board):
        series = [
            Series(label(row, shown.board), method_of(row), [(t, _percent(e)) for t, e in values])
            for row, values in one.lines
        ]
        drawing = curves_drawing(series, "temperature →", level=50.0, aside=True)
        if drawing:
            yield title_of(one.group).replace(one.group.task, one.name, 1), drawing


def _percent(estimate: Estimate) -> Estimate:
    value, low, high = (100 * part for part in estimate[:3])
    return estimate._replace(value=value, low=low, high=high)


def curves_drawing(
    series: Sequence[Series],
    across: str,
    *,
    log: bool = False,
    level: float = math.nan,
    aside: bool = False,
) -> Markup | None:
    """Lines with marks and intervals; None where there is nothing to draw.

    Args:
        series: the lines.
        across: what the axis below is.
        log: logarithmic upwards; values of exactly 0 then lie on the lower edge, hollow.
        level: where a line runs across; NaN for none.
        aside: marks of one place stand beside each other.
    """
    bottom = _HEIGHT - 38
    xs = [x for one in series for x, _ in one.values]
    ys = [
        v
        for one in series
        for _, e in one.values
        for v in e[:3]
        if math.isfinite(v) and not (log and v <= 0)
    ]
    x = axis(xs, _LEFT, WIDTH - 14, around=0.08)
    y = axis([*ys, level], bottom, 10, log=log) or Axis(0.0, 1.0, bottom, 10)
    if x is None:
        return None
    parts = [*_frame(sorted(set(xs)), x, y, bottom, told=bool(ys))]
    parts.append(element("text", across, x=WIDTH - 14, y=_HEIGHT - 4, class_="figure axis"))
    if math.isfinite(level):
        parts.append(stroke(f"M{_LEFT:g} {y(level):.1f}H{WIDTH - 14:g}", "reference"))
    for i, one in enumerate(series):
        by = 1.8 * (i - (len(series) - 1) / 2) if aside else 0.0
        parts.append(_line(one, x, y, bottom, by, log=log))
    return sheet(parts, _HEIGHT)


def _frame(xs: Sequence[float], x: Axis, y: Axis, bottom: float, *, told: bool) -> Iterator[Markup]:
    places = xs if len(xs) <= 9 else x.ticks()
    for tick in places:
        yield stroke(f"M{x(tick):.1f} 10V{bottom:g}", "grid")
        yield element("text", f"{tick:.6g}", x=x(tick), y=bottom + 14, class_="tick")
    for tick in y.ticks() if told else ():
        yield stroke(f"M{_LEFT:g} {y(tick):.1f}H{WIDTH - 14:g}", "grid")
        text = f"{tick:.6g}".replace("-", "−")
        yield element("text", text, x=_LEFT - 4, y=y(tick) + 4, class_="figure tick-left")
    if not told:
        yield element("text", "exactly 0", x=WIDTH / 2, y=bottom / 2, class_="tick")


def _line(one: Series, x: Axis, y: Axis, bottom: float, by: float, *, log: bool) -> Markup:
    path, parts = [], []
    for at, estimate in one.values:
        value, low, high = estimate[:3]
        place = x(at) + by
        about = f"{one.name}\n{at:g}: {value:.3g}"
        bounded = math.isfinite(low) and math.isfinite(high)
        if bounded:
            about += f", interval {low:.3g} to {high:.3g}"
        inside = [element("title", lines_of_text(about.replace("-", "−")))]
        if log and value <= 0:
            inside.append(element("circle", cx=place, cy=bottom, r=3.5, class_="mark hollow"))
            parts.append(element("g", *inside, class_="point"))
            continue
        path.append(f"{place:.1f} {y(value):.1f}")
        if bounded:
            d = f"M{place:.1f} {y(low) if low > 0 or not log else bottom:.1f}V{y(high):.1f}"
            inside.append(element("path", d=d, class_="range faint"))
        if one.method is not None:
            inside.append(mark(one.method, place, y(value), 3.4))
        parts.append(element("g", *inside, class_="point"))
    if len(path) > 1:
        parts.insert(0, element("path", d="M" + "L".join(path), class_="run"))
    return element("g", *parts, class_="no-look" if one.method is None else class_of(one.method))
