"""Rows as they are written: an answer in a line of a journal or in Parquet, records by quantity."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from prefbench.records import Answer, Record

ANSWER_SCHEMA = pa.schema(
    [
        ("item", pa.int32()),
        ("texts", pa.list_(pa.string())),
        ("logps", pa.list_(pa.float64())),
        ("greedy", pa.list_(pa.bool_())),
        ("n_tokens", pa.list_(pa.int32())),
        ("n_bytes", pa.list_(pa.int32())),
        ("n_cut", pa.int32()),
        ("unfinished", pa.list_(pa.bool_())),
        ("reason", pa.string()),
    ]
)
DETAILS = pa.schema(
    [
        ("token_ids", pa.list_(pa.list_(pa.int32()))),
        ("token_logps", pa.list_(pa.list_(pa.float64()))),
        ("gram", pa.list_(pa.float64())),
        ("numbers", pa.map_(pa.string(), pa.float64())),
        ("cosines", pa.list_(pa.float32())),
    ]
)
"""Columns of answers that only some tasks have."""
ITEM_SCHEMA = pa.schema(
    [
        ("item", pa.int64()),
        ("cluster", pa.string()),
        ("prompt", pa.string()),
        ("continuations", pa.list_(pa.string())),
        ("fields", pa.string()),
    ]
)


class Batch(NamedTuple):
    """Items that were answered together, and the hash of the texts that they were sent."""

    texts: str
    answers: list[Answer]


def wide_table(records: Iterable[Record], clusters: Mapping[int, str]) -> pa.Table:
    """One row per item and a column per quantity; null where the item lacks it."""
    rows = {item: i for i, item in enumerate(sorted(clusters))}
    columns: dict[str, list[float | None]] = {}
    reasons: list[str | None] = [None] * len(rows)
    for item, quantity, value, reason in records:
        if reason is not None:
            reasons[rows[item]] = _whole(reason)
        else:
            columns.setdefault(quantity, [None] * len(rows))[rows[item]] = value
    items = pa.array(list(rows), pa.int32())
    names = pa.array([_whole(clusters[item]) for item in rows], pa.string()).dictionary_encode()
    return pa.table(
        {
            "item": items,
            "cluster": names,
            "reason": pa.array(reasons, pa.string()),
            **{name: pa.array(values, pa.float64()) for name, values in sorted(columns.items())},
        }
    )


def row_of(answer: Answer) -> dict[str, Any]:
    """An answer as it is written: without the details that it does not have."""
    row = {name: getattr(answer, name) for name in FIELDS}
    row["texts"] = tuple(map(_whole, answer.texts))
    row["reason"] = None if answer.reason is None else _whole(answer.reason)
    return {k: v for k, v in row.items() if k not in DETAILS.names or v}


FIELDS = tuple(one.name for one in dataclasses.fields(Answer))


HALVES = re.compile("[\ud800-\udfff]")


def _whole(text: str) -> str:
    """Text with U+FFFD for halves of characters: JSON may say them, Parquet cannot hold them."""
    return HALVES.sub("\ufffd", text)


def batch_of(line: Mapping[str, Any]) -> tuple[int, Batch]:
    """A journal's line read.

    Raises:
        TypeError, ValueError, LookupError: it is none.
    """
    number, texts = line["batch"], line["texts"]
    if type(number) is not int or not isinstance(texts, str):
        raise TypeError("a batch has a number and a hash")
    return number, Batch(texts, [answer_of(row) for row in line["answers"]])


def answer_of(row: Mapping[str, Any]) -> Answer:
    """A row read, from a journal or from Parquet."""
    fields = {name: _tuples(value) for name, value in row.items() if value is not None}
    if "numbers" in fields:  # a map of Parquet comes as pairs
        fields["numbers"] = dict(fields["numbers"])
    return Answer(**fields)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def line_of(value: Mapping[str, Any]) -> str:
    """A line of a journal."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
