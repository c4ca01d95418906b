"""A run over its training steps, or a chain over its iterates, as text, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefbench.leaderboard import Column
from prefbench.records import Checkpoint
from prefbench.report.layout import blocks_of, escaped, padded, plain, safe_cell, width_of
from prefbench.report.tables import written
from prefbench.steps.trajectory import Selected, Trajectory

MARKS = {"better": "▲", "worse": "▼", "different": "≠", "noise": "≈", "": ""}
BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None]) -> str:
    """Values as bars from their least to their largest; a point where there is none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return ""
    least, most = min(known), max(known)
    scale = (len(BARS) - 1) / (most - least) if most > least else 0.0
    return "".join(
        BARS[round((value - least) * scale)] if value is not None and math.isfinite(value) else "·"
        for value in values
    )


def sentences_of(found: Trajectory) -> list[str]:
    """First steps that are worse, the best step, and what else must be known."""
    unit = found.unit
    level = f"{100 * found.board.confidence:g}%"
    lines = [f"Values with {level} bootstrap intervals over items; percentages for shares."]
    if found.reference is not None:
        lines.append(
            f"▲ better, ▼ worse, ≠ different from {found.reference}: paired on the same items, "
            f"tested at {100 - 100 * found.board.confidence:g}% with Holm's correction for the "
            f"{unit}s of each column."
        )
        if any("noise" in _verdicts(found, s, c) for s in found.steps for c in found.columns):
            lines.append(
                "≈ differs, but by no more than a checkpoint that was measured twice did from "
                "itself."
            )
        lines += [line for column in found.columns if (line := _first_worse(found, column))]
    changes = [line for column in found.columns if (line := _changes(found, column))]
    if changes:
        lines.append(
            "Each against the one before (▲ better, ▼ worse, ≠ different), paired on the same "
            "items and with Holm's correction for the changes of each column:"
        )
        lines += changes
    if found.selected is not None and len(found.selected.steps) > 1:
        lines += _best(found.selected, level, unit)
    return lines + [f"{note}." for note in found.notes]


def _verdicts(found: Trajectory, step: Checkpoint, column: Column) -> tuple[str, str]:
    return found.verdict(step, column), found.verdict_of_change(step, column)


def _changes(found: Trajectory, column: Column) -> str:
    """How each iterate differs from the one before; nothing where none was compared."""
    known = [
        f"{found.iteration(step)} {written(change.difference, column.metric, signed=True)}"
        f"{MARKS[found.verdict_of_change(step, column)]}"
        for step in found.steps
        if (change := found.changes.get((step.name, column.key)))
    ]
    title = f"{column.group.name}, {_metric_of(column)}"
    return f"{title}: iteration {'; '.join(known)}." if known else ""


def _first_worse(found: Trajectory, column: Column) -> str:
    """When a metric first gets worse; nothing where neither direction is."""
    if column.metric.higher_is_better is None:
        return ""
    title = f"{column.group.name}, {_metric_of(column)}"
    first = found.first_worse(column)
    if first is None:
        return f"{title}: no {found.unit} is significantly worse than {found.reference}."
    measured = [step for step in found.steps if found.entry(step, column)]
    later = ""
    if first != measured[-1]:
        later = (
            ", and so are all after it"
            if found.stays_worse(column)
            else (", but not all after it are")
        )
    which = _step_of(found, first)
    return f"{title}: the first {found.unit} that is significantly worse is {which}{later}."


def _best(selected: Selected, level: str, unit: str) -> list[str]:
    metric, choice = selected.column.metric, selected.choice
    title = f"{selected.column.group.name}, {_metric_of(selected.column)}"
    lines = [
        f"Best {unit} by {title}: {selected.best}, {written(choice.naive, metric)}; corrected for "
        f"the choice among {len(selected.steps)} {unit}s {written(choice.corrected, metric)}."
    ]
    if len(selected.alike) == 1:
        lines.append(f"It is the best at {level}: no other {unit} may be as good.")
    else:
        others = ", ".join(name for name in selected.alike if name != selected.best)
        lines.append(f"May be as good, at {level} and corrected for the {unit}s: {others}.")
        if selected.earliest != selected.best:
            lines.append(
                f"The earliest of these is {selected.earliest}: nothing shows that training on "
                "from there gains anything by this metric."
            )
    return lines


def _metric_of(column: Column) -> str:
    return column.metric.name.partition(".v")[0]


def _step_of(found: Trajectory, step: Checkpoint) -> str:
    if found.iterations:
        return f"{step.name} (iteration {found.iteration(step)})"
    return f"{step.name} (step {step.step})" if step.step is not None else step.name


def _grid(found: Trajectory) -> tuple[list[list[str]], list[str]]:
    """Columns with their heads, steps, reference and a sparkline; reasons of what is missing.

    What a chain of iterates began with is its iteration 0, and stands first.
    """
    reasons: dict[str, int] = {}
    rows = [row for row in found.board.rows if row.name == found.reference]
    first = [_title(found, step) for step in found.steps]
    if rows and found.reference == found.start:
        first = [f"0 {found.start}, reference", *first]
        rows = [*rows, *found.steps]
    elif rows:
        first = [*first, f"reference {found.reference}"]
        rows = [*found.steps, *rows]
    else:
        rows = [*found.steps]
    grid = [["", found.unit, *first, ""]]
    for column in found.columns:
        cells = []
        for row in rows:
            entry = found.entry(row, column)
            if entry is None:
                why = found.board.reason(row, column)
                cells.append(f"— ({reasons.setdefault(why, len(reasons) + 1)})")
            else:
                mark = MARKS[found.verdict(row, column)]
                cells.append(written(entry.score.estimate, column.metric) + mark)
        head = [column.group.name, column.metric.title]
        grid.append([*head, *cells, sparkline(_values(found, column))])
    return grid, [f"({number}) {reason}" for reason, number in reasons.items()]


def _title(found: Trajectory, step: Checkpoint) -> str:
    """The step or iteration, and the row's name where it says more."""
    if found.iterations:
        return f"{found.iteration(step)} {step.name}"
    if step.step is None:
        return step.name
    usual = step.name.rpartition("/")[2] == f"checkpoint-{step.step}"
    return str(step.step) if usual else f"{step.step} {step.name}"


def _values(found: Trajectory, column: Column) -> list[float | None]:
    entries = [found.entry(step, column) for step in found.steps]
    return [entry.score.estimate.value if entry else None for entry in entries]


def _headline(found: Trajectory) -> str:
    if not found.iterations:
        return f"Run {found.run}"
    chain = " → ".join([*([found.start] if found.start else []), *(s.name for s in found.steps)])
    return f"Iterates {chain}"


# --- formats


def _text(found: Trajectory, width: int) -> str:
    grid, reasons = _grid(found)
    first, *columns = ([plain(cell) for cell in column] for column in grid)
    blocks = []
    for block in blocks_of(first, columns, width):
        widths = [max(map(width_of, column)) for column in (first, *block)]
        lines = [
            "  ".join(padded(text, w) for text, w in zip(line, widths, strict=True)).rstrip()
            for line in zip(first, *block, strict=True)
        ]
        rule = "─" * min(width, sum(widths) + 2 * len(block))
        blocks.append("\n".join([*lines[:2], rule, *lines[2:]]))
    said = [plain(line) for line in (*sentences_of(found), *reasons)]
    return "\n\n".join([plain(_headline(found)), *blocks, "\n".join(said)]) + "\n"


def _markdown(found: Trajectory, width: int) -> str:
    grid, reasons = _grid(found)
    columns = [[escaped(plain(cell)) for cell in column] for column in grid]
    heads = ["<br>".join(part for part in column[:2] if part) for column in columns]
    lines = [heads, ["---", *("---:" for _ in columns[1:])]]
    lines += [list(line) for line in zip(*(column[2:] for column in columns), strict=True)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    said = "\n".join(f"{escaped(plain(s))}  " for s in (*sentences_of(found), *reasons))
    return f"**{escaped(plain(_headline(found)))}**\n\n{table}\n\n{said}\n"


def rows_of(found: Trajectory) -> list[dict[str, Any]]:
    """One flat row per step and metric, also for what is missing; shares from 0 to 1."""
    return [_row(found, step, column) for step in found.steps for column in found.columns]


def _row(found: Trajectory, step: Checkpoint, column: Column) -> dict[str, Any]:
    entry = found.entry(step, column)
    estimate = entry.score.estimate if entry else None
    gap = entry.difference if entry else None
    change = found.changes.get((step.name, column.key))
    chosen = found.selected if found.selected and found.selected.column.key == column.key else None
    return {
        "run": found.run,
        "checkpoint": step.name,
        "step": step.step,
        "iteration": found.iteration(step),
        "task": column.group.task,
        "conditions": column.group.conditions or None,
        "opponent": column.group.opponent or None,
        "judge": column.group.judge or None,
        "metric": column.metric.name,
        "higher_is_better": column.metric.higher_is_better,
        "value": _number(estimate.value) if estimate else None,
        "low": _number(estimate.low) if estimate else None,
        "high": _number(estimate.high) if estimate else None,
        "confidence": found.board.confidence,
        "n": estimate.n if estimate else None,
        "reference": found.reference if gap else None,
        "difference": _number(gap.value) if gap else None,
        "difference_low": _number(gap.low) if gap else None,
        "difference_high": _number(gap.high) if gap else None,
        "p_corrected": _number(found.adjusted.get((step.name, column.key), math.nan)),
        "verdict": found.verdict(step, column) or None,
        "previous": change.previous if change else None,
        "change": _number(change.difference.value) if change else None,
        "change_low": _number(change.difference.low) if change else None,
        "change_high": _number(change.difference.high) if change else None,
        "change_p_corrected": _number(change.p_corrected) if change else None,
        "change_verdict": found.verdict_of_change(step, column) or None,
        "best": step.name == chosen.best if chosen else None,
        "may_be_best": step.name in chosen.alike if chosen else None,
        "missing": None if entry else found.board.reason(step, column),
    }


def _csv(found: Trajectory, width: int) -> str:
    rows = rows_of(found)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: safe_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _json(found: Trajectory, width: int) -> str:
    firsts = [(column, found.first_worse(column)) for column in found.columns]
    whole = {
        "run": found.run,
        "reference": found.reference,
        "confidence": found.board.confidence,
        "start": found.start,
        "steps": [
            {"checkpoint": step.name, "step": step.step, "iteration": found.iteration(step)}
            for step in found.steps
        ],
        "first_worse": [
            {
                "task": column.group.name,
                "metric": column.metric.name,
                "checkpoint": first.name if first else None,
                "step": first.step if first else None,
                "stays_worse": found.stays_worse(column) if first else None,
            }
            for column, first in firsts
        ],
        "selected": _selected(found.selected) if found.selected else None,
        "notes": list(found.notes),
        "rows": rows_of(found),
    }
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"  # ASCII: it cannot steer a terminal


def _selected(selected: Selected) -> dict[str, Any]:
    choice = selected.choice
    return {
        "task": selected.column.group.name,
        "metric": selected.column.metric.name,
        "chosen_from": list(selected.steps),
        "best": selected.best,
        "may_be_best": list(selected.alike),
        "earliest": selected.earliest,
        "value": _number(choice.naive.value),
        "corrected": _number(choice.corrected.value),
        "corrected_low": _number(choice.corrected.low),
        "corrected_high": _number(choice.corrected.high),
        "share_of_resamples": [_number(float(share)) for share in choice.chosen],
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


STYLES: Mapping[str, Callable[[Trajectory, int], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": _csv,
    "json": _json,
}
