"""Perplexity against agility: the two are read together, as either alone misleads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from markupsafe import Markup

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Column
from prefbench.report.figures.labels import Box, nearest, place
from prefbench.report.page.looks import class_of, mark, method_of
from prefbench.report.page.sheets import (
    LETTER,
    WIDTH,
    Figure,
    column_named,
    grid,
    groups_of,
    lines_of_text,
    sheet,
    short,
    stroke,
    tick_text,
    title_of,
    tooltip,
)
from prefbench.report.page.svg import Axis, axis, element
from prefbench.report.tables import label
from prefbench.stats.bootstrap import Array
from prefbench.stats.estimates import Estimate

FAR = 12.0
"""Pixels from which on a line leads from a point to its name."""
MOST_LABELS = 24
"""Points that are named beside them; with more, only tooltips say who is who."""


def scatters(shown: Shown) -> Iterator[Figure]:
    for group in groups_of(shown):
        across, up = (column_named(shown, group, name) for name in ("perplexity.v1", "agility.v1"))
        if across is None or up is None:
            continue
        drawing = _scatter(shown, across, up)
        if drawing:
            yield Figure(
                "perplexity and agility",
                group.name,
                title_of(group),
                "Perplexity to the right (logarithmic; left is better), agility upwards, with the "
                "interval of each.",
                drawing,
            )


def _scatter(shown: Shown, across: Column, up: Column) -> Markup | None:
    rows = [
        (row, first.score.estimate, second.score.estimate)
        for row in shown.board.rows
        if (first := shown.board.entry(row, across)) and (second := shown.board.entry(row, up))
        if math.isfinite(first.score.estimate.value) and math.isfinite(second.score.estimate.value)
    ]
    height = 270.0
    x = axis([v for _, one, _ in rows for v in one[:3]], 44, WIDTH - 14, log=True, around=0.08)
    y = axis([v for _, _, two in rows for v in two[:3]], height - 38, 10, around=0.08)
    if x is None or y is None:
        return None
    parts = [grid(x, across.metric, 10, height - 38)]
    for tick in y.ticks():
        parts.append(stroke(f"M44 {y(tick):.1f}H{WIDTH - 14}", "grid"))
        parts.append(
            element(
                "text", tick_text(tick, up.metric), x=40, y=y(tick) + 4, class_="figure tick-left"
            )
        )
    parts.append(element("text", "perplexity →", x=WIDTH - 14, y=height - 4, class_="figure axis"))
    parts.append(element("text", "↑ agility, nats", x=2, y=height - 4, class_="axis"))
    # Names lie over the intervals and below the marks.
    marks = []
    for row, one, two in rows:
        about = f"{tooltip(shown, row, across)}\n\n{tooltip(shown, row, up)}"
        named, look = element("title", lines_of_text(about)), class_of(method_of(row))
        bars = [stroke(d, "range") for d in bars_of(x, y, one, two)]
        parts.append(element("g", named, *bars, class_=f"point {look}"))
        spot = mark(method_of(row), x(one.value), y(two.value), 4.4)
        marks.append(element("g", named, spot, class_=f"point {look}"))
    if len(rows) <= MOST_LABELS:
        names = [short(label(row, shown.board)) for row, _, _ in rows]
        at = [(x(one.value), y(two.value)) for _, one, two in rows]
        taken = [along(x, y, one, two) for _, one, two in rows]
        parts += beside(names, at, taken, Box(44, 38 - height, WIDTH - 2, -6))
    return sheet([*parts, *marks], height)


def bars_of(x: Axis, y: Axis, one: Estimate, two: Estimate) -> Iterator[str]:
    """The intervals of a point, as paths."""
    if math.isfinite(one.low) and math.isfinite(one.high):
        yield f"M{x(one.low):.1f} {y(two.value):.1f}H{x(one.high):.1f}"
    if math.isfinite(two.low) and math.isfinite(two.high):
        yield f"M{x(one.value):.1f} {y(two.low):.1f}V{y(two.high):.1f}"


def along(x: Axis, y: Axis, one: Estimate, two: Estimate) -> Array:
    """Places on the intervals of a point, (n, 2), upwards, which names should not lie on."""
    places = [
        *((x(value), y(two.value)) for value in np.linspace(one.low, one.high, 12)),
        *((x(one.value), y(value)) for value in np.linspace(two.low, two.high, 12)),
    ]
    found = [(a, -b) for a, b in places if math.isfinite(a) and math.isfinite(b)]
    return np.array(found).reshape(-1, 2)  # of a single item there is no interval


def beside(
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    taken: Sequence[Array],
    frame: Box,
) -> list[Markup]:
    """Names beside their points where there is room, with a line from those far off."""
    upwards = np.array([(x, -y) for x, y in points])
    found = place(
        upwards, [(len(name) * LETTER + 6, 11.0) for name in names], frame, outlines=taken
    )
    parts = []
    for name, point, box in zip(names, upwards, found, strict=True):
        if box is None:
            continue
        x, y = nearest(point, box)
        if math.dist(point, (x, y)) > FAR:
            parts.append(stroke(f"M{point[0]:.1f} {-point[1]:.1f}L{x:.1f} {-y:.1f}", "leader"))
        parts.append(element("text", name, x=box.left + 3, y=-box.bottom - 2, class_="label"))
    return parts
