"""Figures with a row per checkpoint: win rates, accuracies, and differences to the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Column
from prefbench.metrics import Metric
from prefbench.records import Checkpoint
from prefbench.report.page.looks import class_of, mark, method_of
from prefbench.report.page.sheets import (
    LETTER,
    WIDTH,
    Figure,
    Write,
    grid,
    lines_of_text,
    sheet,
    short,
    stroke,
    title_of,
    tooltip,
)
from prefbench.report.page.svg import Axis, axis, element
from prefbench.report.page.table import signed
from prefbench.report.tables import figure, label

LINE = 17.0
"""Height of a row, in pixels."""
MARGIN = 6.0


@dataclass(frozen=True)
class Line:
    """A row of a figure: a value with its interval."""

    label: str
    method: str
    value: float
    low: float
    high: float
    tooltip: str
    filled: bool = True
    beside: float = math.nan
    """What the value is to be held against, as a stroke; NaN for none."""


def rates(shown: Shown) -> Iterator[Figure]:
    for column in shown.columns:
        if column.metric.name.partition(".")[0] in ("win_rate", "lc_win_rate"):
            drawing = interval_rows(_lines(shown, column), column.metric, 0.5, bars=True)
            if drawing:
                yield Figure(
                    "win rates",
                    column.group.name,
                    f"{title_of(column.group)}: {column.metric.title}",
                    "Win rates in percent with their intervals; the line is one half.",
                    drawing,
                )


def accuracies(shown: Shown) -> Iterator[Figure]:
    for column in shown.columns:
        if column.metric.proportion and not column.group.opponent:
            lines = _lines(shown, column)
            base = [line for line, row in lines if row.name == shown.board.baseline]
            at = base[0].value if base else math.nan
            drawing = interval_rows(lines, column.metric, at)
            if drawing:
                yield Figure(
                    "accuracy",
                    column.group.name,
                    f"{title_of(column.group)}: {column.metric.title}",
                    "Percent with intervals" + ("; the line is the baseline." if base else "."),
                    drawing,
                )


def forests(shown: Shown) -> Iterator[Figure]:
    for column in shown.columns:
        lines = []
        for row in shown.board.rows:
            entry = shown.entry(row, column)
            gap = entry.difference if entry else None
            if gap is None or row.name == shown.board.baseline:
                continue
            stands = shown.verdict(row, column) not in ("", "noise")
            line = Line(
                label(row, shown.board),
                method_of(row),
                gap.value,
                gap.low,
                gap.high,
                tooltip(shown, row, column),
                stands,
            )
            lines.append((line, row))
        drawing = interval_rows(lines, column.metric, 0.0, write=signed)
        if drawing:
            yield Figure(
                "differences",
                column.group.name,
                f"{title_of(column.group)}: {column.metric.title}",
                f"Paired differences to {shown.board.baseline}; filled dots stand after the "
                "correction, the line is no difference.",
                drawing,
            )


def _lines(shown: Shown, column: Column) -> list[tuple[Line, Checkpoint]]:
    """A line for each checkpoint that has the value."""
    found = []
    for row in shown.board.rows:
        if entry := shown.entry(row, column):
            value, low, high = entry.score.estimate[:3]
            about = tooltip(shown, row, column)
            line = Line(label(row, shown.board), method_of(row), value, low, high, about)
            found.append((line, row))
    return found


def interval_rows(
    lines: Sequence[tuple[Line, Checkpoint]],
    metric: Metric,
    reference: float,
    *,
    bars: bool = False,
    write: Write = figure,
) -> Markup | None:
    """A row per checkpoint: its name, its interval, its value in figures.

    Args:
        lines: what to draw.
        metric: whose unit the axis has.
        reference: where a line is drawn from top to bottom; NaN for none.
        bars: from the reference to the value.
        write: a number on the axis and at a row's end.
    """
    there = [line for line, _ in lines if math.isfinite(line.value)]
    left = MARGIN + min(max((len(line.label) for line in there), default=0) * LETTER + 8, 140)
    right = WIDTH - 56
    values = [v for line in there for v in (line.value, line.low, line.high, line.beside)]
    values.append(reference)
    scale = axis(values, left + 8, right - 8)
    if scale is None or not there:
        return None
    height = MARGIN + LINE * len(there) + 22
    parts = [grid(scale, metric, MARGIN, height - 20, write)]
    if math.isfinite(reference):
        x = scale(reference)
        parts.append(stroke(f"M{x:.1f} {MARGIN}V{height - 20:.1f}", "reference"))
    for number, line in enumerate(there):
        y = MARGIN + LINE * (number + 0.5)
        from_ = scale(reference) if bars and math.isfinite(reference) else None
        parts.append(_row(line, scale, y, left, write(line.value, metric), from_))
    return sheet(parts, height)


def _row(line: Line, scale: Axis, y: float, left: float, said: str, from_: float | None) -> Markup:
    x = scale(line.value)
    parts = [element("title", lines_of_text(line.tooltip))]
    parts.append(element("rect", x=0, y=y - LINE / 2, width=WIDTH, height=LINE, class_="hit"))
    parts.append(element("text", short(line.label, 21), x=left, y=y + 4, class_="name"))
    if from_ is not None:
        start, width = min(from_, x), abs(x - from_)
        parts.append(element("rect", x=start, y=y - 4, width=width, height=8, class_="fill"))
    if math.isfinite(line.beside):
        parts.append(
            stroke(f"M{scale(line.beside):.1f} {y - LINE / 2:.1f}v{LINE:g}", "reference-of-row")
        )
    if math.isfinite(line.low) and math.isfinite(line.high):
        d = f"M{scale(line.low):.1f} {y:.1f}H{scale(line.high):.1f}"
        parts.append(element("path", d=d, class_="range"))
    parts.append(mark(line.method, x, y, 3.8, "mark" if line.filled else "mark hollow"))
    parts.append(element("text", said, x=WIDTH - 2, y=y + 4, class_="figure"))
    return element("g", *parts, class_=f"row {class_of(line.method)}")
