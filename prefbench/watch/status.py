"""results/status.json: what watchers know of each checkpoint, for people and for machines."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefbench.buckets.places import working_copy
from prefbench.errors import InputError, StoreError
from prefbench.store import Store, there
from prefbench.watch.events import State, living

FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One checkpoint: its state, why, and how many of its cells and comparisons are done."""

    name: str
    path: str
    state: State
    reason: str | None = None
    method: str | None = None
    step: int | None = None
    since: str | None = None
    tries: int = 0
    ended: int = 0
    """How many processes in a row have ended in its turn and have left nothing."""
    watcher: str | None = None
    """Who measures it, while it is running."""
    cells: tuple[str, ...] = ()
    comparisons: tuple[str, ...] = ()
    n_measured: int = 0
    n_judged: int = 0
    gate: Mapping[str, Any] | None = None
    """What the gate says of it: outcome, baseline and checks, as `prefbench gate --json` does."""


@dataclass(frozen=True)
class Status:
    """All rows, when they were written, and which watchers run."""

    when: str
    rows: tuple[Row, ...]
    watchers: tuple[str, ...]
    far: bool = False
    """Whether watchers may run on machines whose locks cannot be seen from here."""


def write_status(file: Path, rows: Sequence[Row], when: str) -> None:
    """Writes beside the file and renames: a reader sees the old one or the new one."""
    text = json.dumps(
        {"format": FORMAT, "when": when, "checkpoints": [dataclasses.asdict(one) for one in rows]},
        indent=1,
    )
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise StoreError(f"{file}: cannot be written: {error}") from error


def read_status(results: Path, file: Path | None = None) -> Status:
    """What was written last, put right by what is sealed and by which watchers still run.

    Raises:
        InputError: no watcher has written here.
        StoreError: the file or the results cannot be read.
    """
    file = file or results / "status.json"
    store = there(results)  # before the file, which may be on an object store
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise StoreError(f"{file}: format {found['format']}, this prefbench reads {FORMAT}")
        rows = [Row(**row) for row in found["checkpoints"]]
        when = str(found["when"])
    except FileNotFoundError:
        raise InputError(f"{file} is not there; `prefbench watch` writes it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file}: cannot be read: {error}; a watcher writes it anew") from error
    watchers = living(results / "watch")
    store = store or Store(results, create=False)
    far = working_copy(results) is not None
    found_rows = tuple(_put_right(row, store, watchers, far=far) for row in rows)
    return Status(when, found_rows, tuple(watchers), far)


def _put_right(row: Row, store: Store, watchers: Sequence[str], *, far: bool) -> Row:
    """A row as it is now: sealed cells count, and nobody dead measures anything."""
    n_measured = sum(store.is_sealed(cell) for cell in row.cells)
    n_judged = sum(store.is_sealed(cell) for cell in row.comparisons)
    row = dataclasses.replace(
        row,
        cells=tuple(row.cells),
        comparisons=tuple(row.comparisons),
        n_measured=n_measured,
        n_judged=n_judged,
    )
    if row.state == "running" and row.watcher not in watchers:
        if far:
            reason = "as its watcher has written; whether that still runs is known on its machine"
            return dataclasses.replace(row, reason=reason)
        done = row.cells and n_measured == len(row.cells)
        reason = "the watcher that measured it has ended; another goes on from there"
        return dataclasses.replace(
            row, state="measured" if done else "ready", reason=reason, watcher=None
        )
    return row
