"""What people prefer: files of pairs with a preference each, read strictly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefbench.documents import hh_pairs
from prefbench.errors import DataError
from prefbench.interchange.rows import Row, read_rows, shown
from prefbench.judges.judge import Turn

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Label:
    """How far a person prefers the first of two answers to a prompt, 0 to 1."""

    cluster: str
    conversation: tuple[Turn, ...]
    first: str
    second: str
    preference: float


class _Rows(list[dict[str, Any]]):
    """Rows as `documents` wants a data set."""

    @property
    def column_names(self) -> list[str]:
        return list(self[0])

    @classmethod
    def from_list(cls, rows: list[dict[str, Any]]) -> _Rows:
        return cls(rows)


def read_labels(path: Path) -> tuple[list[Label], dict[str, int]]:
    """The labels of a file of JSON lines, a JSON list or Parquet, and why rows were left out.

    Each row has `first`, `second` and `preference` for the first, with `prompt` or `messages`; or
    `chosen` and `rejected`, with `prompt`, or as whole dialogues in the form of HH-RLHF. What is
    chosen has a preference of 1.

    Raises:
        DataError: the file cannot be read, or a row is of none of these forms.
    """
    found, left_out = [], dict[str, int]()
    for row in _rows(path):
        one = _label(row)
        if isinstance(one, str):
            left_out[one] = left_out.get(one, 0) + 1
        else:
            found.append(one)
    return found, left_out


def _rows(path: Path) -> list[Row]:
    if path.suffix != ".parquet":
        return read_rows(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error
    return [Row(f"{path}, row {i}", fields) for i, fields in enumerate(rows, 1)]


def _label(row: Row) -> Label | str:
    """A row's label, or why it says nothing."""
    if row.has("chosen") and row.has("rejected"):
        chosen, rejected, preference = row.text("chosen"), row.text("rejected"), 1.0
        if not row.has("prompt") and not row.has("messages"):
            (pair,) = hh_pairs(_Rows([{"chosen": chosen, "rejected": rejected}]))
            if pair["missing"]:
                return str(pair["missing"])
            turns = tuple(Turn(turn["role"], turn["content"]) for turn in pair["messages"])
            answers = pair["chosen"][0].strip(), pair["rejected"][0].strip()
            return Label(pair["cluster"], turns, *answers, preference)
        first, second = chosen.strip(), rejected.strip()
    else:
        first, second = row.text("first").strip(), row.text("second").strip()
        said = row.number_or_none("preference")
        if said is None:
            return "no preference is given"
        if not 0 <= said <= 1:
            raise row.wrong("preference", f"holds {said}, which is not between 0 and 1")
        preference = said
    if first == second:
        return "the two answers are identical"
    cluster, turns = _conversation(row)
    return Label(cluster, turns, first, second, preference)


def _conversation(row: Row) -> tuple[str, tuple[Turn, ...]]:
    if not row.has("messages"):
        prompt = row.text("prompt")
        return _digest(prompt), (Turn("user", prompt.strip()),)
    said: Any = row.fields["messages"]
    if not isinstance(said, Sequence) or isinstance(said, str) or not said:
        raise row.wrong("messages", f"holds {shown(said)} where a list of turns is needed")
    turns = []
    for turn in said:
        if (
            not isinstance(turn, Mapping)
            or turn.get("role") not in ROLES
            or not isinstance(turn.get("content"), str)
        ):
            raise row.wrong("messages", f"a turn has a role ({', '.join(ROLES)}) and a content")
        turns.append(Turn(turn["role"], turn["content"].strip()))
    return _digest(json.dumps(turns)), tuple(turns)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
