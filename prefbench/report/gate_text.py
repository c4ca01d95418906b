"""A gate's verdicts in words: as text, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prefbench.gate.gating import Gate, Outcome, Verdict
from prefbench.report.layout import escaped, padded, plain, width_of
from prefbench.report.tables import figure

MARKS: Mapping[Outcome, str] = {"pass": "✓", "regression": "✗", "inconclusive": "?", "error": "!"}


def moved(verdict: Verdict) -> str:
    """The difference with its interval, in points, percent of the baseline or the unit."""
    if verdict.difference is None:
        return "—"
    check = verdict.check

    def said(value: float) -> str:
        if check.allowed.relative:
            text, unit = f"{100 * value:.1f}", "%"
        else:
            text, unit = figure(value, check.metric), ""
        size = text.removeprefix("-")
        sign = "" if float(size) == 0 else "-" if value < 0 else "+"
        return f"{sign}{size}{unit}"

    if math.isnan(verdict.low):
        return said(verdict.difference)
    return f"{said(verdict.difference)} [{said(verdict.low)}, {said(verdict.high)}]"


def value_of(verdict: Verdict) -> str:
    """The checkpoint's value."""
    return "—" if verdict.value is None else figure(verdict.value, verdict.check.metric)


def baseline_of(verdict: Verdict) -> str:
    """The baseline's value on the same items."""
    return "—" if verdict.baseline is None else figure(verdict.baseline, verdict.check.metric)


def title_of(verdict: Verdict) -> str:
    """What was checked."""
    check = verdict.check
    return f"{check.group.name}: {check.metric.title}"


def sentence_of(verdict: Verdict) -> str:
    """A verdict that can stand alone."""
    check = verdict.check
    said = f"{check.checkpoint}, {title_of(verdict)} {check.asked}"
    if verdict.difference is not None:
        said += f"; it moved by {moved(verdict)}, from {baseline_of(verdict)}"
    return f"{said}: {verdict.outcome}" + (f" ({verdict.reason})" if verdict.reason else "")


def summary_of(gate: Gate) -> str:
    """The outcome of all, in one line."""
    counts = Counter(one.outcome for one in gate.verdicts)
    told = ", ".join(f"{counts[one]} {one}" for one in MARKS if counts[one])
    return f"{gate.outcome}: {told}; beside {gate.baseline}"


def notes_of(gate: Gate) -> list[str]:
    """What a reader must know."""
    n = len(gate.verdicts)
    level = f"{100 * gate.confidence:g}%"
    lines = [
        f"Paired differences to {gate.baseline} with {level} intervals over items. A check passes "
        "if its interval lies within what is allowed, and is a regression if the interval at "
        f"{100 * (1 - (1 - gate.confidence) / n):.4g}% (corrected for {n} checks) lies beyond."
    ]
    return lines + [f"{note}." for note in gate.notes]


HEADS = ("", "what", "baseline", "value", "difference", "asked", "why")


def _cells(one: Verdict) -> tuple[str, ...]:
    return (
        f"{MARKS[one.outcome]} {one.outcome}",
        title_of(one),
        baseline_of(one),
        value_of(one),
        moved(one),
        one.check.asked,
        one.reason,
    )


def as_text(gate: Gate) -> str:
    """The verdicts of each checkpoint, what is to be known, and the outcome last."""
    grid = [HEADS, *([plain(cell) for cell in _cells(one)] for one in gate.verdicts)]
    widths = [max(map(width_of, column)) for column in zip(*grid, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(padded(cell, w) for cell, w in zip(cells, widths, strict=True)).rstrip()

    lines = [line(HEADS)]
    before = ""
    for one, cells in zip(gate.verdicts, grid[1:], strict=True):
        if one.check.checkpoint != before:
            before = one.check.checkpoint
            name = plain(before)
            lines.append(f"── {name} {'─' * max(0, len(lines[0]) - width_of(name) - 4)}")
        lines.append(line(cells))
    notes = [plain(note) for note in notes_of(gate)]
    return "\n".join([*lines, "", *notes, "", plain(summary_of(gate))]) + "\n"


def as_markdown(gate: Gate) -> str:
    """The same for a page."""
    lines = [
        ("checkpoint", *HEADS),
        ["---"] * (1 + len(HEADS)),
        *(
            [escaped(plain(cell)) for cell in (one.check.checkpoint, *_cells(one))]
            for one in gate.verdicts
        ),
    ]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = "\n".join(f"{escaped(plain(note))}  " for note in notes_of(gate))
    return f"**{escaped(plain(summary_of(gate)))}**\n\n{table}\n\n{notes}\n"


def as_json(gate: Gate) -> str:
    """Everything."""
    # ASCII: it cannot steer a terminal
    return json.dumps(facts_of(gate), indent=1, allow_nan=False) + "\n"


def facts_of(gate: Gate) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "outcome": gate.outcome,
        "exit_code": gate.exit_code,
        "baseline": gate.baseline,
        "confidence": gate.confidence,
        "n_checks": len(gate.verdicts),
        "notes": list(gate.notes),
        "checks": [_row(one) for one in gate.verdicts],
    }


def _row(one: Verdict) -> dict[str, Any]:
    check = one.check
    return {
        "checkpoint": check.checkpoint,
        "task": check.group.task,
        "conditions": check.group.conditions or None,
        "opponent": check.group.opponent or None,
        "judge": check.group.judge or None,
        "metric": check.metric.name,
        "rule": check.rule,
        "asked": check.asked,
        "require": check.require,
        "higher_is_better": check.higher_is_better,
        "relative": check.allowed.relative,
        "threshold": check.threshold,
        "outcome": one.outcome,
        "reason": one.reason or None,
        "value": one.value,
        "baseline": one.baseline,
        "difference": one.difference,
        "low": _number(one.low),
        "high": _number(one.high),
        "corrected_low": _number(one.corrected_low),
        "corrected_high": _number(one.corrected_high),
        "n": one.n,
        "n_needed": one.n_needed,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
