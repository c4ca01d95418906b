"""The verb `compare`: rows against each other, or all rows over all tasks."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from prefbench.report.options import (
    Confidence,
    Correction,
    Corrections,
    Everything,
    Form,
    OnlyTasks,
    Results,
    TableForm,
    Width,
)

if TYPE_CHECKING:
    from prefbench.boards.contrasts import Contrast
    from prefbench.stats import corrections

EXAMPLES = (
    "Examples: prefbench compare dpo dpop · prefbench compare dpo ipo sft --task gsm8k_5shot · "
    "prefbench compare dpo dpop --correction bh --all --format csv · prefbench compare"
)


def compare(
    rows: Annotated[
        list[str] | None,
        typer.Argument(help="Rows, or methods that one row has; none: a summary over all tasks."),
    ] = None,
    results: Results = Path("results"),
    task: OnlyTasks = [],  # noqa: B006  # typer's way
    baseline: Annotated[
        str | None, typer.Option(help="Of the summary: row that differences are taken to.")
    ] = None,
    correction: Correction = Corrections.holm,
    confidence: Confidence = 0.95,
    everything: Everything = False,
    form: TableForm = Form.text,
    width: Width = None,
) -> None:
    """How rows differ, on the same items: difference, interval, corrected p, items it would take.

    With rows, each two of them on every metric. Without, all rows over all tasks: the mean and the
    interquartile mean of their differences to the baseline, each in standard deviations of an
    item's difference; rows of one method and step that differ in their seed are one row.
    """
    from prefbench.boards.contrasts import contrast
    from prefbench.boards.summary import summary_board
    from prefbench.report.collect import gather
    from prefbench.report.tables import render, terminal_width

    gathered = gather(results, tasks=task)
    columns = width or terminal_width()
    if not rows:
        board = summary_board(gathered, baseline=baseline, confidence=confidence)
        print(render(board, form.value, width=columns, correction=correction.value), end="")
        return
    found = contrast(
        gathered, rows, correction=correction.value, confidence=confidence, everything=everything
    )
    told = Told(tuple(found), correction.value, confidence)
    print(STYLES[form.value](told, columns), end="")


class Told(NamedTuple):
    """Contrasts, and how they were corrected."""

    contrasts: tuple[Contrast, ...]
    correction: corrections.Correction
    confidence: float


def _text(told: Told, width: int) -> str:
    from prefbench.report.layout import blocks_of, padded, plain, width_of

    blocks = []
    for (first, second), contrasts in _by_pair(told).items():
        names, *grid = zip(*_grid(told, first, second, contrasts), strict=True)
        names = tuple(map(plain, names))
        title = plain(f"{first} − {second}")
        for block in blocks_of(names, [[plain(cell) for cell in one] for one in grid], width):
            widths = [max(map(width_of, column)) for column in (names, *block)]
            lines = [
                "  ".join(padded(cell, size) for cell, size in zip(line, widths, strict=True))
                for line in zip(names, *block, strict=True)
            ]
            rule = "─" * min(width, sum(widths) + 2 * len(block))
            head, *body = (line.rstrip() for line in lines)
            blocks.append("\n".join([title, head, rule, *body]))
    return "\n\n".join([*blocks, "\n".join(notes_of(told))]) + "\n"


def _markdown(told: Told, width: int) -> str:
    from prefbench.report.layout import escaped, plain

    blocks = []
    for (first, second), contrasts in _by_pair(told).items():
        head, *lines = _grid(told, first, second, contrasts)
        marks = ["---", *("---:" for _ in head[1:])]
        table = [[escaped(plain(cell)) for cell in line] for line in (head, *lines)]
        table.insert(1, marks)
        title = escaped(plain(f"{first} − {second}"))
        blocks.append(
            f"**{title}**\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in table)
        )
    notes = "\n".join(f"{escaped(line)}  " for line in notes_of(told))
    return "\n\n".join([*blocks, notes]) + "\n"


def _by_pair(told: Told) -> dict[tuple[str, str], list[Contrast]]:
    pairs: dict[tuple[str, str], list[Contrast]] = {}
    for one in told.contrasts:
        pairs.setdefault((one.first, one.second), []).append(one)
    return pairs


def _grid(told: Told, first: str, second: str, contrasts: Sequence[Contrast]) -> list[list[str]]:
    from prefbench.report.tables import figure, written

    counted = any(one.only_first is not None for one in contrasts)
    head = ["", "difference", "p", "better", "items", "more items", first, second]
    lines = [[*head, "only one right"] if counted else head]
    for one in contrasts:
        metric, gap = one.column.metric, one.difference
        line = [
            f"{one.column.group.name}, {metric.title}",
            written(gap, metric, signed=True),
            p_value(one.p),
            one.better(1 - told.confidence) or "—",
            f"{gap.n} of {gap.n + gap.n_missing}" if gap.n_missing else str(gap.n),
            _more(one),
            *(figure(value.value, metric) for value in one.values),
        ]
        if counted:
            line.append("" if one.only_first is None else f"{one.only_first} : {one.only_second}")
        lines.append(line)
    return lines


def _more(one: Contrast) -> str:
    """How many more items would separate the two."""
    if one.needed is None:
        return "—"
    if one.needed == 0:
        return "" if not math.isnan(one.p) else "—"
    return f"+{one.needed:,}"


def p_value(p: float) -> str:
    """A p-value as papers write it."""
    if math.isnan(p):
        return "—"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def notes_of(told: Told) -> list[str]:
    """How to read the numbers."""
    if not told.contrasts:
        return ["Nothing to compare: no metric that two of the rows have."]
    level = f"{100 * told.confidence:.6g}%"
    n = sum(not math.isnan(one.p) for one in told.contrasts)
    s = "" if n == 1 else "s"
    correction = {
        "holm": f"by Holm's correction for {n} comparison{s}",
        "bh": f"by Benjamini and Hochberg's correction for {n} comparison{s}",
        "none": f"for no number of comparisons, though there are {n}",
    }[told.correction]
    lines = [
        f"Differences on the items that both have, with {level} bootstrap intervals; percentages "
        "for shares.",
        f"p is corrected {correction}; better: by a difference with p below "
        f"{1 - told.confidence:.2g}.",
        "More items: what would separate the two with 80% power, were the difference what it "
        "seems.",
    ]
    if any(one.only_first is not None for one in told.contrasts):
        lines.append("Only one right: items that only the first : only the second has right.")
        lines.append("p is McNemar's exact one there, and the bootstrap's elsewhere.")
    if any(one.difference.method == "unpaired" for one in told.contrasts):
        lines.append("Values that came without items are compared unpaired, by standard errors.")
    if any(one.better(1 - told.confidence) == "noise" for one in told.contrasts):
        lines.append(
            "noise: they differ, but by no more than a checkpoint measured twice did from itself."
        )
    return lines


def rows_of(told: Told) -> list[dict[str, Any]]:
    """One flat row per contrast, None where undefined."""
    return [
        {
            "first": one.first,
            "second": one.second,
            "task": one.column.group.task,
            "conditions": one.column.group.conditions or None,
            "opponent": one.column.group.opponent or None,
            "judge": one.column.group.judge or None,
            "metric": one.column.metric.name,
            "first_value": _number(one.values[0].value),
            "second_value": _number(one.values[1].value),
            "difference": _number(one.difference.value),
            "low": _number(one.difference.low),
            "high": _number(one.difference.high),
            "confidence": told.confidence,
            "standard_error": _number(one.difference.se),
            "interval": one.difference.method,
            "n": one.difference.n,
            "n_missing": one.difference.n_missing,
            "p": _number(one.difference.p),
            "p_corrected": _number(one.p),
            "correction": told.correction,
            "better": one.better(1 - told.confidence) or None,
            "items_needed": one.needed,
            "only_first_right": one.only_first,
            "only_second_right": one.only_second,
            "noise_floor": one.noise,
        }
        for one in told.contrasts
    ]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _csv(told: Told, width: int) -> str:
    from prefbench.report.layout import safe_cell

    rows = rows_of(told)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["first"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: safe_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _json(told: Told, width: int) -> str:
    return json.dumps({"notes": notes_of(told), "rows": rows_of(told)}, indent=1) + "\n"


STYLES: Mapping[str, Callable[[Told, int], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": _csv,
    "json": _json,
}
