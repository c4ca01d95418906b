"""Files of what people prefer, in each form, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefbench import data
from prefbench.documents import hh_prompts
from prefbench.errors import DataError
from prefbench.interchange.labels import read_labels
from prefbench.judges.judge import Turn

START = "\n\nHuman: Is it late?\n\nAssistant:"


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_prompts_and_messages(tmp_path: Path) -> None:
    answers = {"first": " yes ", "second": "no", "preference": 0.25}
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Late? "}]
    found, left_out = read_labels(
        written(tmp_path, {"prompt": "Late?", **answers}, {"messages": turns, **answers})
    )
    assert not left_out
    assert [(one.first, one.second, one.preference) for one in found] == [("yes", "no", 0.25)] * 2
    assert found[0].conversation == (Turn("user", "Late?"),)
    assert found[1].conversation == (Turn("system", "Be short."), Turn("user", "Late?"))


def test_chosen_and_rejected(tmp_path: Path) -> None:
    whole = {"chosen": START + " yes", "rejected": START + " no"}
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.Table.from_pylist([whole, {**whole, "rejected": START + " yes"}]), path)
    (found,), left_out = read_labels(path)
    assert (found.first, found.second, found.preference) == ("yes", "no", 1)
    assert found.conversation == (Turn("user", "Is it late?"),)
    assert left_out == {"chosen and rejected are identical": 1}
    plain = {"prompt": "Late?", "chosen": "yes", "rejected": "no"}
    (other,), _ = read_labels(written(tmp_path, plain))
    assert (other.first, other.second, other.preference) == ("yes", "no", 1)


def test_a_dialogue_has_the_cluster_and_turns_that_the_task_gives_it(tmp_path: Path) -> None:
    whole = {"chosen": START + " yes", "rejected": START + " no"}
    path = written(tmp_path, whole)
    (found,), _ = read_labels(path)
    source = data.Source("x", files={"test": path})
    (document,) = hh_prompts(data.load(source, ["test"])["test"])
    assert found.cluster == document["cluster"]
    assert [turn._asdict() for turn in found.conversation] == document["messages"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "p", "first": "a", "preference": 1}, "'second': a text is needed"),
        ({"prompt": "p", "first": "a", "second": "b", "preference": 2}, "not between 0 and 1"),
        ({"first": "a", "second": "b", "preference": 1}, "'prompt': a text is needed"),
        ({"messages": "p", "first": "a", "second": "b", "preference": 1}, "a list of turns"),
        ({"messages": [{"role": "god"}], "first": "a", "second": "b", "preference": 1}, "a role"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=f"line 1, key .*{said}"):
        read_labels(written(tmp_path, row))


def test_rows_that_say_nothing_are_counted(tmp_path: Path) -> None:
    row = {"prompt": "p", "first": "a", "second": "b", "preference": None}
    same = {"prompt": "p", "first": "a", "second": "a", "preference": 1}
    found, left_out = read_labels(written(tmp_path, row, same))
    assert not found
    assert left_out == {"no preference is given": 1, "the two answers are identical": 1}


def test_what_is_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    path.write_text("no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_labels(path)
