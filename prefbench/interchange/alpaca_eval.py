"""AlpacaEval's files: `annotations.json`, one judged pair a row, and `model_outputs.json`.

Preferences are coded from 1, output_1 is better, to 2, output_2 is; output_1 is the baseline's and
output_2 the checkpoint's. 1.5 is a draw, as is 0 in older files; null is no preference. Which
answer the judge saw first is drawn at random and not kept.

Source: tatsu-lab/alpaca_eval, src/alpaca_eval/metrics/helpers.py at cd543a1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from prefbench.errors import DataError, InputError
from prefbench.interchange.annotations import HeadToHead, Judgment, in_orders, prompt_id
from prefbench.interchange.rows import Row, read_rows, shown, write_rows

NULL = "the preference is null: the judge's reply could not be read"
NAN = "the preference is NaN: the judge's reply could not be read"


class Output(NamedTuple):
    """A row of `model_outputs.json`: an instruction and what a generator made of it."""

    instruction: str
    output: str
    generator: str
    dataset: str = ""


def read_outputs(path: Path) -> list[Output]:
    """The rows of a `model_outputs.json`."""
    return [
        Output(
            row.text("instruction"),
            row.text("output"),
            row.text("generator"),
            row.text_or_none("dataset") or "",
        )
        for row in read_rows(path)
    ]


def write_outputs(outputs: Iterable[Output], path: Path) -> None:
    """A `model_outputs.json`, as AlpacaEval's `--model_outputs` takes it."""
    write_rows((one._asdict() for one in outputs), path, lines=False)


def judgments_from(rows: Iterable[Row]) -> list[Judgment]:
    """The rows of an `annotations.json`; keys beyond those of a pair are left aside."""
    seen: dict[tuple[str, ...], dict[tuple[str | None, str | None], str]] = {}
    found = []
    for row in rows:
        preference, reason = _preference(row)
        names = tuple(row.text(key) for key in ("instruction", "generator_2", "generator_1"))
        judge = row.text_or_none("annotator") or ""
        pair = row.text_or_none("output_1"), row.text_or_none("output_2")
        copies = seen.setdefault((*names, judge), {})
        if pair in copies:
            raise DataError(f"{row.where}: judged before, in {copies[pair]}; keep one of the two")
        # A prompt that is in the data twice, with other answers, is two comparisons.
        copies[pair] = row.where
        instruction, checkpoint, opponent = names
        found.append(
            Judgment(
                prompt=prompt_id(instruction),
                checkpoint=checkpoint,
                opponent=opponent,
                preference=preference,
                reason=reason,
                copy=len(copies) - 1,
                instruction=instruction,
                answer=pair[1],
                opponent_answer=pair[0],
                judge=judge,
                category=row.text_or_none("dataset") or "",
                raw=row.fields.get("raw_completion"),
            )
        )
    return found


def read_judgments(path: Path) -> list[Judgment]:
    """The rows of an `annotations.json`."""
    return judgments_from(read_rows(path))


def write_judgments(judgments: Iterable[Judgment], path: Path) -> None:
    """An `annotations.json`; what was judged in both orders is one row with the mean preference.

    Raises:
        InputError: a judgment lacks its prompt or an answer, which AlpacaEval's rows hold.
    """
    write_rows([_row(orders) for orders in in_orders(judgments)], path, lines=False)


def leaderboard_row(found: HeadToHead) -> dict[str, float | int | None]:
    """The columns of AlpacaEval's leaderboards, in its units; None where undefined.

    Its `length_controlled_winrate` is not among them: that takes the difficulty of each of its 805
    instructions, which no file but its own has.
    """
    return {
        "win_rate": _defined(100 * found.win_rate.value),
        "standard_error": _defined(100 * found.standard_error),
        "n_wins": found.n_wins,
        "n_wins_base": found.n_losses,
        "n_draws": found.n_draws,
        "n_total": found.n_judged,
        "discrete_win_rate": _defined(100 * found.discrete_win_rate),
        "avg_length": None if math.isnan(found.mean_length) else int(found.mean_length),
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _preference(row: Row) -> tuple[float | None, str]:
    value = row.number_or_none("preference")
    if value is None:
        return None, NULL
    if math.isnan(value):
        return None, NAN
    if value == 0:  # how older files write a draw
        return 0.5, ""
    if not 1 <= value <= 2:
        raise row.wrong(
            "preference",
            f"holds {shown(row.fields['preference'])}; AlpacaEval codes from 1, output_1 is "
            "better, to 2, output_2 is, with 1.5 for a draw and null for none",
        )
    return value - 1, ""


def _row(orders: tuple[Judgment, ...]) -> dict[str, object]:
    one = orders[0]
    if one.instruction is None or one.answer is None or one.opponent_answer is None:
        raise InputError(
            f"{one.title}: AlpacaEval's annotations hold the prompt and both answers, and these "
            "are not known; read the judgments together with their answers"
        )
    wins = [each.preference for each in orders if each.preference is not None]
    whole = len(wins) == len(orders)
    return {
        "instruction": one.instruction,
        "output_1": one.opponent_answer,
        "generator_1": one.opponent,
        "dataset": one.category,
        "output_2": one.answer,
        "generator_2": one.checkpoint,
        "annotator": one.judge,
        "preference": 1 + math.fsum(wins) / len(wins) if whole else None,
        "raw_completion": one.raw if len(orders) == 1 else [each.raw for each in orders],
    }
