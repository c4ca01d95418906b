from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from prefbench.candidate_documents import TOO_FEW, hh_candidates, plain_candidates
from prefbench.documents import EMPTY
from prefbench.errors import DataError
from prefbench.measures.items import pair_item

TALK = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: A joke?\n\nAssistant:"


def documents(*rows: dict[str, Any], make: Any = plain_candidates) -> list[dict[str, Any]]:
    return list(make(Dataset.from_list(list(rows))))


def row(*candidates: str, prompt: str = "Name a colour.", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "candidates": list(candidates), **more}


def test_all_candidates_are_scored_behind_the_prompt() -> None:
    (document,) = documents(row(" Red.", " Tuesday.", rewards=[2, -1.5], source="web"))
    assert document["chosen"] == [" Red.", " Tuesday."]
    assert document["rejected"] == []
    assert document["rewards"] == [2, -1.5]
    assert document["messages"] == [{"role": "user", "content": "Name a colour."}]
    assert document["source"] == "web"
    assert document["missing"] == ""
    item = pair_item(document, 0, None)
    assert (item.prompt, item.continuations) == ("Name a colour.", (" Red.", " Tuesday."))
    assert item.reason is None


def test_a_dialogue_is_its_turns() -> None:
    first, second = documents(
        row(" Knock.", " No.", prompt=TALK), row(" Yes.", " No.", prompt=TALK), make=hh_candidates
    )
    assert [(turn["role"], turn["content"]) for turn in first["messages"]] == [
        ("user", "Hi."), ("assistant", "Hello."), ("user", "A joke?"),
    ]  # fmt: skip
    assert (first["prompt"], first["chosen"]) == (TALK, [" Knock.", " No."])
    assert "rewards" not in first
    assert "reference" not in first
    assert first["cluster"] == second["cluster"]


def test_what_is_there_twice_counts_once() -> None:
    (document,) = documents(row("a", "b", "a", rewards=[1, 2, 3]))
    assert (document["chosen"], document["rewards"]) == (["a", "b"], [1, 2])


def test_what_cannot_be_ranked_is_missing_with_its_reason() -> None:
    found = documents(
        row("a"), row("a", "a"), row("a", " "), row(), row("a", "b"), row("a", prompt="")
    )
    reasons = [TOO_FEW, TOO_FEW, EMPTY, TOO_FEW, "", "the prompt is empty"]
    assert [document["missing"] for document in found] == reasons


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"candidates": "red"}, "candidates are a list of texts, not 'red'"),
        ({"candidates": ["a", None]}, "candidates are a list of texts"),
        ({"candidates": ["a", "b"], "rewards": [1.0]}, "rewards are a list of 2 numbers"),
        ({"candidates": ["a", "b"], "rewards": [1.0, float("inf")]}, "none of them infinite"),
        ({"candidates": ["a", "b"], "rewards": [1.0, None]}, "rewards are numbers"),
        ({}, "the data set has no column candidates, only prompt"),
    ],
)
def test_bad_rows_are_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        documents({"prompt": "Name a colour.", **bad})


def test_a_prompt_that_is_no_dialogue_is_refused() -> None:
    with pytest.raises(DataError, match=r"must end with .*Assistant:"):
        documents(row("a", "b"), make=hh_candidates)


def test_the_demos_candidates(small_zoo: Path) -> None:
    lines = (small_zoo / "data" / "candidates" / "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    found = documents(*rows, make=hh_candidates)
    for given, document in zip(rows, found, strict=True):
        assert document["prompt"] == given["prompt"]
        assert document["chosen"] == given["candidates"]
        assert document["messages"][-1]["role"] == "user"
        assert document["missing"] == ""
