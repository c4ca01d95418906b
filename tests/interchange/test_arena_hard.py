from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefbench.errors import DataError, InputError
from prefbench.interchange.annotations import Judgment, statistics_of
from prefbench.interchange.arena_hard import GRADES, NO_GRADE, NO_REPLY, ODD_GRADE
from prefbench.interchange.arena_hard import read_judgments as read
from prefbench.interchange.arena_hard import write_judgments as write


def row(name: str, first: Any, second: Any, **more: Any) -> dict[str, Any]:
    """A row whose games have these scores, the baseline shown first and the model shown first."""
    return {
        "uid": name,
        "category": "hard_prompt",
        "judge": "judge-1",
        "model": "org/dpo",
        "baseline": "sft",
        "games": [
            {"score": score, "judgment": {"answer": f"so [[{score}]]"}, "prompt": []}
            for score in (first, second)
        ],
        **more,
    }


def old_row(number: str, first: Any, second: Any) -> dict[str, Any]:
    return {
        "question_id": number,
        "model": "dpo",
        "judge": "judge-0",
        "games": [
            {"user_prompt": "which?", "judgment": f"so [[{score}]]", "score": score}
            for score in (first, second)
        ],
    }


def kept(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "dpo.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.mark.parametrize(
    ("grade", "of_a", "strong"),
    [
        ("A>>B", 1, True),
        ("A>B", 1, False),
        ("A=B", 0.5, False),
        ("B>A", 0, False),
        ("B>>A", 0, True),
        ("B<<A", 1, True),
        ("B<A", 1, False),
        ("B=A", 0.5, False),
        ("A<B", 0, False),
        ("A<<B", 0, True),
    ],
)
def test_every_grade_in_both_games(tmp_path: Path, grade: str, of_a: float, strong: bool) -> None:
    first, second = read(kept(tmp_path, row("u", grade, grade)))
    assert (first.preference, first.strong, first.shown_first) == (1 - of_a, strong, False)
    assert (second.preference, second.strong, second.shown_first) == (of_a, strong, True)
    assert (first.checkpoint, first.opponent, first.judge) == ("org/dpo", "sft", "judge-1")
    assert (first.category, first.raw) == ("hard_prompt", {"answer": f"so [[{grade}]]"})


def test_all_grades_are_known_from_both_sides() -> None:
    mirrored = {"A": "B", "B": "A", ">": "<", "<": ">", "=": "="}
    for grade, (preference, strong) in GRADES.items():
        assert GRADES[grade[::-1]] == (1 - preference, strong) or "=" in grade
        assert GRADES["".join(mirrored[sign] for sign in grade)] == (preference, strong)


def test_the_old_layout_does_not_say_whom_it_compares_with(tmp_path: Path) -> None:
    path = kept(tmp_path, old_row("a1", "A>B", "A>>B"))
    first, second = read(path, opponent="gpt-old")
    assert (first.prompt, first.opponent, first.preference) == ("a1", "gpt-old", 0)
    assert (second.preference, second.strong, second.raw) == (1, True, "so [[A>>B]]")
    with pytest.raises(DataError, match=r"line 1, key 'baseline': absent.*--opponent"):
        read(path)


def test_a_row_names_its_baseline_itself(tmp_path: Path) -> None:
    assert read(kept(tmp_path, row("u", "A=B", "A=B")), opponent="x")[0].opponent == "sft"


def test_the_mean_over_games_with_strong_wins_thrice(tmp_path: Path) -> None:
    rows = [row("u", "B>>A", "A>B"), row("v", "A>B", "A=B"), row("w", "A>>B", "B>>A")]
    # Every game as often as it counts, the model's side: 1 1 1 1, 0 ½, 0 0 0 0 0 0.
    (found,) = statistics_of(read(kept(tmp_path, *rows)), strong_weight=3, n_resamples=50)
    assert found.win_rate.value == pytest.approx(4.5 / 12)
    (plain,) = statistics_of(read(kept(tmp_path, *rows)), n_resamples=50)
    assert plain.win_rate.value == pytest.approx((1 + 0.25 + 0) / 3)
    assert plain.consistency is not None
    assert plain.consistency.value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("game", "reason"),
    [
        (None, NO_REPLY),
        ({"score": None, "judgment": {"answer": "hm"}}, NO_GRADE),
        ({"score": ""}, NO_GRADE),
        ({"score": "A>C\x1b[2J"}, ODD_GRADE),
    ],
)
def test_a_game_without_grade_is_missing_and_no_tie(tmp_path: Path, game: Any, reason: str) -> None:
    whole = row("v", "B>A", "A>B")
    path = kept(tmp_path, row("u", "", "", games=[game, {"score": "A>B"}]), whole)
    assert read(path)[0].reason == reason
    (found,) = statistics_of(read(path), n_resamples=10)
    assert (found.n_judged, found.n_missing, found.reasons) == (1, 1, ((reason, 1),))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"games": []}, "key 'games': holds list where one or two games"),
        ({"games": [None] * 3}, "where one or two games"),
        ({"games": "A>B"}, "key 'games': holds 'A>B' where"),
        ({"games": ["A>B"]}, "game 1 is no object with a score"),
        ({"games": [{"judgment": ""}]}, "game 1 is no object with a score"),
        ({"games": [{"score": 7}]}, "game 1 has the score 7: grades such as 'A>B'"),
        ({"model": None}, "key 'model': a text is needed"),
        ({"uid": None}, "key 'question_id': a text is needed"),
        ({"uid": "u1"}, "line 2: judged before, in .*line 1; keep one"),
    ],
)
def test_rows_that_are_wrong_are_refused(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(kept(tmp_path, row("u1", "A>B", "A>B"), row("u2", "A>B", "A>B", **more)))


def test_written_and_read_again(tmp_path: Path) -> None:
    rows = [row(f"u{i}", grade, "A=B") for i, grade in enumerate(GRADES)]
    rows.append(row("null", "", "", games=[None, {"score": None, "judgment": "\u2028\ud800"}]))
    judgments = read(kept(tmp_path, *rows))
    write(judgments, tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl") == judgments
    first = json.loads((tmp_path / "out.jsonl").read_text().split("\n")[0])
    assert list(first) == ["uid", "category", "judge", "model", "baseline", "games"]
    assert first["games"][0]["score"] == "A>>B"


@pytest.mark.parametrize(
    ("judgments", "message"),
    [
        ([Judgment("p", "dpo", "sft", 1, shown_first=True)], "in both orders"),
        ([Judgment("p", "dpo", "sft", 1)], "in both orders"),
        (
            [Judgment("p", "dpo", "sft", 0.3, shown_first=order) for order in (True, False)],
            "the preference 0.3 is none of Arena-Hard's grades",
        ),
        (
            [Judgment("p", "dpo", "sft", 1, turn=2, shown_first=order) for order in (True, False)],
            "prompt p, turn 2, dpo against sft: Arena-Hard's rows",
        ),
    ],
)
def test_what_its_rows_cannot_hold(tmp_path: Path, judgments: list[Judgment], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write(judgments, tmp_path / "out.jsonl")
