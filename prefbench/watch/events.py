"""What watchers of a results directory have seen: one line for each change of a state.

results/watch/events.jsonl     appended by all watchers, never edited
results/watch/<watcher>.lock   held by the operating system while that watcher lives
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from filelock import FileLock, Timeout

from prefbench.errors import StoreError

State = Literal[
    "seen",
    "incomplete",
    "ready",
    "running",
    "measured",
    "judged",
    "failed",
    "pruned",
    "skipped",
]


@dataclass(frozen=True)
class Event:
    """A checkpoint came into a state; `stamp` is that of its files then."""

    when: str
    watcher: str
    path: str
    name: str
    state: State
    reason: str | None = None
    stamp: str = ""
    tries: int = 0
    """How often these very files have failed."""
    cells: tuple[str, ...] = ()
    """Of measured and judged: what is sealed."""


FIELDS = {one.name for one in dataclasses.fields(Event)}


class Events:
    """The events file, and the last event of each checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "events.jsonl"
        self.last: dict[str, Event] = {}
        self._read = 0

    def refresh(self) -> None:
        """Reads what was appended since; lines that are torn or of no known form are left out."""
        try:
            with self.file.open("rb") as file:
                file.seek(self._read)
                whole, end, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self.file}: cannot be read: {error}") from error
        self._read += len(whole) + len(end)
        for line in whole.splitlines():
            if (event := _event(line)) is not None:
                self.last[event.path] = event

    def append(self, event: Event) -> None:
        """Adds a line in one write and waits until it is on the disk.

        Raises:
            StoreError: the file cannot be written.
        """
        line = json.dumps(dataclasses.asdict(event)).encode() + b"\n"
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                    if file.read(1) != b"\n":  # a killed watcher has left a torn line
                        line = b"\n" + line
                file.write(line)
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"{self.file}: cannot be written: {error}") from error
        self.last[event.path] = event


def _event(line: bytes) -> Event | None:
    try:
        found: Any = json.loads(line)
        known = {name: value for name, value in found.items() if name in FIELDS}
        return Event(**{**known, "cells": tuple(known.get("cells", ()))})
    except (ValueError, TypeError, AttributeError):
        return None


class Watcher:
    """This process as a watcher, for the length of a `with`; others can tell that it lives."""

    def __init__(self, folder: Path) -> None:
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        self.name = f"{host}-{os.getpid()}-{threading.get_ident() % 10_000}"
        self._lock = FileLock(folder / f"{self.name}.lock")

    def __enter__(self) -> Watcher:
        path = Path(self._lock.lock_file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except OSError as error:
            raise StoreError(f"{path}: cannot be locked: {error}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def is_alive(folder: Path, watcher: str) -> bool:
    """Whether a watcher still runs: its lock goes with its process, however that ends."""
    path = folder / f"{watcher}.lock"
    if Path(watcher).name != watcher or not path.is_file():
        return False
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a directory that may be read alone
        return False


def living(folder: Path) -> list[str]:
    """The watchers that run."""
    return [path.stem for path in sorted(folder.glob("*.lock")) if is_alive(folder, path.stem)]
