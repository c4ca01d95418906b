"""What a watcher says of checkpoints: each change once, to the log and to the events file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from prefbench.manifest import now
from prefbench.store import Store
from prefbench.watch.events import Event, Events, State
from prefbench.watch.status import Row


class Turn(NamedTuple):
    """What a turn's event says besides the state."""

    plan: str = ""
    """Its name in the store."""
    beside: tuple[str, ...] = ()
    """What it may seal or fail besides its own cells."""
    progress: tuple[int, ...] = ()
    """How far the cells are when it begins."""


KINDS = {"cells", "comparisons", "analyses"}
"""What a plan has lists of."""


class News:
    """The events of a results directory, as one watcher reads and adds to them."""

    def __init__(self, store: Store, watcher: str, log: Callable[[str], None]) -> None:
        self.store = store
        self.watcher = watcher
        self.log = log
        self._events = Events(store.folder / "watch")
        self._said: dict[str, tuple[State, str | None]] = {}

    def refresh(self) -> None:
        """Reads what other watchers have said."""
        self._events.refresh()

    def last(self, path: str) -> Event | None:
        """The last event of a checkpoint."""
        return self._events.last.get(path)

    def vanished(self, here: Iterable[str], root: Path) -> list[Event]:
        """The last events of checkpoints below a directory that are not there."""
        gone = self._events.last.keys() - set(here)
        return [self._events.last[path] for path in sorted(gone) if Path(path).is_relative_to(root)]

    def is_known(self, row: Row) -> bool:
        """Whether its state was said, of these very cells."""
        last = self.last(row.path)
        return last is not None and last.state == row.state and last.cells == row.cells

    def say(self, row: Row, stamp: str, *, turn: Turn | None = None) -> None:
        """Writes a change down, and tells of it.

        Args:
            row: the state of a checkpoint now.
            stamp: of its files; empty where they are gone.
            turn: that begins.
        """
        last = self.last(row.path)
        if turn is None:
            same = last is not None and last.stamp == stamp
            turn = Turn(last.plan, last.beside, last.progress) if last and same else Turn()
        if last and self._is_void(last, row, stamp):
            self._take_back(last, row)
        event = Event(
            when=now(),
            watcher=row.watcher or self.watcher,
            path=row.path,
            name=row.name,
            state=row.state,
            reason=row.reason,
            stamp=stamp,
            tries=row.tries,
            cells=row.cells,
            ended=row.ended,
            progress=turn.progress,
            beside=turn.beside,
            plan=turn.plan,
        )
        if not last or dataclasses.replace(last, when=event.when, watcher=event.watcher) != event:
            self._events.append(event)
        if self._said.get(row.path) != (row.state, row.reason):
            self._said[row.path] = row.state, row.reason
            self.log(f"{row.name}: {row.state}" + (f": {row.reason}" if row.reason else ""))

    def _is_void(self, last: Event, row: Row, stamp: str) -> bool:
        """Whether failures of before say nothing of what is there now.

        Files that have changed or gone may have been going when they failed; so may an opponent's
        in a turn that a killed watcher could not see the end of.
        """
        if row.state == "pruned":
            return last.state != "pruned"
        killed = last.state == "running" != row.state and last.watcher != self.watcher
        return last.stamp != stamp or killed

    def _take_back(self, last: Event, row: Row) -> None:
        """Forgets failures, and lets no table wait for what was deleted."""
        for cell in (*last.cells, *last.beside):
            if not self.store.is_sealed(cell):
                self.store.forget_failure(cell)
        if last.plan and row.state == "pruned":
            withdraw(self.store, last.plan)


def withdraw(store: Store, name: str) -> None:
    """Leaves of a plan what is sealed: nobody can measure the rest, and no table waits for it."""
    for plan in store.plans():
        if plan.get("id") == name:
            kept = dict(plan)
            for kind in KINDS & plan.keys():
                kept[kind] = [one for one in plan[kind] if store.is_sealed(one["cell"])]
            if any(kept.get(kind) for kind in KINDS):
                store.write_plan(name, kept)
            else:
                store.drop_plan(name)
