"""MT-Bench's pair judgments: a JSON line per question and turn, with the winner in each order.

In the first game the judge saw model_1's answer first, in the second model_2's; `g1_winner` and
`g2_winner` are model_1, model_2, tie, or error where no verdict was read. Rows made from two
single gradings (`m1_score`) have no order: their winner is one judgment.

MT-Bench counts a comparison as a tie unless both orders have the same winner, and leaves it out
where one is an error: `statistics_of(..., orders="both")` is its win_rate_adjusted.

Source: lm-sys/FastChat, fastchat/llm_judge/common.py and show_result.py at 0e6d3e4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefbench.errors import DataError, InputError
from prefbench.interchange.annotations import Judgment, in_orders
from prefbench.interchange.rows import Row, read_rows, shown, write_rows

WINNERS: Mapping[str, float | None] = {"model_1": 1, "tie": 0.5, "model_2": 0, "error": None}
"""How far model_1 is preferred."""

NO_VERDICT = "no verdict in the judge's reply"


def judgments_from(rows: Iterable[Row]) -> list[Judgment]:
    """The games of rows of pair judgments."""
    found: list[Judgment] = []
    seen: dict[tuple[str | int, ...], Row] = {}
    for row in rows:
        if row.has("score") and not row.has("g1_winner"):
            raise row.wrong(
                "g1_winner",
                "absent: the row grades one answer alone and holds no win rate; judge pairs with "
                "FastChat's --mode pairwise-baseline",
            )
        names = row.id("question_id"), row.text("model_1"), row.text("model_2")
        judge, judge_prompt = _judge(row)
        turn = _turn(row)
        key = (*names, judge, turn)
        if (first := seen.setdefault(key, row)) is not row:
            raise DataError(f"{row.where}: judged before, in {first.where}; keep one of the two")
        graded_alone = row.has("m1_score")
        for game in ("g1",) if graded_alone else ("g1", "g2"):
            preference = _preference(row, f"{game}_winner")
            found.append(
                Judgment(
                    prompt=names[0],
                    checkpoint=names[1],
                    opponent=names[2],
                    preference=preference,
                    reason=NO_VERDICT if preference is None else "",
                    turn=turn,
                    shown_first=None if graded_alone else game == "g1",
                    judge=judge,
                    judge_prompt=judge_prompt,
                    raw=row.fields.get(f"{game}_judgment"),
                )
            )
    return found


def read_judgments(path: Path) -> list[Judgment]:
    """The games of a file of pair judgments; their answers are in files of their own."""
    return judgments_from(read_rows(path))


def write_judgments(judgments: Iterable[Judgment], path: Path) -> None:
    """A file of pair judgments.

    Raises:
        InputError: a comparison was not judged in both orders, or a preference is no winner.
    """
    write_rows([_row(orders) for orders in in_orders(judgments)], path, lines=True)


def _preference(row: Row, key: str) -> float | None:
    winner = row.text(key)
    if winner not in WINNERS:
        raise row.wrong(key, f"holds {shown(winner)}, not one of {', '.join(WINNERS)}")
    return WINNERS[winner]


def _judge(row: Row) -> tuple[str, str]:
    """The judge's name and that of its prompt, which differs between kinds of question."""
    value = row.fields.get("judge")
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value):
        return value[0], value[1]
    return row.text_or_none("judge") or "", ""


def _turn(row: Row) -> int:
    turn = row.fields.get("turn", 1)
    if isinstance(turn, bool) or not isinstance(turn, int) or turn < 1:
        raise row.wrong("turn", f"holds {shown(turn)} where a whole number from 1 is needed")
    return turn


def _row(orders: tuple[Judgment, ...]) -> dict[str, Any]:
    one = orders[0]
    games = {each.shown_first: each for each in orders}
    if set(games) != {False, True} or one.copy:
        raise InputError(
            f"{one.title}: MT-Bench's rows hold one comparison of a prompt in both orders, and "
            "this one is not"
        )
    first, second = games[True], games[False]
    number = one.prompt.isascii() and one.prompt.isdigit() and len(one.prompt) < 16
    return {
        "question_id": int(one.prompt) if number else one.prompt,
        "model_1": one.checkpoint,
        "model_2": one.opponent,
        "g1_winner": _winner(first),
        "g2_winner": _winner(second),
        "judge": [one.judge, one.judge_prompt],
        "g1_judgment": first.raw,
        "g2_judgment": second.raw,
        "turn": one.turn,
    }


def _winner(one: Judgment) -> str:
    for winner, preference in WINNERS.items():
        if preference == one.preference:
            return winner
    raise InputError(
        f"{one.title}: the preference {one.preference} is none of MT-Bench's, which are 0, a half "
        "and 1"
    )
