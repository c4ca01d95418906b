"""The leaderboard as the page draws it: in every cell a bar on its column's scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup, escape

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Column, Entry, Group
from prefbench.metrics import Metric
from prefbench.records import Checkpoint
from prefbench.report.page.svg import Axis, axis, element
from prefbench.report.page.visible import visible
from prefbench.report.tables import FEW, figure, label
from prefbench.stats.estimates import Estimate

WIDTH, HEIGHT = 112.0, 9.0
"""Of a cell's bar, in pixels."""
STEEP = 6.0
"""From this ratio of the ends on, a column of perplexities has a logarithmic scale."""
MARKS = {"better": "▲", "worse": "▼", "different": "≠", "noise": "≈"}
SAID = {
    "better": "better than the baseline",
    "worse": "worse than the baseline",
    "different": "different from the baseline; neither direction is better",
    "noise": "below what the engine's noise alone can do",
}
NOTHING = Markup("")
CORRECTIONS = {"holm": "Holm", "bh": "Benjamini–Hochberg", "none": "not corrected"}


@dataclass(frozen=True)
class GroupHead:
    """What stands once above the columns of a task."""

    number: int
    task: str
    against: str
    conditions: str
    span: int


@dataclass(frozen=True)
class Head:
    """What stands above and below one column."""

    number: int
    group: int
    title: str
    better: str
    """`up`, `down`, or empty."""
    unit: str
    ends: str
    detectable: str


@dataclass(frozen=True)
class Cell:
    """One value, or why there is none."""

    group: int
    column: int
    sort: str
    """A number that a script can read; empty for a missing value."""
    value: str = ""
    interval: str = ""
    letters: str = ""
    verdict: str = ""
    mark: str = ""
    best: bool = False
    bar: Markup = NOTHING
    details: Markup = NOTHING
    """Lines for a tooltip."""
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """A checkpoint."""

    number: int
    label: str
    name: str
    method: str
    state: str
    is_baseline: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """The whole leaderboard."""

    groups: tuple[GroupHead, ...]
    heads: tuple[Head, ...]
    rows: tuple[Row, ...]
    has_detectable: bool
    has_few: bool


def table_of(shown: Shown) -> Table:
    """What the page needs of a leaderboard."""
    members = [(group, len(list(them))) for group, them in groupby(c.group for c in shown.columns)]
    numbers = {group.name: i for i, (group, _) in enumerate(members)}
    groups = [
        GroupHead(i, group.task, against(group), group.conditions, span)
        for i, (group, span) in enumerate(members)
    ]
    axes = [scale(shown, column) for column in shown.columns]
    heads = [
        _head(shown, column, i, numbers[column.group.name], axes[i])
        for i, column in enumerate(shown.columns)
    ]
    rows = [
        Row(
            number,
            label(row, shown.board),
            row.name,
            row.method or "",
            row.state,
            row.name == shown.board.baseline,
            tuple(
                _cell(shown, row, column, i, numbers[column.group.name], axes[i])
                for i, column in enumerate(shown.columns)
            ),
        )
        for number, row in enumerate(shown.board.rows)
    ]
    return Table(
        tuple(groups),
        tuple(heads),
        tuple(rows),
        any(head.detectable for head in heads),
        any(0 < entry.score.estimate.n < FEW for entry in shown.board.entries.values()),
    )


def against(group: Group) -> str:
    return f"against {group.opponent}, by {group.judge}" if group.opponent else ""


def scale(shown: Shown, column: Column) -> Axis | None:
    """One scale for all bars of a column: all values and intervals have room."""
    values = [
        value
        for row in shown.board.rows
        if (entry := shown.entry(row, column))
        for value in entry.score.estimate[:3]
    ]
    finite = [value for value in values if math.isfinite(value)]
    steep = bool(finite) and min(finite) > 0 and max(finite) > STEEP * min(finite)
    log = column.metric.unit == "perplexity" and steep
    return axis(values, 2, WIDTH - 2, log=log, around=0)


def _head(shown: Shown, column: Column, number: int, group: int, place: Axis | None) -> Head:
    metric = column.metric
    detectable = shown.detectable(column)
    return Head(
        number,
        group,
        metric.title,
        {True: "up", False: "down", None: ""}[metric.higher_is_better],
        {"percent": "%", "nats": "nats", "bits": "bits"}.get(metric.unit, ""),
        f"{figure(place.low, metric)} … {figure(place.high, metric)}"
        + (" (log)" if place.log else "")
        if place
        else "",
        size(detectable, metric) if detectable is not None and math.isfinite(detectable) else "",
    )


def size(value: float, metric: Metric) -> str:
    """A difference without its sign, with the unit that differences have."""
    points = " points" if metric.unit == "percent" else ""
    return figure(abs(value), metric) + points


def signed(value: float, metric: Metric) -> str:
    text = figure(value, metric)
    return f"+{text}" if value > 0 else text.replace("-", "−")


def _cell(
    shown: Shown, row: Checkpoint, column: Column, number: int, group: int, place: Axis | None
) -> Cell:
    entry = shown.entry(row, column)
    if entry is None:
        reason = shown.board.reason(row, column)
        lines = [_about(shown, row, column), f"missing: {reason}"]
        return Cell(group, number, "", reason=reason, details=_lines(lines))
    estimate, metric = entry.score.estimate, column.metric
    there = not math.isnan(estimate.low)
    verdict = shown.verdict(row, column)
    return Cell(
        group,
        number,
        repr(float(estimate.value)) if math.isfinite(estimate.value) else "",
        value=figure(estimate.value, metric),
        interval=f"{figure(estimate.low, metric)}, {figure(estimate.high, metric)}"
        if there
        else "",
        letters=shown.letters(row, column),
        verdict=verdict,
        mark=MARKS.get(verdict, ""),
        best=shown.in_best_group(row, column),
        bar=_bar(estimate, _baseline(shown, column), place),
        details=_lines(details_of(shown, row, column, entry)),
    )


def _baseline(shown: Shown, column: Column) -> float:
    """The baseline's value in a column, or NaN."""
    rows = [row for row in shown.board.rows if row.name == shown.board.baseline]
    entry = shown.entry(rows[0], column) if rows else None
    return entry.score.estimate.value if entry else math.nan


def _bar(estimate: Estimate, baseline: float, place: Axis | None) -> Markup:
    """The interval as a line, the value as a dot, the baseline as a hairline."""
    if place is None or not math.isfinite(estimate.value):
        return NOTHING
    middle = HEIGHT / 2
    parts = []
    if math.isfinite(baseline):
        x = place(baseline)
        parts.append(element("path", d=f"M{x:.1f} 0V{HEIGHT:g}", class_="base"))
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        low, high = place(estimate.low), place(estimate.high)
        parts.append(element("path", d=f"M{low:.1f} {middle:g}H{high:.1f}", class_="range"))
    parts.append(element("circle", cx=place(estimate.value), cy=middle, r=2.5, class_="dot"))
    box = f"0 0 {WIDTH:g} {HEIGHT:g}"
    return element("svg", *parts, viewBox=box, class_="bar", aria_hidden="true")


def _about(shown: Shown, row: Checkpoint, column: Column) -> str:
    parts = label(row, shown.board), column.group.task, against(column.group), column.metric.title
    return " · ".join(part for part in parts if part)


def details_of(shown: Shown, row: Checkpoint, column: Column, entry: Entry) -> list[str]:
    """All that is known of a value, line by line."""
    estimate, metric = entry.score.estimate, column.metric
    lines = [_about(shown, row, column)]
    level = f"{100 * shown.board.confidence:.6g}%"
    value = figure(estimate.value, metric) + (" %" if metric.unit == "percent" else "")
    if math.isnan(estimate.low):
        lines.append(f"{value}, without an interval")
    else:
        low, high = figure(estimate.low, metric), figure(estimate.high, metric)
        lines.append(f"{value}, {level} interval {low} to {high} ({estimate.method})")
    missing = f", {estimate.n_missing} missing" if estimate.n_missing else ""
    lines.append(f"n = {estimate.n} items{missing}" if estimate.n else "n is not known")
    if entry.difference is not None and row.name != shown.board.baseline:
        lines += _difference(shown, row, column, entry.difference)
    if letters := shown.letters(row, column):
        best = ", not separable from the best" if shown.in_best_group(row, column) else ""
        lines.append(f"letter group {letters}{best}")
    return lines


def _difference(shown: Shown, row: Checkpoint, column: Column, gap: Estimate) -> list[str]:
    metric = column.metric
    level = f"{100 * shown.board.confidence:.6g}%"
    said = f"difference to {shown.board.baseline}: {signed(gap.value, metric)}"
    if not math.isnan(gap.low):
        said += f", {level} interval {signed(gap.low, metric)} to {signed(gap.high, metric)}"
    unpaired = gap.method == "unpaired"
    lines = [f"{said}, {'unpaired' if unpaired else f'paired on {gap.n} shared items'}"]
    adjusted = shown.adjusted(row, column)
    if not math.isnan(gap.p):
        lines.append(f"p {_p(gap.p)}" + _corrected(shown, adjusted))
    verdict = shown.verdict(row, column)
    lines.append(SAID.get(verdict, "not separable from the baseline"))
    needed = shown.items_needed(row, column)
    if needed:
        lines.append(f"some {needed} further items would separate them, were it what it seems")
    return lines


def _corrected(shown: Shown, adjusted: float) -> str:
    if math.isnan(adjusted) or shown.correction == "none":
        return ""
    how = f"{CORRECTIONS[shown.correction]}, {shown.n_comparisons} comparisons"
    return f"; {_p(adjusted).removeprefix('= ')} corrected ({how})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _lines(lines: Sequence[str]) -> Markup:
    """Lines that stay apart in an attribute; signs inside them do not act."""
    return Markup("\n").join(escape(visible(line)) for line in lines)
