"""What watchers of a results directory have seen: one line for each change of a state.

results/watch/events.jsonl     appended by all watchers, never edited
results/watch/<watcher>.lock   held by the operating system while that watcher lives
results/watch/<watcher>.lease  renewed by it meanwhile, for watchers of other nodes
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from prefbench.errors import StoreError
from prefbench.lease_files import FileLeases
from prefbench.leases import Claim
from prefbench.watch.lines import Lines

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
    """All that make the checkpoint measured, once that is known."""
    ended: int = 0
    """How many processes in a row have ended in a turn of these files and have left nothing."""
    progress: tuple[int, ...] = ()
    """Of a turn: how far its cells were when it began."""
    beside: tuple[str, ...] = ()
    """Of a turn: other cells that it may seal or fail, such as opponents' answers."""
    plan: str = ""
    """Of a turn, and of what followed from it: the name of its plan in the store."""


FIELDS = {one.name for one in dataclasses.fields(Event)}

LISTS = ("cells", "beside", "progress")


class Events:
    """The events file, and the last event of each checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.last: dict[str, Event] = {}
        self._lines = Lines(folder / "events.jsonl")

    def refresh(self) -> None:
        """Reads what was appended since; lines that are torn or of no known form are left out."""
        for found in self._lines.new():
            if (event := _event(found)) is not None:
                self.last[event.path] = event

    def append(self, event: Event) -> None:
        """Adds an event and waits until it is on the disk.

        Raises:
            StoreError: the file cannot be written.
        """
        self._lines.append(dataclasses.asdict(event))
        self.last[event.path] = event


def _event(found: Any) -> Event | None:
    try:
        known = {name: value for name, value in found.items() if name in FIELDS}
        lists = {name: tuple(known.get(name, ())) for name in LISTS}
        return Event(**{**known, **lists})
    except (TypeError, AttributeError):
        return None


class Watcher:
    """This process as a watcher, for the length of a `with`; others can tell that it lives."""

    def __init__(self, folder: Path) -> None:
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        # A container's process has the same number each time.
        self.name = f"{host}-{os.getpid()}-{os.urandom(3).hex()}"
        self._folder = folder
        self._claim: Claim | None = None

    def __enter__(self) -> Watcher:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._claim = _leases().take_files(*_files(self._folder, self.name))
        except OSError as error:
            raise StoreError(f"{self._folder}: cannot be written: {error}") from error
        if self._claim is None:
            raise StoreError(f"{self._folder}: {self.name} is there already")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._claim is not None
        self._claim.release()
        with suppress(OSError):
            (self._folder / f"{self.name}.lock").unlink(missing_ok=True)


def is_alive(folder: Path, watcher: str) -> bool:
    """Whether a watcher still runs: its lock goes with its process, however that ends.

    One of another node counts as running until its lease was seen to stand still for a term.
    """
    if Path(watcher).name != watcher:
        return False
    try:
        return _leases().is_held(*_files(folder, watcher))
    except OSError:  # a directory that may be read alone
        return False


def living(folder: Path) -> list[str]:
    """The watchers that run."""
    return [path.stem for path in sorted(folder.glob("*.lease")) if is_alive(folder, path.stem)]


def _leases() -> FileLeases:
    return FileLeases.from_environment()


def _files(folder: Path, watcher: str) -> tuple[Path, Path]:
    return folder / f"{watcher}.lock", folder / f"{watcher}.lease"
