"""Reward or win rate against the KL divergence to the reference."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered
from prefbench.metrics import Metric
from prefbench.report.effects.frontier import Frontier, Point, frontiers
from prefbench.report.figures.labels import Box
from prefbench.report.page.looks import class_of, mark, method_of
from prefbench.report.page.scatter import MOST_LABELS, along, bars_of, beside
from prefbench.report.page.sheets import WIDTH, grid, lines_of_text, sheet, short, stroke, tick_text
from prefbench.report.page.svg import Axis, axis, element
from prefbench.report.tables import figure, label
from prefbench.stats.estimates import Estimate
from prefbench.store import Store

_KL = Metric("KL divergence", (), lambda sums: sums, None, "nats")
_WORTH = {
    True: Metric("reward", (), lambda sums: sums, True),
    False: Metric("win rate", (), lambda sums: sums, True, "percent"),
}
_HEIGHT = 270.0


def frontier_drawings(
    gathered: Gathered, shown: Shown, store: Store | None
) -> Iterator[tuple[Frontier, Markup]]:
    """A drawing for each comparison whose answers' divergence is known."""
    for found in frontiers(gathered, shown.board, store):
        drawing = _drawing(found, shown)
        if drawing:
            yield found, drawing


def _drawing(found: Frontier, shown: Shown) -> Markup | None:
    worth = _WORTH[found.is_reward]
    points = [point for _, some in found.runs for point in some]
    bottom = _HEIGHT - 38
    x = axis([0.0, *(v for p in points for v in p.divergence[:3])], 44, WIDTH - 14, around=0.08)
    half = [] if found.is_reward else [0.5]
    y = axis([*half, *(v for p in points for v in p.worth[:3])], bottom, 10, around=0.08)
    if x is None or y is None:
        return None
    parts = [grid(x, _KL, 10, bottom)]
    for tick in y.ticks():
        parts.append(stroke(f"M44 {y(tick):.1f}H{WIDTH - 14:g}", "grid"))
        text = tick_text(tick, worth)
        parts.append(element("text", text, x=40, y=y(tick) + 4, class_="figure tick-left"))
    if half:
        parts.append(stroke(f"M44 {y(0.5):.1f}H{WIDTH - 14:g}", "reference"))
    parts.append(
        element("text", "KL divergence, nats →", x=WIDTH - 14, y=_HEIGHT - 4, class_="figure axis")
    )
    parts.append(element("text", f"↑ {worth.name}", x=2, y=_HEIGHT - 4, class_="axis"))
    marks = []
    for run, some in found.runs:
        if len(some) > 1:
            path = "L".join(f"{x(p.divergence.value):.1f} {y(p.worth.value):.1f}" for p in some)
            line = element("path", d=f"M{path}", class_="run")
            parts.append(element("g", line, class_=class_of(run.method)))
        for point in some:
            named = element("title", lines_of_text(_about(point, worth, shown)))
            look = class_of(method_of(point.row))
            bars = [stroke(d, "range") for d in bars_of(x, y, point.divergence, point.worth)]
            parts.append(element("g", named, *bars, class_=f"point {look}"))
            size = 4.4 if point is some[-1] else 2.8
            spot = mark(method_of(point.row), x(point.divergence.value), y(point.worth.value), size)
            marks.append(element("g", named, spot, class_=f"point {look}"))
    last = [some[-1] for _, some in found.runs]
    if len(last) <= MOST_LABELS:
        parts += _names(last, x, y, shown)
    return sheet([*parts, *marks], _HEIGHT)


def _names(points: list[Point], x: Axis, y: Axis, shown: Shown) -> list[Markup]:
    names = [short(label(point.row, shown.board)) for point in points]
    at = [(x(p.divergence.value), y(p.worth.value)) for p in points]
    taken = [along(x, y, p.divergence, p.worth) for p in points]
    return beside(names, at, taken, Box(44, 38 - _HEIGHT, WIDTH - 2, -6))


def _about(point: Point, worth: Metric, shown: Shown) -> str:
    return "\n".join(
        [
            label(point.row, shown.board),
            f"KL divergence {_told(point.divergence, _KL)} nats",
            f"{worth.name} {_told(point.worth, worth)}",
        ]
    )


def _told(estimate: Estimate, metric: Metric) -> str:
    value, low, high = (figure(part, metric) for part in estimate[:3])
    return value if low == "undefined" else f"{value} [{low}, {high}]"
