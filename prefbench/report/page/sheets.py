"""What the page's figures are made of: a sheet, a grid, and what is said of a point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup, escape

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Column, Group
from prefbench.metrics import Metric
from prefbench.records import Checkpoint
from prefbench.report.page.svg import Axis, element, joined
from prefbench.report.page.table import against, details_of, signed
from prefbench.report.page.visible import visible
from prefbench.report.tables import figure

WIDTH = 380.0
"""Of a figure, in pixels where the page gives it all the room it wants."""
LETTER = 6.2
"""Width of a letter of the labels, about."""
Write: TypeAlias = Callable[[float, Metric], str]


@dataclass(frozen=True)
class Figure:
    """A drawing with what it shows, and what it shows in a sentence."""

    kind: str
    group: str
    title: str
    caption: str
    drawing: Markup


def column_named(shown: Shown, group: Group, name: str) -> Column | None:
    columns = [c for c in shown.board.columns if c.group.name == group.name]
    return next((c for c in columns if c.metric.name == name), None)


def groups_of(shown: Shown) -> list[Group]:
    return list({column.group.name: column.group for column in shown.columns}.values())


def title_of(group: Group) -> str:
    parts = group.task, against(group), group.conditions
    return ", ".join(part for part in parts if part)


def tooltip(shown: Shown, row: Checkpoint, column: Column) -> str:
    entry = shown.entry(row, column)
    return "\n".join(details_of(shown, row, column, entry)) if entry else ""


def grid(scale: Axis, metric: Metric, top: float, bottom: float, write: Write = figure) -> Markup:
    """Hairlines with their values below."""
    parts = []
    for tick in scale.ticks():
        x = scale(tick)
        parts.append(stroke(f"M{x:.1f} {top:.1f}V{bottom:.1f}", "grid"))
        text = tick_text(tick, metric, write)
        parts.append(element("text", text, x=x, y=bottom + 14, class_="tick"))
    return joined(parts)


def tick_text(value: float, metric: Metric, write: Write | None = None) -> str:
    shown = 100 * value if metric.unit == "percent" else value
    text = f"{shown:.6g}".replace("-", "−")
    return f"+{text}" if write is signed and value > 0 else text


def sheet(parts: Sequence[Markup], height: float) -> Markup:
    """A drawing that is as wide as the page lets it be."""
    return element("svg", *parts, viewBox=f"0 0 {WIDTH:g} {height:g}", class_="drawing", role="img")


def stroke(d: str, kind: str) -> Markup:
    return element("path", d=d, class_=kind)


def short(text: str, most: int = 26) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def lines_of_text(text: str) -> Markup:
    return Markup("\n").join(escape(visible(line)) for line in text.split("\n"))
