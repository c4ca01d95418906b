from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefbench.errors import DataError
from prefbench.interchange.annotations import Judgment
from prefbench.interchange.answers import Answer, read_answers, with_answers, write_answers

ASKED = {"role": "user", "content": "Why?"}


def kept(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"uid": "u", "model": "dpo", "messages": [
                {"role": "system", "content": "Be brief."}, ASKED,
                {"role": "assistant", "content": {"answer": "So."}},
            ]},
            {("u", "dpo", 1): Answer("So.", "Why?")},
        ),
        (
            {"uid": "u", "model": "dpo", "messages": [
                ASKED, {"role": "assistant", "content": "So."},
                {"role": "user", "content": "And?"}, {"role": "assistant", "content": "Then."},
            ]},
            {("u", "dpo", 1): Answer("So.", "Why?"), ("u", "dpo", 2): Answer("Then.", "And?")},
        ),
        (
            {"question_id": "q", "model_id": "dpo", "choices": [
                {"index": 0, "turns": [{"content": "So.", "token_len": 2}]},
            ]},
            {("q", "dpo", 1): Answer("So.")},
        ),
        (
            {"question_id": 81, "model_id": "dpo", "choices": [{"turns": ["So.", "Then."]}]},
            {("81", "dpo", 1): Answer("So."), ("81", "dpo", 2): Answer("Then.")},
        ),
    ],
)  # fmt: skip
def test_layouts(tmp_path: Path, row: dict[str, Any], expected: dict[Any, Answer]) -> None:
    assert read_answers([kept(tmp_path, row)]) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"uid": "u", "games": []}, "no answer: .* is it a file of judgments"),
        ({"uid": "u", "model": "m", "messages": [ASKED]}, "none is the assistant's"),
        ({"uid": "u", "model": "m", "messages": "x"}, "key 'messages': holds 'x' where a list"),
        ({"uid": "u", "model": "m", "messages": [{"role": "tool"}]}, "message 1 has the role 'to"),
        ({"uid": "u", "model": "m", "messages": [7]}, "message 1 has the role None"),
        (
            {"uid": "u", "model": "m", "messages": [{"role": "assistant", "content": {}}]},
            "holds None where an answer's text",
        ),
        ({"question_id": 1, "model_id": "m", "choices": [{}]}, "has no list of turns"),
        ({"question_id": 1, "model_id": "m", "choices": [{"turns": [3]}]}, "holds 3 where an ans"),
    ],
)
def test_rows_that_are_wrong_are_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"line 1.*{message}"):
        read_answers([kept(tmp_path, row)])


def test_a_second_answer_is_refused(tmp_path: Path) -> None:
    row = {"question_id": 1, "model_id": "m", "choices": [{"turns": ["x"]}]}
    path = kept(tmp_path, row)
    with pytest.raises(DataError, match="a second answer of 'm' to prompt '1'; keep one"):
        read_answers([path, path])


def test_written_and_read_again(tmp_path: Path) -> None:
    answers = {
        ("u2", "dpo", 1): Answer("So.\u2028", "Why?"),
        ("u2", "dpo", 2): Answer("Then.", "And?"),
        ("u1", "dpo", 1): Answer("", "\ud800"),
    }
    write_answers(answers, tmp_path / "out.jsonl")
    assert read_answers([tmp_path / "out.jsonl"]) == answers


def test_judgments_with_what_they_are_about() -> None:
    answers = {
        ("u", "dpo", 1): Answer("So.", "Why?"),
        ("u", "sft", 1): Answer("Hm.", "Why?"),
        ("u", "sft", 2): Answer("Then."),
    }
    judgments = [Judgment("u", "dpo", "sft", 1, turn=turn) for turn in (1, 2)]
    first, second = with_answers(judgments, answers)
    assert (first.answer, first.opponent_answer, first.instruction) == ("So.", "Hm.", "Why?")
    assert (second.answer, second.opponent_answer, second.instruction) == (None, "Then.", None)
