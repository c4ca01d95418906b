"""The results directory: rows are appended batch by batch, and a cell that is done is sealed.

results/cells/<cell>/journal.jsonl     batches as they come, while the cell is open
results/cells/<cell>/answers.parquet   one row per item, once it is sealed
results/cells/<cell>/records.parquet   one row per item, a column per quantity
results/cells/<cell>/manifest.json     what was measured and how; written last, so it seals
results/cells/<cell>/failure.json      why the last try failed, until one succeeds
results/items/<digest>.parquet         prompts as sent, shared by the cells that sent them
results/plans/<id>.json                what a run set out to measure, refused checkpoints too
results/verdicts.sqlite                what judges replied (judges/verdicts.py)

A cell that judges the answers of other cells has no answers of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from prefbench.errors import StoreError
from prefbench.records import Answer, Record

FORMAT = 1

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


class Store:
    """The cells of one results directory; several processes may use it at once."""

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        """Opens or makes a results directory.

        Raises:
            StoreError: it is not there (without `create`), cannot be written, or is of a format
                that this version does not know.
        """
        self.folder = folder
        mark = folder / "store.json"
        try:
            if not mark.exists():
                if not create:
                    raise StoreError(f"{folder}: no results here; `prefbench run` makes them")
                folder.mkdir(parents=True, exist_ok=True)
                _write_json(mark, {"format": FORMAT})
            facts = json.loads(mark.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"{mark}: cannot be read or written: {error}") from error
        found = facts.get("format") if isinstance(facts, dict) else None
        if found != FORMAT:
            raise StoreError(f"{mark}: format {found}, this prefbench reads {FORMAT}; update it")

    def is_sealed(self, cell: str) -> bool:
        """Whether the cell is done."""
        return (self._cell(cell) / "manifest.json").exists()

    @contextmanager
    def claim(self, cell: str, *, wait: bool = False) -> Iterator[Cell | None]:
        """The cell, for this process alone; None if another has it and `wait` is off.

        The lock is the operating system's, so a killed process leaves none behind.
        """
        folder = self._cell(cell)
        lock = FileLock(folder / "lock")
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            taken = _taken(lock, wait=wait)
        if not taken:
            yield None
            return
        try:
            yield Cell(cell, folder, self)
        finally:
            lock.release()

    def manifest(self, cell: str) -> dict[str, Any] | None:
        """What was measured and how; None while the cell is not sealed."""
        return _read_json(self._cell(cell) / "manifest.json")

    def failure(self, cell: str) -> str | None:
        """Why the last try of an unsealed cell failed."""
        found = _read_json(self._cell(cell) / "failure.json")
        return str(found.get("reason")) if found else None

    def records(self, cell: str) -> pa.Table:
        """The numbers of a sealed cell: `item`, `cluster`, `reason` and a column per quantity."""
        return _read_table(self._cell(cell) / "records.parquet")

    def answers(self, cell: str) -> list[Answer]:
        """The answers of a sealed cell, by item."""
        path = self._cell(cell) / "answers.parquet"
        table = _read_table(path)
        try:
            return [_answer(row) for row in table.to_pylist()]
        except (TypeError, ValueError) as error:
            raise _unreadable_table(path, error) from error

    def behind(self, cell: str) -> str:
        """The cell whose answers a sealed cell's numbers are made of: itself, or another."""
        manifest = self.manifest(cell) or {}
        told = manifest.get("judging") or manifest.get("analysis") or {}
        return str(told.get("answers", cell)) if isinstance(told, dict) else cell

    def items(self, digest: str) -> pa.Table:
        """The prompts and fields behind a cell: `item`, `prompt`, `continuations`, `fields`."""
        table = _read_table(self.folder / "items" / f"{digest}.parquet")
        # Of no item, nothing tells the columns.
        return table if table.num_columns else ITEM_SCHEMA.empty_table()

    def write_items(self, digest: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keeps prompts once, however many cells sent them."""
        path = self.folder / "items" / f"{digest}.parquet"
        if not path.exists():
            _write_table(path, pa.Table.from_pylist(list(rows)))

    def write_plan(self, name: str, plan: Mapping[str, Any]) -> None:
        """Keeps what a run set out to measure; the same run again replaces it."""
        _write_json(self.folder / "plans" / f"{name}.json", plan)

    def plans(self) -> list[dict[str, Any]]:
        """All plans, the latest last."""
        found = [_read_json(path) for path in sorted((self.folder / "plans").glob("*.json"))]
        return sorted((p for p in found if p), key=lambda plan: str(plan.get("when", "")))

    def _cell(self, cell: str) -> Path:
        return self.folder / "cells" / cell


class Cell:
    """One cell while a process has claimed it."""

    def __init__(self, name: str, folder: Path, store: Store) -> None:
        self.name = name
        self.folder = folder
        self.store = store

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    def resume(self, header: Mapping[str, Any]) -> dict[int, Batch]:
        """The batches that an interrupted run has left, by number; a torn last one is cut off.

        Of a batch that was asked again the later answers count. A journal with another header
        (another batch plan) is begun anew.
        """
        with _explained(self.journal):
            lines, good = self._read_journal()
            if not lines or lines[0] != json.loads(json.dumps(header)):
                self.journal.write_bytes(_encoded(_line(header)))
                return {}
            with self.journal.open("r+b") as file:
                file.truncate(good)
        return dict(lines[1:])

    def _read_journal(self) -> tuple[list[Any], int]:
        """The header and the batches up to the first line that is neither, and their bytes."""
        lines: list[Any] = []
        good = 0
        if self.journal.exists():
            with self.journal.open("rb") as file:
                for raw in file:
                    try:
                        if not raw.endswith(b"\n"):
                            break
                        line = json.loads(raw)
                        lines.append(_batch(line) if lines else line)
                    except (ValueError, LookupError, TypeError, RecursionError):
                        break
                    good += len(raw)
        return lines, good

    def append(self, number: int, batch: Batch) -> None:
        """Adds a batch in one write and waits until it is on the disk."""
        rows = [_row(answer) for answer in batch.answers]
        line = _line({"batch": number, "texts": batch.texts, "answers": rows})
        with _explained(self.journal), self.journal.open("ab") as file:
            file.write(_encoded(line))
            file.flush()
            os.fsync(file.fileno())

    def seal(
        self,
        answers: Sequence[Answer],
        records: Iterable[Record],
        clusters: Mapping[int, str],
        manifest: Mapping[str, Any],
    ) -> None:
        """Writes the rows in the order of the items, then the manifest that makes them count.

        Args:
            answers: of every item; none for a cell that judges the answers of others.
            records: their numbers.
            clusters: the cluster of every item.
            manifest: what was measured and how.
        """
        if answers:
            ordered = sorted(answers, key=lambda answer: answer.item)
            rows = [_row(answer) for answer in ordered]
            used = [one for one in DETAILS if any(one.name in row for row in rows)]
            schema = pa.schema([*ANSWER_SCHEMA, *used])
            _write_table(self.folder / "answers.parquet", pa.Table.from_pylist(rows, schema))
        _write_table(self.folder / "records.parquet", _wide(records, clusters))
        _write_json(self.folder / "manifest.json", manifest)
        for name in ("journal.jsonl", "failure.json"):
            (self.folder / name).unlink(missing_ok=True)

    def fail(self, reason: str, traceback: str = "") -> None:
        """Keeps why a try failed; the journal stays for the next."""
        _write_json(self.folder / "failure.json", {"reason": reason, "traceback": traceback})


def _wide(records: Iterable[Record], clusters: Mapping[int, str]) -> pa.Table:
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


def _row(answer: Answer) -> dict[str, Any]:
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


def _batch(line: Mapping[str, Any]) -> tuple[int, Batch]:
    """A journal's line read.

    Raises:
        TypeError, ValueError, LookupError: it is none.
    """
    number, texts = line["batch"], line["texts"]
    if type(number) is not int or not isinstance(texts, str):
        raise TypeError("a batch has a number and a hash")
    return number, Batch(texts, [_answer(row) for row in line["answers"]])


def _answer(row: Mapping[str, Any]) -> Answer:
    fields = {name: _tuples(value) for name, value in row.items() if value is not None}
    if "numbers" in fields:  # a map of Parquet comes as pairs
        fields["numbers"] = dict(fields["numbers"])
    return Answer(**fields)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _encoded(text: str) -> bytes:
    """JSON in UTF-8; half a character, as in the name of a folder, becomes JSON's escape of it."""
    return text.encode("utf-8", errors="backslashreplace")


def _taken(lock: FileLock, *, wait: bool) -> bool:
    """Whether a lock could be had. Not to have it in time is an OSError as well, but no failure."""
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        return False
    return True


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What the operating system says of a path, as our error."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}; what was appended before is "
            "safe, make room or fix the permissions and run the same command again"
        ) from error


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, default=str)
    _replace(path, lambda temporary: temporary.write_bytes(_encoded(text + "\n")))


def _write_table(path: Path, table: pa.Table) -> None:
    _replace(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def _replace(path: Path, write: Any) -> None:
    """Writes beside a file and renames, so that a reader sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read: {error}; delete it to measure again") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path}: cannot be read: no JSON object; delete it to measure again")
    return value


def _read_table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
        table.validate(full=True)  # text that is no UTF-8 would fail much later
    except (OSError, pa.ArrowException, LookupError, ValueError) as error:
        raise _unreadable_table(path, error) from error
    return table


def _unreadable_table(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path}: cannot be read: {error}; delete {path.parent} to measure again")
