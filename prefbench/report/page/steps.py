"""Metrics along the steps of a training, of which several checkpoints were measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Column
from prefbench.metrics import Metric
from prefbench.provenance import run_folder
from prefbench.records import Checkpoint
from prefbench.report.page.looks import class_of, mark, method_of
from prefbench.report.page.sheets import (
    WIDTH,
    Figure,
    grid,
    lines_of_text,
    sheet,
    stroke,
    tick_text,
    title_of,
    tooltip,
)
from prefbench.report.page.svg import Axis, axis, element


def trajectories(shown: Shown) -> Iterator[Figure]:
    """Metrics along the steps of runs of which several checkpoints are here."""
    runs: dict[tuple[str, str, int], list[Checkpoint]] = {}
    for row in shown.board.rows:
        if row.step is not None:
            run = str(run_folder(row.path) or row.path)
            runs.setdefault((method_of(row), run, row.seed or 0), []).append(row)
    several = [sorted(run, key=lambda one: one.step or 0) for run in runs.values() if len(run) > 1]
    for column in shown.columns if several else ():
        drawing = _trajectory(shown, column, several)
        if drawing:
            yield Figure(
                "training steps",
                column.group.name,
                f"{title_of(column.group)}: {column.metric.title}",
                "Along the steps of training, with intervals"
                + ("; the line is the baseline." if shown.board.baseline else "."),
                drawing,
            )


def _trajectory(
    shown: Shown, column: Column, runs: Sequence[Sequence[Checkpoint]]
) -> Markup | None:
    measured = [
        [(row, entry.score.estimate) for row in run if (entry := shown.entry(row, column))]
        for run in runs
    ]
    points = [point for run in measured if len(run) > 1 for point in run]
    base = [row for row in shown.board.rows if row.name == shown.board.baseline]
    standing = shown.entry(base[0], column) if base else None
    at = standing.score.estimate.value if standing else math.nan
    height = 210.0
    x = axis([float(row.step or 0) for row, _ in points], 52, WIDTH - 14)
    y = axis([v for _, one in points for v in one[:3]] + [at], height - 38, 10)
    if x is None or y is None:
        return None
    steps = Metric("step", (), lambda sums: sums, None)
    parts = [grid(x, steps, 10, height - 38)]
    for tick in y.ticks():
        parts.append(stroke(f"M52 {y(tick):.1f}H{WIDTH - 14}", "grid"))
        text = tick_text(tick, column.metric)
        parts.append(element("text", text, x=48, y=y(tick) + 4, class_="figure tick-left"))
    parts.append(element("text", "step →", x=WIDTH - 14, y=height - 4, class_="figure axis"))
    if math.isfinite(at):
        parts.append(stroke(f"M52 {y(at):.1f}H{WIDTH - 14}", "reference"))
    parts += [
        _run(shown, column, [row for row, _ in run], x, y) for run in measured if len(run) > 1
    ]
    return sheet(parts, height)


def _run(shown: Shown, column: Column, run: Sequence[Checkpoint], x: Axis, y: Axis) -> Markup:
    parts = []
    path = []
    for row in run:
        entry = shown.entry(row, column)
        if entry is None or not math.isfinite(entry.score.estimate.value):
            continue
        value, low, high = entry.score.estimate[:3]
        at = x(float(row.step or 0))
        path.append(f"{at:.1f} {y(value):.1f}")
        inside = [element("title", lines_of_text(tooltip(shown, row, column)))]
        if math.isfinite(low) and math.isfinite(high):
            d = f"M{at:.1f} {y(low):.1f}V{y(high):.1f}"
            inside.append(element("path", d=d, class_="range"))
        inside.append(mark(method_of(row), at, y(value), 3.8))
        parts.append(element("g", *inside, class_="point"))
    if len(path) > 1:
        parts.insert(0, element("path", d="M" + "L".join(path), class_="run"))
    return element("g", *parts, class_=class_of(method_of(run[0])))
