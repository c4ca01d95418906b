"""The results directory: rows are appended batch by batch, and a cell that is done is sealed.

results/cells/<cell>/journal.jsonl     batches as they come, while the cell is open
results/cells/<cell>/answers.parquet   one row per item, once it is sealed
results/cells/<cell>/records.parquet   one row per item, a column per quantity
results/cells/<cell>/manifest.json     what was measured and how; written last, so it seals
results/cells/<cell>/failure.json      why the last try failed, until one succeeds
results/cells/<cell>/lock, lease       who has claimed it (lease_files.py)
results/items/<digest>.parquet         prompts as sent, shared by the cells that sent them
results/plans/<id>.json                what a run set out to measure, refused checkpoints too
results/verdicts.sqlite                what judges replied (judges/verdicts.py)

A cell that judges the answers of other cells has no answers of its own. Of results on an object
store this is the working copy (buckets/): what is finished is brought there, what others have
finished is here when it is needed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from prefbench.buckets.bucket import bucket_of
from prefbench.buckets.claims import ObjectClaims
from prefbench.buckets.places import told
from prefbench.errors import LostError, StoreError
from prefbench.files import (
    encoded,
    explained,
    read_json,
    read_table,
    replace,
    unreadable_table,
    write_json,
    write_table,
)
from prefbench.lease_files import FileLeases
from prefbench.leases import Claim, Leases, take_all
from prefbench.records import Answer, Record
from prefbench.rows import (
    ANSWER_SCHEMA,
    DETAILS,
    ITEM_SCHEMA,
    Batch,
    answer_of,
    batch_of,
    line_of,
    row_of,
    wide_table,
)

FORMAT = 1
LOOKS = 0.05, 1.0
"""Seconds between looks whether a cell has become free: at first, and in the long run."""


def there(results: Path) -> Store | None:
    """A results directory, if there are results.

    Raises:
        StoreError: it cannot be read.
    """
    if bucket := bucket_of(results):
        bucket.pull()
    return Store(results, create=False) if (results / "store.json").exists() else None


class Store:
    """The cells of one results directory; several processes may use it at once."""

    def __init__(
        self, folder: Path, *, create: bool = True, leases: Sequence[Leases] | None = None
    ) -> None:
        """Opens or makes a results directory.

        Args:
            folder: where it is.
            create: whether to make it where it is not there.
            leases: the kinds of leases that a claim takes, in this order; files by default.

        Raises:
            StoreError: it is not there (without `create`), cannot be written, or is of a format
                that this version does not know.
        """
        if re.fullmatch(r"[a-z][a-z0-9+]+:", next(iter(folder.parts), "")):
            raise StoreError(
                f"{folder}: a Path holds no address; prefbench.buckets.places.place of the text "
                "gives the path of its working copy"
            )
        self.folder = folder
        self.name = told(folder)
        """What a user calls it."""
        self.leases = tuple(leases) if leases is not None else (FileLeases.from_environment(),)
        self._bucket = bucket_of(folder)
        if self._bucket:
            self.leases = (*self.leases, ObjectClaims(self._bucket))
            self._bucket.open()
        mark = folder / "store.json"
        try:
            if not mark.exists():
                if not create:
                    raise StoreError(f"{self.name}: no results here; `prefbench run` makes them")
                folder.mkdir(parents=True, exist_ok=True)
                write_json(mark, {"format": FORMAT})
            facts = json.loads(mark.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"{mark}: cannot be read or written: {error}") from error
        found = facts.get("format") if isinstance(facts, dict) else None
        if found != FORMAT:
            raise StoreError(f"{mark}: format {found}, this prefbench reads {FORMAT}; update it")
        if self._bucket and create:
            self._bucket.push_all()  # what a process that was killed has left

    def refresh(self) -> None:
        """Looks for what other machines have done; on a disk it is there anyway."""
        if self._bucket:
            self._bucket.look_again()

    def share_verdicts(self, *, sometimes: bool = False) -> None:
        """Lets other machines have the verdicts; on a disk they have them anyway.

        Args:
            sometimes: only if that was long ago.
        """
        if self._bucket:
            self._bucket.share_verdicts(sometimes=sometimes)

    def tell(self, listener: Callable[[str], None]) -> None:
        """Says who is told when an object store goes away and when it is back."""
        if self._bucket:
            self._bucket.tell = listener

    def close(self) -> str | None:
        """Brings to an object store what it does not have yet, and says why something is left."""
        return self._bucket.close() if self._bucket else None

    def is_sealed(self, cell: str) -> bool:
        """Whether the cell is done."""
        return (self._cell(cell) / "manifest.json").exists()

    @contextmanager
    def claim(self, cell: str, *, wait: bool = False) -> Iterator[Cell | None]:
        """The cell, for this process alone; None if another has it and `wait` is off.

        What a killed process has left is free at once on its own node, on others after a term.
        """
        folder = self._cell(cell)
        with self._claimed(cell, folder, wait=wait) as claim:
            yield Cell(cell, folder, self, claim) if claim else None

    @contextmanager
    def alone(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Whether this process alone has something besides the cells, as `claim` says of those."""
        with self._claimed(name, self.folder / f".{name}", wait=wait) as claim:
            yield claim is not None

    @contextmanager
    def _claimed(self, name: str, folder: Path, *, wait: bool) -> Iterator[Claim | None]:
        pause, longest = LOOKS
        while True:
            with explained(folder):
                folder.mkdir(parents=True, exist_ok=True)
                claim = take_all(self.leases, name, folder)
            if claim or not wait:
                break
            time.sleep(pause)
            pause = min(2 * pause, longest)
        try:
            yield claim
        finally:
            if claim:
                claim.release()

    def manifest(self, cell: str) -> dict[str, Any] | None:
        """What was measured and how; None while the cell is not sealed."""
        return read_json(self._cell(cell) / "manifest.json")

    def failure(self, cell: str) -> str | None:
        """Why the last try of an unsealed cell failed."""
        found = read_json(self._cell(cell) / "failure.json")
        return str(found.get("reason")) if found else None

    def forget_failure(self, cell: str) -> None:
        """Takes back that a try failed, where it was no fault of the cell's."""
        path = self._cell(cell) / "failure.json"
        with explained(path):
            path.unlink(missing_ok=True)

    def records(self, cell: str) -> pa.Table:
        """The numbers of a sealed cell: `item`, `cluster`, `reason` and a column per quantity."""
        return read_table(self._cell(cell) / "records.parquet")

    def answers(self, cell: str) -> list[Answer]:
        """The answers of a sealed cell, by item."""
        path = self._here(f"cells/{cell}/answers.parquet")
        table = read_table(path)
        try:
            return [answer_of(row) for row in table.to_pylist()]
        except (TypeError, ValueError) as error:
            raise unreadable_table(path, error) from error

    def behind(self, cell: str) -> str:
        """The cell whose answers a sealed cell's numbers are made of: itself, or another."""
        manifest = self.manifest(cell) or {}
        told = manifest.get("judging") or manifest.get("analysis") or {}
        return str(told.get("answers", cell)) if isinstance(told, dict) else cell

    def items(self, digest: str) -> pa.Table:
        """The prompts and fields behind a cell: `item`, `prompt`, `continuations`, `fields`."""
        table = read_table(self._here(f"items/{digest}.parquet"))
        # Of no item, nothing tells the columns.
        return table if table.num_columns else ITEM_SCHEMA.empty_table()

    def write_items(self, digest: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keeps prompts once, however many cells sent them."""
        path = self.folder / "items" / f"{digest}.parquet"
        if not path.exists():
            write_table(path, pa.Table.from_pylist(list(rows)))
            self._send(path)

    def write_plan(self, name: str, plan: Mapping[str, Any]) -> None:
        """Keeps what a run set out to measure; the same run again replaces it."""
        path = self.folder / "plans" / f"{name}.json"
        write_json(path, plan)
        self._send(path)

    def n_begun(self, cell: str) -> int:
        """How far an open cell is: the bytes that its journal has."""
        try:
            return (self._cell(cell) / "journal.jsonl").stat().st_size
        except OSError:
            return 0

    def drop_plan(self, name: str) -> None:
        """Forgets what a run set out to measure; what it measured stays."""
        path = self.folder / "plans" / f"{name}.json"
        if self._bucket:  # nothing is deleted there; an empty plan is none
            self.write_plan(name, {})
        else:
            with explained(path):
                path.unlink(missing_ok=True)

    def plans(self) -> list[dict[str, Any]]:
        """All plans, the latest last."""
        found = [read_json(path) for path in sorted((self.folder / "plans").glob("*.json"))]
        return sorted((p for p in found if p), key=lambda plan: str(plan.get("when", "")))

    def sent(self, cell: str) -> None:
        """Brings to an object store what is new of a cell."""
        if self._bucket:
            self._bucket.push_cell(cell)

    def sent_sometimes(self, cell: str) -> None:
        """Brings the journal of a cell to an object store, if that was long ago."""
        if self._bucket:
            self._bucket.push_sometimes(f"cells/{cell}/journal.jsonl")

    def _send(self, path: Path) -> None:
        if self._bucket:
            self._bucket.push(path.relative_to(self.folder).as_posix())

    def _here(self, name: str) -> Path:
        """A file that may be on an object store alone until it is read."""
        if self._bucket:
            self._bucket.fetch(name)
        return self.folder / name

    def _cell(self, cell: str) -> Path:
        return self.folder / "cells" / cell


class Cell:
    """One cell while a process has claimed it.

    Whatever is written of it raises a LostError, and writes nothing, where the claim was lost.
    """

    def __init__(self, name: str, folder: Path, store: Store, claim: Claim) -> None:
        self.name = name
        self.folder = folder
        self.store = store
        self._claim = claim

    def check(self) -> None:
        """Makes sure that the cell is still ours.

        Raises:
            LostError: another process has taken it over.
        """
        with explained(self.folder):
            if not self._claim.is_ours():
                raise LostError(f"{self.name}: taken over by another process")

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    def resume(self, header: Mapping[str, Any]) -> dict[int, Batch]:
        """The batches that an interrupted run has left, by number; a torn last one is cut off.

        Of a batch that was asked again the later answers count. A journal with another header
        (another batch plan) is begun anew.
        """
        with explained(self.journal):
            lines, good = self._read_journal()
            if not lines or lines[0] != json.loads(json.dumps(header)):
                lines, whole = [], encoded(line_of(header))
            else:
                with self.journal.open("rb") as file:
                    whole = file.read(good)
        self.check()
        # A new file: who lost the cell in the midst of an append has the old one open.
        replace(self.journal, lambda temporary: temporary.write_bytes(whole))
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
                        lines.append(batch_of(line) if lines else line)
                    except (ValueError, LookupError, TypeError, RecursionError):
                        break
                    good += len(raw)
        return lines, good

    def _open_journal(self) -> BinaryIO:
        """For appending. It is not made: who has lost the cell would leave one behind."""
        try:
            return os.fdopen(os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), "ab")
        except FileNotFoundError:
            self.check()
            raise

    def append(self, number: int, batch: Batch) -> None:
        """Adds a batch in one write and waits until it is on the disk."""
        rows = [row_of(answer) for answer in batch.answers]
        line = line_of({"batch": number, "texts": batch.texts, "answers": rows})
        with explained(self.journal), self._open_journal() as file:
            self.check()
            file.write(encoded(line))
            file.flush()
            os.fsync(file.fileno())
        self.store.sent_sometimes(self.name)

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
            rows = [row_of(answer) for answer in ordered]
            used = [one for one in DETAILS if any(one.name in row for row in rows)]
            schema = pa.schema([*ANSWER_SCHEMA, *used])
            self.check()
            write_table(self.folder / "answers.parquet", pa.Table.from_pylist(rows, schema))
        table = wide_table(records, clusters)
        self.check()
        write_table(self.folder / "records.parquet", table)
        self.check()
        write_json(self.folder / "manifest.json", manifest)
        for name in ("journal.jsonl", "failure.json"):
            (self.folder / name).unlink(missing_ok=True)
        self.store.sent(self.name)

    def fail(self, reason: str, traceback: str = "") -> None:
        """Keeps why a try failed; the journal stays for the next."""
        self.check()
        write_json(self.folder / "failure.json", {"reason": reason, "traceback": traceback})
