"""Arena-Hard's judgments: a JSON line per prompt, with a game in each order of the two answers.

Two layouts are read. Since April 2025 a row has `uid`, `category`, `judge`, `model`, `baseline` and
`games`; before, `question_id`, `judge`, `model` and `games`, and whom the model was compared with
stood in a settings file. In the first game the judge saw the baseline's answer first, as A; in the
second the model's. A game is null where the judge did not answer, its `score` null where no grade
was read.

Of the five grades, A>>B and A>B are preference 1 for A, A=B a half, B>A and B>>A 0. Arena-Hard
counts the two strong ones three times: `statistics_of(..., strong_weight=3)`.

Source: lmarena/arena-hard-auto, gen_judgment.py and show_result.py at 196f6b8, and the layout
before at 8fd0c83.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefbench.errors import DataError, InputError
from prefbench.interchange.annotations import Judgment, in_orders
from prefbench.interchange.rows import Row, read_rows, shown, write_rows

GRADES: Mapping[str, tuple[float, bool]] = {
    "A>>B": (1, True),
    "A>B": (1, False),
    "A=B": (0.5, False),
    "B>A": (0, False),
    "B>>A": (0, True),
    # The same, as judges also write them.
    "B<<A": (1, True),
    "B<A": (1, False),
    "B=A": (0.5, False),
    "A<B": (0, False),
    "A<<B": (0, True),
}
"""How far A is preferred, and whether by far."""

NO_REPLY = "the judge did not answer"
NO_GRADE = "no grade in the judge's reply"
ODD_GRADE = "the judge's grade is none of the five"


def judgments_from(rows: Iterable[Row], *, opponent: str | None = None) -> list[Judgment]:
    """The games of rows of judgments.

    Args:
        rows: of one file or of several.
        opponent: whom rows without `baseline` were compared with.
    """
    found: list[Judgment] = []
    seen: dict[tuple[str, ...], Row] = {}
    for row in rows:
        prompt = row.id("uid" if row.has("uid") else "question_id")
        baseline = row.text_or_none("baseline") or opponent
        if baseline is None:
            raise row.wrong(
                "baseline",
                "absent, as in files of before April 2025; say whom the model was compared with "
                "(opponent, --opponent): for Arena-Hard v0.1 that was gpt-4-0314",
            )
        judge = row.text_or_none("judge") or ""
        model = row.text("model")
        if (first := seen.setdefault((prompt, model, baseline, judge), row)) is not row:
            raise DataError(f"{row.where}: judged before, in {first.where}; keep one of the two")
        games = row.fields.get("games")
        if not isinstance(games, list) or not 1 <= len(games) <= 2:
            raise row.wrong("games", f"holds {shown(games)} where one or two games are needed")
        for i, game in enumerate(games):
            preference, strong, reason = _preference(row, i, game)
            found.append(
                Judgment(
                    prompt=prompt,
                    checkpoint=model,
                    opponent=baseline,
                    preference=preference,
                    reason=reason,
                    shown_first=i == 1,
                    strong=strong,
                    judge=judge,
                    category=row.text_or_none("category") or "",
                    raw=game.get("judgment") if game else None,
                )
            )
    return found


def read_judgments(path: Path, *, opponent: str | None = None) -> list[Judgment]:
    """The games of a file of judgments; their answers are in files of their own."""
    return judgments_from(read_rows(path), opponent=opponent)


def write_judgments(judgments: Iterable[Judgment], path: Path) -> None:
    """A file of judgments in the present layout.

    Raises:
        InputError: a comparison was not judged in both orders, or a preference is no grade.
    """
    write_rows([_row(orders) for orders in in_orders(judgments)], path, lines=True)


def _preference(row: Row, i: int, game: Any) -> tuple[float | None, bool, str]:
    """The model's preference, whether by far, and the reason why there is none."""
    if game is None:
        return None, False, NO_REPLY
    if not isinstance(game, dict) or "score" not in game:
        raise row.wrong("games", f"game {i + 1} is no object with a score")
    score = game["score"]
    if score is None or score == "":
        return None, False, NO_GRADE
    if not isinstance(score, str):
        raise row.wrong(
            "games",
            f"game {i + 1} has the score {shown(score)}: grades such as 'A>B' compare two "
            "answers; numbers grade one alone and hold no win rate",
        )
    if score not in GRADES:
        return None, False, ODD_GRADE
    of_a, strong = GRADES[score]
    return (of_a if i == 1 else 1 - of_a), strong, ""


def _row(orders: tuple[Judgment, ...]) -> dict[str, Any]:
    one = orders[0]
    games = {each.shown_first: each for each in orders}
    if set(games) != {False, True} or one.turn > 1 or one.copy:
        raise InputError(
            f"{one.title}: Arena-Hard's rows hold one comparison of a prompt in both orders, and "
            "this one is not"
        )
    return {
        "uid": one.prompt,
        "category": one.category,
        "judge": one.judge,
        "model": one.checkpoint,
        "baseline": one.opponent,
        "games": [_game(games[False]), _game(games[True])],
    }


def _game(one: Judgment) -> dict[str, Any] | None:
    if one.reason == NO_REPLY:
        return None
    if one.preference is None:
        return {"score": None, "judgment": one.raw}
    of_a = one.preference if one.shown_first else 1 - one.preference
    for grade, (preference, strong) in GRADES.items():
        if (preference, strong) == (of_a, one.strong):
            return {"score": grade, "judgment": one.raw}
    raise InputError(
        f"{one.title}: the preference {one.preference} is none of Arena-Hard's grades, which are "
        "0, a half and 1"
    )
