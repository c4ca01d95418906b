"""The verb `winrate`: what files of judgments say, as one table with intervals and notes."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from prefbench.report import options

if TYPE_CHECKING:
    from prefbench.interchange.annotations import HeadToHead
    from prefbench.stats.estimates import Estimate

EXAMPLES = (
    "Examples: prefbench winrate --from annotations.json · "
    "prefbench winrate --from model_judgment/gpt-4.1/dpo.jsonl --strong-weight 3 "
    "--answers model_answer/dpo.jsonl --answers model_answer/base.jsonl · "
    "prefbench winrate --from gpt-4_pair.jsonl --orders both --format csv"
)


class Form(StrEnum):
    auto = "auto"
    alpaca_eval = "alpaca_eval"
    arena_hard = "arena_hard"
    mt_bench = "mt_bench"


class Orders(StrEnum):
    mean = "mean"
    both = "both"


def winrate(
    from_: Annotated[
        list[Path], typer.Option("--from", help="File of judgments; may be given several times.")
    ],
    form: Annotated[Form, typer.Option(help="Whose files; auto: by the first row.")] = Form.auto,
    answers: Annotated[
        list[Path],
        typer.Option(
            "--answers",
            help="File with a model's answers, for length control of Arena-Hard and MT-Bench; "
            "may be given several times.",
        ),
    ] = [],  # noqa: B006  # typer's way
    opponent: Annotated[
        str | None,
        typer.Option(help="Whom files compare with that do not say so: Arena-Hard's old ones."),
    ] = None,
    orders: Annotated[
        Orders,
        typer.Option(
            help="Of a pair judged in both orders: their mean; or both: a tie unless both have "
            "the same winner, as MT-Bench counts."
        ),
    ] = Orders.mean,
    strong_weight: Annotated[
        float, typer.Option(help="How often A>>B and B>>A count; Arena-Hard takes 3.")
    ] = 1.0,
    confidence: options.Confidence = 0.95,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap over prompts.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of its draws.")] = 0,
    format_: options.TableForm = options.Form.text,
    width: options.Width = None,
) -> None:
    """Win rates from the judgments of AlpacaEval, Arena-Hard or MT-Bench; asks no judge.

    Reads AlpacaEval's annotations.json, Arena-Hard's model_judgment files, old and new, and
    MT-Bench's pair judgments. Shows each checkpoint's win rate, raw and length-controlled, with
    intervals, what is missing and why, and whether the judge's choice hangs on the order.
    """
    from prefbench.interchange.annotations import statistics_of
    from prefbench.interchange.forms import read_judgments

    found = statistics_of(
        read_judgments(from_, form=form.value, answers=answers, opponent=opponent),
        confidence=confidence,
        n_resamples=resamples,
        seed=seed,
        orders=orders.value,
        strong_weight=strong_weight,
    )
    shown = Shown(tuple(found), confidence, orders.value, strong_weight)
    print(STYLES[format_.value](shown, width or _width()), end="")


def _width() -> int:
    """The terminal's width where there is one."""
    return max(60, shutil.get_terminal_size((110, 24)).columns) if sys.stdout.isatty() else 110


class Shown(NamedTuple):
    """What the table shows, and how it was counted."""

    rows: tuple[HeadToHead, ...]
    confidence: float = 0.95
    orders: str = "mean"
    strong_weight: float = 1.0

    def best_first(self) -> list[HeadToHead]:
        """By win rate; rows without one are last."""
        return sorted(
            self.rows,
            key=lambda row: (
                -row.win_rate.value if row.n_judged else math.inf,
                row.checkpoint,
                row.opponent,
                row.judge,
            ),
        )


# --- text and Markdown


def _text(shown: Shown, width: int) -> str:
    from prefbench.report.layout import blocks_of, padded, plain, width_of

    rows = shown.best_first()
    first, *grid = ([plain(cell) for cell in column] for column in _columns(rows))
    blocks = []
    for block in blocks_of(first, grid, width):
        widths = [max(map(width_of, column)) for column in (first, *block)]
        lines = [
            "  ".join(padded(text, w) for text, w in zip(line, widths, strict=True)).rstrip()
            for line in zip(first, *block, strict=True)
        ]
        rule = "─" * min(width, sum(widths) + 2 * len(block))
        blocks.append("\n".join([lines[0], rule, *lines[1:]]))
    notes = "\n".join(plain(line) for line in notes_of(shown))
    return "\n\n".join([plain(_title(rows)), *blocks, notes]) + "\n"


def _markdown(shown: Shown, width: int) -> str:
    from prefbench.report.layout import escaped, plain

    rows = shown.best_first()
    columns = [[escaped(plain(cell)) for cell in column] for column in _columns(rows)]
    head, *lines = zip(*columns, strict=True)
    marks = ["---", *("---:" for _ in columns[1:])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in (head, marks, *lines))
    notes = "\n".join(f"{escaped(plain(line))}  " for line in notes_of(shown))
    return f"{escaped(plain(_title(rows)))}\n\n{table}\n\n{notes}\n"


def _title(rows: Sequence[HeadToHead]) -> str:
    """Whom all are compared with and by whom, where that is one."""
    opponents, judges = {row.opponent for row in rows}, {row.judge for row in rows}
    against = f" against {rows[0].opponent}" if len(opponents) == 1 else ""
    by = f", judged by {rows[0].judge or 'a judge without name'}" if len(judges) == 1 else ""
    return f"Win rates{against}{by}"


def _columns(rows: Sequence[HeadToHead]) -> list[list[str]]:
    """Heads with their cells; a column that would say nothing is left out."""
    columns = [["", *(row.checkpoint for row in rows)]]
    if len({row.opponent for row in rows}) > 1:
        columns.append(["against", *(row.opponent for row in rows)])
    if len({row.judge for row in rows}) > 1:
        columns.append(["judge", *(row.judge or "—" for row in rows)])
    columns.append(["win rate ↑", *(_share(row.win_rate) for row in rows)])
    optional: dict[str, list[Estimate | None]] = {
        "length-controlled ↑": [row.length_controlled for row in rows],
        "same winner ↑": [row.consistency for row in rows],
        "first preferred": [row.first_preferred for row in rows],
    }
    shown = {head: cells for head, cells in optional.items() if any(cells)}
    controlled = shown.pop("length-controlled ↑", None)
    if controlled:
        columns.append(["length-controlled ↑", *map(_share, controlled)])
    columns += [
        ["SE", *(_figure(100 * row.standard_error) for row in rows)],
        ["won/drawn/lost", *(f"{row.n_wins}/{row.n_draws}/{row.n_losses}" for row in rows)],
        ["missing", *(str(row.n_missing) for row in rows)],
    ]
    columns += [[head, *map(_share, cells)] for head, cells in shown.items()]
    if controlled:
        lengths = [
            "—"
            if math.isnan(row.mean_length)
            else f"{row.mean_length:.0f} vs {row.mean_length_opponent:.0f}"
            for row in rows
        ]
        columns.append(["characters", *lengths])
    return columns


def _share(estimate: Estimate | None) -> str:
    """A share as a percentage with its interval."""
    if estimate is None or not estimate.n:
        return "—"
    value = _figure(100 * estimate.value)
    if math.isnan(estimate.low):
        return value
    return f"{value} [{_figure(100 * estimate.low)}, {_figure(100 * estimate.high)}]"


def _figure(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:.1f}"


def notes_of(shown: Shown) -> list[str]:
    """How to read the numbers, what each row must have told of it, and what is missing."""
    from prefbench.report.tables import FEW
    from prefbench.stats.winrate import FEWEST

    rows = shown.best_first()
    weight = f"{shown.strong_weight:g}"
    level = f"{100 * shown.confidence:g}%"
    lines = [f"Percentages with {level} bootstrap intervals over prompts; a draw counts half."]
    if shown.orders == "both":
        lines.append("A pair judged in both orders is a draw unless both have the same winner.")
    if shown.strong_weight != 1:
        lines.append(f"Wins by far count {weight} times in the win rate and SE, once elsewhere.")
    lines.append(
        "SE: standard error as AlpacaEval publishes it, which takes comparisons as independent."
    )
    if any(row.length_controlled for row in rows):
        lines.append(
            "Length-controlled: the win rate were both answers equally long, fitted to lengths "
            "alone. AlpacaEval's own also knows how difficult each of its instructions is: over 57 "
            "entries of its leaderboard the two differ by 6.5 points on average. An interval needs "
            f"{FEWEST} wins and {FEWEST} losses; without one the value may be far off."
        )
    if any(row.consistency for row in rows):
        lines.append(
            "Same winner: pairs judged in both orders whose winner is the same in both. First "
            "preferred: how far the answer shown first is; 50 without position bias."
        )
    if any(0 < row.n_judged < FEW for row in rows):
        lines.append(f"Intervals over fewer than {FEW} comparisons tend to be too narrow.")
    said: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            said.setdefault(note, []).append(_name(row, rows))
    for note, names in said.items():
        lines.append(
            f"{note[0].upper()}{note[1:]}."
            if len(names) == len(rows)
            else f"{', '.join(names)}: {note}."
        )
    lines += [
        f"Missing of {_name(row, rows)}: {n} × {reason}."
        for row in rows
        for reason, n in row.reasons
    ]
    return lines


def _name(row: HeadToHead, rows: Sequence[HeadToHead]) -> str:
    """What tells the row from the others."""
    alike = [other for other in rows if other.checkpoint == row.checkpoint]
    name = row.checkpoint
    if len({other.opponent for other in alike}) > 1:
        name += f" against {row.opponent}"
    return name + (f" by {row.judge}" if len({other.judge for other in alike}) > 1 else "")


# --- CSV and JSON


def rows_of(shown: Shown) -> list[dict[str, Any]]:
    """One flat row per checkpoint, opponent and judge; shares from 0 to 1, None where undefined."""
    return [
        {
            "checkpoint": row.checkpoint,
            "opponent": row.opponent,
            "judge": row.judge,
            "n_wins": row.n_wins,
            "n_draws": row.n_draws,
            "n_losses": row.n_losses,
            "n_missing": row.n_missing,
            "missing": dict(row.reasons),
            **_flat("win_rate", row.win_rate),
            "standard_error": _number(row.standard_error),
            "discrete_win_rate": _number(row.discrete_win_rate),
            **_flat("length_controlled", row.length_controlled),
            **_flat("same_winner", row.consistency),
            **_flat("first_preferred", row.first_preferred),
            "mean_length": _number(row.mean_length),
            "mean_length_opponent": _number(row.mean_length_opponent),
            "confidence": shown.confidence,
            "orders": shown.orders,
            "strong_weight": shown.strong_weight,
            "notes": list(row.notes),
        }
        for row in shown.best_first()
    ]


def _flat(name: str, estimate: Estimate | None) -> dict[str, Any]:
    return {
        name: _number(estimate.value) if estimate else None,
        f"{name}_low": _number(estimate.low) if estimate else None,
        f"{name}_high": _number(estimate.high) if estimate else None,
        f"{name}_interval": estimate.method if estimate else None,
        f"{name}_n": estimate.n if estimate else None,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _csv(shown: Shown, width: int) -> str:
    from prefbench.report.layout import safe_cell

    rows = rows_of(shown)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        missing = "; ".join(f"{n} × {reason}" for reason, n in row["missing"].items())
        joined = {**row, "missing": missing, "notes": "; ".join(row["notes"])}
        writer.writerow({key: safe_cell(value) for key, value in joined.items()})
    return text.getvalue()


def _json(shown: Shown, width: int) -> str:
    whole = {"notes": notes_of(shown), "rows": rows_of(shown)}
    return json.dumps(whole, indent=1) + "\n"  # ASCII: nothing in it can steer a terminal


STYLES: Mapping[str, Callable[[Shown, int], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": _csv,
    "json": _json,
}
