"""Answers as Arena-Hard and FastChat keep them, beside their judgments: JSON lines per model.

Three layouts are read. Arena-Hard since April 2025 has `uid`, `model` and `messages`, the last of
which holds the answer under `content`, as text or under `answer`. Before, like FastChat, it had
`question_id`, `model_id` and `choices`; the first choice's `turns` are texts, or texts under
`content`.

Source: lmarena/arena-hard-auto, gen_answer.py at 196f6b8 and 8fd0c83; lm-sys/FastChat,
fastchat/llm_judge/gen_model_answer.py at 0e6d3e4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from prefbench.errors import DataError
from prefbench.interchange.annotations import Judgment
from prefbench.interchange.rows import Row, read_rows, shown, write_rows


class Answer(NamedTuple):
    """What a model said in one turn, and the prompt where the file has it."""

    text: str
    instruction: str | None = None


Answers: TypeAlias = Mapping[tuple[str, str, int], Answer]
"""By the prompt's id, the model's name and the turn, from 1."""


def read_answers(paths: Iterable[Path]) -> dict[tuple[str, str, int], Answer]:
    """The answers of any number of files.

    Raises:
        DataError: a file is not in one of the layouts, or a model answers a prompt twice.
    """
    found: dict[tuple[str, str, int], Answer] = {}
    for path in paths:
        for row in read_rows(path):
            for key, answer in _answers(row):
                if found.setdefault(key, answer) is not answer:
                    raise DataError(
                        f"{row.where}: a second answer of {shown(key[1])} to prompt "
                        f"{shown(key[0])}; keep one"
                    )
    return found


def write_answers(answers: Answers, path: Path) -> None:
    """One model's answers in Arena-Hard's present layout, without the metadata of style control."""
    turns: dict[tuple[str, str], list[Answer]] = {}
    for (prompt, model, _), answer in sorted(answers.items(), key=lambda pair: pair[0][2]):
        turns.setdefault((prompt, model), []).append(answer)
    write_rows(
        (
            {"uid": prompt, "ans_id": f"{model}:{prompt}", "model": model, "messages": _said(said)}
            for (prompt, model), said in turns.items()
        ),
        path,
        lines=True,
    )


def with_answers(judgments: Iterable[Judgment], answers: Answers) -> list[Judgment]:
    """The judgments with the texts they are about, where those are known."""
    found = []
    for one in judgments:
        own = answers.get((one.prompt, one.checkpoint, one.turn))
        other = answers.get((one.prompt, one.opponent, one.turn))
        asked = next((a.instruction for a in (own, other) if a and a.instruction), None)
        found.append(
            dataclasses.replace(
                one,
                answer=own.text if own else one.answer,
                opponent_answer=other.text if other else one.opponent_answer,
                instruction=asked or one.instruction,
            )
        )
    return found


def _said(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    return [
        message
        for answer in answers
        for message in (
            {"role": "user", "content": answer.instruction or ""},
            {"role": "assistant", "content": {"answer": answer.text}},
        )
    ]


def _answers(row: Row) -> list[tuple[tuple[str, str, int], Answer]]:
    if row.has("messages"):
        prompt, model = row.id("uid"), row.text("model")
        said = [_message(row, i, message) for i, message in enumerate(_list(row, "messages"))]
        asked = [text for role, text in said if role == "user"]
        told = [text for role, text in said if role == "assistant"]
    elif row.has("choices"):
        prompt, model = row.id("question_id"), row.text("model_id")
        choice = _list(row, "choices")[0]
        turns = choice.get("turns") if isinstance(choice, dict) else None
        if not isinstance(turns, list) or not turns:
            raise row.wrong("choices", "the first choice has no list of turns")
        asked = []
        told = [_content(row, "choices", turn) for turn in turns]
    else:
        raise DataError(
            f"{row.where}: no answer: it has neither messages (Arena-Hard) nor choices (FastChat, "
            "older Arena-Hard); is it a file of judgments?"
        )
    if not told:
        raise row.wrong("messages", "none is the assistant's")
    if len(asked) != len(told):
        asked = []  # which prompt an answer belongs to is not told
    return [
        ((prompt, model, turn), Answer(text, asked[turn - 1] if asked else None))
        for turn, text in enumerate(told, 1)
    ]


def _list(row: Row, key: str) -> list[Any]:
    value = row.fields[key]
    if not isinstance(value, list) or not value:
        raise row.wrong(key, f"holds {shown(value)} where a list that is not empty is needed")
    return value


def _message(row: Row, i: int, message: Any) -> tuple[str, str]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ("system", "user", "assistant"):
        raise row.wrong("messages", f"message {i + 1} has the role {shown(role)}")
    return role, _content(row, "messages", message.get("content"))


def _content(row: Row, key: str, value: Any) -> str:
    """A text, or the text under `answer` or `content`."""
    if isinstance(value, dict):
        value = value.get("answer", value.get("content"))
    if not isinstance(value, str):
        raise row.wrong(key, f"holds {shown(value)} where an answer's text is needed")
    return value
