"""The leaderboard as text, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefbench.boards.shown import Shown, show
from prefbench.errors import InputError
from prefbench.leaderboard import Board, Column, Group
from prefbench.metrics import Metric
from prefbench.records import METHODS, Checkpoint
from prefbench.report.layout import blocks_of, escaped, padded, plain, safe_cell, width_of
from prefbench.stats.corrections import Correction
from prefbench.stats.estimates import Estimate
from prefbench.stats.winrate import FEWEST

MARKS = {"better": "▲", "worse": "▼", "different": "≠", "noise": "≈", "": ""}

FEW = 30
"""Items below which a bootstrap interval is known to cover less than it says."""


def render(
    board: Board,
    style: str = "text",
    *,
    width: int = 100,
    everything: bool = False,
    correction: Correction = "holm",
) -> str:
    """A leaderboard as text.

    Args:
        board: what to show.
        style: one of STYLES.
        width: of a text table's blocks, in characters.
        everything: all metrics; else those that the tasks show. CSV and JSON always hold all, and
            correct those that would be shown.
        correction: of the comparisons that are shown, for their number.

    Raises:
        InputError: there is no such style, or no such correction.
    """
    if style not in STYLES:
        raise InputError(f"no table format is named {style!r}; there are: {', '.join(STYLES)}")
    return STYLES[style](show(board, everything=everything, correction=correction), width)


def _text(shown: Shown, width: int) -> str:
    """Blocks of columns that fit the width, each with the rows' names."""
    board, columns = shown.board, shown.columns
    notes = _Notes(shown)
    heads = _heads(columns)
    n_heads = len(heads[0]) if heads else 0
    names, feet = _feet(shown)
    n_feet = len(names)
    first = [
        *[""] * n_heads,
        *(plain(label(row, board)) for row in board.rows),
        *names,
    ]
    grid = [
        [*head, *(notes.cell(row, column) for row in board.rows), *foot]
        for head, column, foot in zip(heads, columns, feet, strict=True)
    ]
    blocks = []
    for block in blocks_of(first, grid, width):
        widths = [max(map(width_of, column)) for column in (first, *block)]
        lines = [
            "  ".join(padded(text, w) for text, w in zip(line, widths, strict=True)).rstrip()
            for line in zip(*_once(first, block, n_heads), strict=True)
        ]
        rule = "─" * min(width, sum(widths) + 2 * len(block))
        above = [line for line in lines[:n_heads] if line.strip()]
        body, foot = lines[n_heads:-n_feet], lines[-n_feet:]
        blocks.append("\n".join([*above, rule, *body, rule.replace("─", "╌"), *foot]))
    return "\n\n".join([*blocks, "\n".join(notes.lines())]) + "\n"


def _heads(columns: Sequence[Column]) -> list[list[str]]:
    """Task, opponent and conditions where any column has some, and metric, above each column."""
    judged = any(column.group.opponent for column in columns)
    stamped = any(column.group.conditions for column in columns)
    return [
        [
            plain(column.group.task),
            *([plain(_against(column.group))] if judged else []),
            *([plain(column.group.conditions)] if stamped else []),
            plain(column.metric.title),
        ]
        for column in columns
    ]


def _feet(shown: Shown) -> tuple[list[str], list[list[str]]]:
    """Names of the lines below a table's rows, and what stands there under each column."""
    feet = [_foot(shown, column) for column in shown.columns]
    names = ["items", "detectable", "noise"]
    used = [at for at in range(len(names)) if at == 0 or any(foot[at] for foot in feet)]
    return [names[at] for at in used], [[foot[at] for at in used] for foot in feet]


def _foot(shown: Shown, column: Column) -> tuple[str, str, str]:
    """How many items a column has, the difference that they show, and the engine's noise."""
    entries = [shown.entry(row, column) for row in shown.board.rows]
    # 0: nobody said how many, or there is no value.
    counts = sorted({entry.score.estimate.n for entry in entries if entry} - {0})
    n = f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else "".join(map(str, counts))
    least, noise = shown.detectable(column), shown.board.noise.get(column.key)
    return (
        n,
        "" if least is None else f"±{figure(least, column.metric)}",
        "" if noise is None else f"±{figure(noise, column.metric)}",
    )


def _against(group: Group) -> str:
    return f"vs {group.opponent}, {group.judge}" if group.opponent else ""


def _once(
    first: Sequence[str], block: Sequence[Sequence[str]], n_heads: int
) -> list[Sequence[str]]:
    """The block with a task's name and conditions above its first column only."""
    shown: list[Sequence[str]] = [first]
    before: Sequence[str] = ()
    for column in block:
        task = column[: n_heads - 1]
        same = task == before
        shown.append([*([""] * len(task) if same else task), *column[n_heads - 1 :]])
        before = task
    return shown


def _markdown(shown: Shown, width: int) -> str:
    board, columns = shown.board, shown.columns
    notes = _Notes(shown)
    heads = _heads(columns)
    head = ["method", *("<br>".join(escaped(part) for part in one if part) for one in heads)]
    lines = [head, ["---", *("---:" for _ in columns)]]
    lines += [
        [escaped(plain(label(row, board))), *(notes.cell(row, c) for c in columns)]
        for row in board.rows
    ]
    names, feet = _feet(shown)
    lines += [[name, *(foot[at] for foot in feet)] for at, name in enumerate(names)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return table + "\n\n" + "\n".join(f"{escaped(line)}  " for line in notes.lines()) + "\n"


def rows_of(shown: Shown) -> list[dict[str, Any]]:
    """One flat row per checkpoint and metric of the board, also for what is missing."""
    board = shown.board
    return [_row(shown, row, column) for row in board.rows for column in board.columns]


def _row(shown: Shown, row: Checkpoint, column: Column) -> dict[str, Any]:
    board = shown.board
    least = shown.detectable(column) if column in shown.columns else None
    entry = board.entry(row, column)
    estimate = entry.score.estimate if entry else None
    gap = entry.difference if entry else None
    return {
        "checkpoint": row.name,
        "method": row.method,
        "step": row.step,
        "seed": row.seed,
        "fingerprint": row.fingerprint or None,
        "task": column.group.task,
        "conditions": column.group.conditions or None,
        "opponent": column.group.opponent or None,
        "judge": column.group.judge or None,
        "metric": column.metric.name,
        "higher_is_better": column.metric.higher_is_better,
        "shown": column.shown,
        "value": _number(estimate.value) if estimate else None,
        "standard_error": _number(estimate.se) if estimate else None,
        "low": _number(estimate.low) if estimate else None,
        "high": _number(estimate.high) if estimate else None,
        "confidence": board.confidence,
        "interval": estimate.method if estimate else None,
        "n": estimate.n if estimate else None,
        "n_missing": estimate.n_missing if estimate else None,
        "baseline": board.baseline if gap else None,
        "difference": _number(gap.value) if gap else None,
        "difference_low": _number(gap.low) if gap else None,
        "difference_high": _number(gap.high) if gap else None,
        "difference_n": gap.n if gap else None,
        "p": _number(gap.p) if gap else None,
        "p_corrected": _number(shown.adjusted(row, column)),
        "correction": shown.correction if column in shown.columns else None,
        "verdict": shown.verdict(row, column) or None,
        "letters": shown.letters(row, column) or None,
        "detectable": least,
        "items_needed": shown.items_needed(row, column) if least else None,
        "noise_floor": board.noise.get(column.key),
        "missing": None if entry else board.reason(row, column),
    }


def _csv(shown: Shown, width: int) -> str:
    rows = rows_of(shown)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["checkpoint"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: safe_cell(v) for k, v in row.items()} for row in rows)
    return text.getvalue()


def _json(shown: Shown, width: int) -> str:
    board = shown.board
    whole = {
        "baseline": board.baseline,
        "confidence": board.confidence,
        "correction": shown.correction,
        "n_comparisons": shown.n_comparisons,
        "notes": list(board.notes),
        "rows": rows_of(shown),
    }
    return json.dumps(whole, indent=1) + "\n"  # ASCII: nothing in it can steer a terminal


STYLES: Mapping[str, Callable[[Shown, int], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": _csv,
    "json": _json,
}


class _Notes:
    """The reasons of missing cells, numbered row by row, and all else below a table."""

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self.board = board = shown.board
        self.numbers: dict[str, int] = {}
        for row in board.rows:
            for column in shown.columns:
                if board.entry(row, column) is None:
                    reason = board.reason(row, column)
                    self.numbers.setdefault(reason, len(self.numbers) + 1)

    def cell(self, row: Checkpoint, column: Column) -> str:
        entry = self.board.entry(row, column)
        if entry is None:
            return f"— ({self.numbers[self.board.reason(row, column)]})"
        text = written(entry.score.estimate, column.metric)
        marks = self.shown.letters(row, column) + MARKS[self.shown.verdict(row, column)]
        return f"{text} {marks}" if marks else text

    def lines(self) -> list[str]:
        board = self.board
        lines = [plain(line) for line in self.shown.notes()]
        if any(0 < entry.score.estimate.n < FEW for entry in board.entries.values()):
            lines.append(f"Intervals over fewer than {FEW} items tend to be too narrow.")
        if any(
            entry.score.metric.startswith("lc_win_rate") and entry.score.estimate.method == "none"
            for entry in board.entries.values()
        ):
            lines.append(
                f"A length-controlled win rate has an interval from {FEWEST} wins and {FEWEST} "
                "losses on; without one it may be far off."
            )
        if any(column.group.conditions for column in board.columns):
            lines.append(
                "Columns with conditions under their name are not the whole standard task."
            )
        lines += [plain(f"{note}.") for note in board.notes]
        lines += [plain(f"({number}) {reason}") for reason, number in self.numbers.items()]
        return lines


def written(estimate: Estimate, metric: Metric, *, signed: bool = False) -> str:
    """A value with its interval, in the metric's unit; `signed` puts + before those above 0."""

    def one(value: float) -> str:
        text = figure(value, metric)
        return f"+{text}" if signed and value > 0 and float(text) != 0 else text

    if math.isnan(estimate.low):
        return one(estimate.value)
    return f"{one(estimate.value)} [{one(estimate.low)}, {one(estimate.high)}]"


def figure(value: float, metric: Metric) -> str:
    """A value in the metric's unit, without its sign where it is 0."""
    if math.isnan(value):
        return "undefined"
    if metric.unit == "percent":
        text = f"{100 * value:.1f}"
    elif abs(value) >= 1e4:
        text = f"{value:.3e}"
    elif metric.unit == "perplexity":
        text = f"{value:.2f}" if value < 100 else f"{value:.1f}"
    else:
        text = f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text


def terminal_width() -> int:
    """The terminal's width where there is one."""
    return max(60, shutil.get_terminal_size((110, 24)).columns) if sys.stdout.isatty() else 110


def label(row: Checkpoint, board: Board) -> str:
    """The method, and the checkpoint's name where the method does not tell rows apart."""
    title = METHODS.get(row.method or "", row.name)
    alike = [other for other in board.rows if other.method == row.method]
    if len(alike) > 1 and title != row.name:
        title = f"{title} ({row.name})"
    return title + (" (baseline)" if row.name == board.baseline else "")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
