from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from prefbench.errors import DataError, InputError
from prefbench.interchange.annotations import statistics_of
from prefbench.interchange.forms import FORMS, read_judgments

ALPACA = {
    "instruction": "Why?",
    "generator_1": "sft",
    "generator_2": "dpo",
    "output_1": "Hm.",
    "output_2": "So.",
    "preference": 2,
}
ARENA = {
    "uid": "u",
    "model": "dpo",
    "baseline": "sft",
    "games": [{"score": "B>A"}, {"score": "A>B"}],
}
MT = {
    "question_id": 81,
    "model_1": "dpo",
    "model_2": "sft",
    "g1_winner": "model_1",
    "g2_winner": "model_1",
}


def kept(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("form", "row"), list(zip(FORMS, (ALPACA, ARENA, MT), strict=True)))
def test_a_form_is_known_by_its_first_row(tmp_path: Path, form: str, row: dict[str, Any]) -> None:
    path = kept(tmp_path / "file", row)
    found = read_judgments([path])
    assert {(one.checkpoint, one.opponent, one.preference) for one in found} == {("dpo", "sft", 1)}
    assert found == read_judgments([path], form=form)


ODD = [
    None, True, 0, -1, 1.5, 10**400, math.nan, math.inf, "", "x", "\ud800\x1b", [], [None], {},
    {"score": {}}, [{"score": []}], [[]], "9" * 99,
]  # fmt: skip


@pytest.mark.parametrize("row", [ALPACA, ARENA, MT])
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{odd!a:.20}")
def test_any_value_anywhere_is_read_or_refused_by_name(
    tmp_path: Path, row: dict[str, Any], odd: Any
) -> None:
    for key in [*row, "judge", "annotator", "turn", "category", "dataset", "m1_score"]:
        path = kept(tmp_path / "file", {**row, key: odd})
        try:
            found = read_judgments([path])
        except DataError as error:
            said = str(error)
            assert "file, line 1" in said
            assert len(said) < len(str(path)) + 300
        else:
            statistics_of(found, n_resamples=2)


def test_files_of_one_form_are_read_together(tmp_path: Path) -> None:
    paths = [kept(tmp_path / name, {**ARENA, "model": name}) for name in ("dpo", "kto")]
    assert [one.checkpoint for one in read_judgments(paths)] == ["dpo", "dpo", "kto", "kto"]
    with pytest.raises(DataError, match="line 1: judged before"):
        read_judgments([paths[0], paths[0]])
    with pytest.raises(DataError, match=r"mt: mt_bench, while .*dpo is arena_hard; read files of"):
        read_judgments([*paths, kept(tmp_path / "mt", MT)])


def test_answers_are_joined(tmp_path: Path) -> None:
    answers = [
        kept(
            tmp_path / f"answers-{model}",
            {"question_id": 81, "model_id": model, "choices": [{"turns": [f"I am {model}."]}]},
        )
        for model in ("dpo", "sft")
    ]
    first, second = read_judgments([kept(tmp_path / "mt", MT)], answers=answers)
    assert first.answer == second.answer == "I am dpo."
    assert first.opponent_answer == "I am sft."


def test_an_old_file_is_told_whom_it_compares_with(tmp_path: Path) -> None:
    old = {"question_id": "q", "model": "dpo", "games": ARENA["games"]}
    assert read_judgments([kept(tmp_path / "old", old)], opponent="x")[0].opponent == "x"


def test_what_is_no_file_of_judgments(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: no judgments of a known form.*here are a, b"):
        read_judgments([kept(tmp_path / "file", {"b": 1, "a": 2})])
    with pytest.raises(InputError, match="no form is named 'csv'; there are: auto, alpaca_eval"):
        read_judgments([kept(tmp_path / "file", MT)], form="csv")
    with pytest.raises(InputError, match="no file of judgments"):
        read_judgments([])
    with pytest.raises(DataError, match="key 'model': a text is needed"):
        read_judgments([kept(tmp_path / "file", MT)], form="arena_hard", opponent="x")
