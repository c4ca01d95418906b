"""Kinds of broken tasks, data and policies, and what must be said of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.reliability.broken import BOMB, MANY

ROWS: tuple[dict[str, Any], ...] = tuple(
    {"query": f"Is {n} even?", "choices": [" yes", " no"], "gold": n % 2} for n in range(4)
)
TASK = {
    "output_type": "multiple_choice",
    "test_split": "test",
    "num_fewshot": 0,
    "doc_to_text": "{{query}}",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0, "prefbench": {"metrics": ["acc"]}},
}


class Kind(NamedTuple):
    """A kind of damage to a task.

    Attributes:
        name: of the task.
        task: other entries of its YAML, or all of the file.
        data: the rows of its data, or all of the file, or None for no file.
        said: a part of what is said of it; nothing where it is measured all the same.
        suffix: of the file of its data.
    """

    name: str
    task: dict[str, Any] | str
    data: Sequence[dict[str, Any]] | bytes | None
    said: str
    suffix: str = "jsonl"


def lines(rows: Sequence[dict[str, Any]], end: str = "\n") -> bytes:
    return "".join(json.dumps(row) + end for row in rows).encode()


CANNOT = "cannot be read as data"
FUNCTION = "process_docs: !function {}\n"
WHOLE = yaml.safe_dump(TASK)

REFUSED = (
    Kind("yaml_bomb", BOMB + WHOLE, ROWS, "more than 100000 values"),
    Kind("yaml_cut", WHOLE + "metadata: {", ROWS, "cannot be read as YAML"),
    Kind(
        "yaml_tags",
        "x: !!python/object/apply:os.system [id]\n" + WHOLE,
        ROWS,
        "could not determine a constructor",
    ),
    Kind("yaml_deep", "x: " + "[" * MANY + "\n" + WHOLE, ROWS, "nested too deeply"),
    Kind("key_unknown", {"metadata": {"prefbench": {"metrisc": []}}}, ROWS, "metrisc"),
    Kind("include_circle", "include: include_circle.yaml\n" + WHOLE, ROWS, "includes itself"),
    Kind("include_nowhere", "include: ../../nowhere.yaml\n" + WHOLE, ROWS, "nowhere"),
    Kind("data_away", {}, None, "names data_away.jsonl"),
)
"""The command is refused: nothing else is measured either, until the task is left out."""

FAILED = (
    Kind("function_nowhere", FUNCTION.format("nowhere.to.be.found") + WHOLE, ROWS, "nowhere"),
    Kind("template_syntax", {"doc_to_text": "{{query"}, ROWS, "TemplateSyntaxError"),
    Kind("column_missing", {"doc_to_text": "{{ question }}"}, ROWS, "'question' is undefined"),
    Kind("column_misspelt", {"doc_to_target": "glod"}, ROWS, "the data have no column 'glod'"),
    Kind("data_empty", {}, b"", "data_empty.yaml"),
    Kind("data_cut", {}, lines(ROWS)[:-20], CANNOT),
    Kind("data_no_utf8", {}, lines(ROWS).replace(b"even", b"\xff\xfe"), CANNOT),
    Kind("data_of_lists", {}, b"[1, 2]\n[3]\n", CANNOT),
    Kind("parquet_garbage", {}, b"PAR1 nothing PAR1", CANNOT, "parquet"),
    Kind("parquet_empty", {}, b"", CANNOT, "parquet"),
)
"""Their cells fail; all else is measured."""

MEASURED = (
    Kind("same_twice", {}, [*ROWS, *ROWS], ""),
    Kind("same_id", {}, [{**row, "id": 7} for row in ROWS], ""),
    Kind("line_ends", {}, lines(ROWS[:2], "\r\n") + lines(ROWS[2:]), ""),
    Kind("huge_prompt", {}, [{**ROWS[0], "query": "word " * 40_000}, *ROWS[1:]], ""),
    Kind("../outside", {}, ROWS, ""),
)
"""What looks bad, and is measured all the same."""


def make_tasks(kinds: Sequence[Kind], folder: Path) -> None:
    """The YAML files in `tasks/`, and a mirror of their data in `data/`."""
    (folder / "tasks").mkdir(parents=True)
    (folder / "data").mkdir()
    mirror = {}
    for one in kinds:
        file = Path(one.name).name
        facts = {"task": one.name, "dataset_path": f"made/{file}"}
        if isinstance(one.task, str):
            text = yaml.safe_dump(facts) + one.task
        else:
            text = yaml.safe_dump({**TASK, **facts, **one.task})
        (folder / "tasks" / f"{file}.yaml").write_text(text)
        mirror[f"made/{file}"] = {"default": {"test": f"{file}.{one.suffix}"}}
        place = folder / "data" / f"{file}.{one.suffix}"
        if isinstance(one.data, bytes):
            place.write_bytes(one.data)
        elif one.data is not None and one.suffix == "parquet":
            pq.write_table(pa.Table.from_pylist(list(one.data)), place)
        elif one.data is not None:
            place.write_bytes(lines(one.data))
    (folder / "data" / "mirror.yaml").write_text(yaml.safe_dump(mirror))


POLICIES = {
    "bomb": (BOMB, "a policy has no aliases"),
    "garbage": ("{{{", "YAML"),
    "empty": ("", "policy"),
    "key unknown": (
        "{baseline: sft, ruels: [], rules: [{task: '*', metric: shown, max_drop: 1}]}",
        "ruels",
    ),
    "baseline unknown": (
        "{baseline: nobody, rules: [{task: '*', metric: shown, max_drop: 1}]}",
        "nobody",
    ),
    "tags": ("!!python/object/apply:os.system [id]", "YAML"),
}
"""Policies of the gate, and what is said of them."""
