"""Workers that measure the cells of one run together; each cell is handed to one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from prefbench import errors
from prefbench.cells import PlannedCell, Unit, in_units
from prefbench.errors import PrefbenchError
from prefbench.listener import Listener
from prefbench.parallel.shares import Shares
from prefbench.parallel.worker import Job, Worker
from prefbench.store import Store

MOST_DEATHS = 2
"""Of workers, by one cell, or before they were ready."""


def measure_together(
    cells: Sequence[PlannedCell],
    job: Job,
    *,
    store: Store,
    listener: Listener,
    environments: Sequence[Mapping[str, str]],
) -> dict[str, str]:
    """Measures cells in as many workers as there are environments.

    A worker that dies has its cells taken over, by a fresh one in its place or by another. A cell
    that other runs have claimed is left to them until the end, then waited for.

    Returns:
        The reasons of the cells that failed, by name; those over which two workers died are
        among them.

    Raises:
        StoreError: the results directory cannot be written.
    """
    together = _Together(job, store, listener, environments)
    try:
        claimed = together.carry_out(in_units(cells), wait=False)
        together.carry_out(in_units(claimed), wait=True)
    finally:
        for worker in list(together.workers.values()):
            worker.end()
    return together.failed


class _Together:
    """The workers, and what each is doing."""

    def __init__(
        self,
        job: Job,
        store: Store,
        listener: Listener,
        environments: Sequence[Mapping[str, str]],
    ) -> None:
        self.workers: dict[int, Worker] = {}
        self.failed: dict[str, str] = {}
        self._job = job
        self._store = store
        self._listeners = [listener.of(i) for i in range(len(environments))]
        self._environments = environments
        self._heard: SimpleQueue[tuple[Worker, dict[str, Any] | None]] = SimpleQueue()
        self._shares = Shares((), 1)
        self._wait = False
        self._doing: dict[int, dict[str, PlannedCell]] = {}
        """By worker, the cells that it has been handed and has not ended; and their group."""
        self._groups: dict[int, tuple[str, ...]] = {}
        self._claimed: list[PlannedCell] = []
        self._deaths: Counter[str] = Counter()
        self._false_starts: Counter[int] = Counter()

    def carry_out(self, units: Sequence[Unit], *, wait: bool) -> list[PlannedCell]:
        """Has units measured; returns the cells that other runs have claimed."""
        n_workers = min(len(self._environments), len(units))
        self._shares, self._wait, self._claimed = Shares(units, max(1, n_workers)), wait, []
        self._false_starts.clear()
        for number in range(n_workers):
            self._start(number)
        reason = ""
        while self.workers:
            worker, event = self._heard.get()
            if event is None:
                reason = self._bury(worker)
            else:
                self._hear(worker, event)
        while unit := self._shares.take(0):  # no worker could be started
            for cell in unit.cells:
                self._fail(0, cell, f"no process that could measure it stays alive: {reason}")
        return self._claimed

    def _start(self, number: int) -> None:
        self._doing[number] = {}
        self.workers[number] = Worker(
            number,
            self._job,
            self._environments[number],
            lambda worker, event: self._heard.put((worker, event)),
        )

    def _hear(self, worker: Worker, event: Mapping[str, Any]) -> None:
        doing, listener = self._doing[worker.number], self._listeners[worker.number]
        match event["event"]:
            case "ready":
                self._false_starts[worker.number] = 0
                self._claimed += [doing[name] for name in event["claimed"]]
                self._hand_out(worker)
            case "cell":
                cell = doing[event["cell"]]
                listener.on_cell(cell)
            case "step":
                listener.on_step(event["what"], event["done"], event["total"])
            case "notice":
                listener.on_notice(event["text"])
            case "end":
                cell = doing.pop(event["cell"])
                if event["reason"] is not None:
                    self.failed[cell.cell] = event["reason"]
                listener.on_cell_end(cell, event["reason"])
            case "error":
                raise getattr(errors, event["kind"], PrefbenchError)(event["text"])

    def _hand_out(self, worker: Worker) -> None:
        unit = self._shares.take(worker.number)
        if unit is None:
            self._doing[worker.number] = {}
            worker.stop()
        else:
            self._doing[worker.number] = {cell.cell: cell for cell in unit.cells}
            self._groups[worker.number] = unit.group
            worker.measure(unit, wait=self._wait)

    def _bury(self, worker: Worker) -> str:
        """Has a worker that is gone replaced, and what it has left measured; says how it ended."""
        number = worker.number
        how = worker.end()
        del self.workers[number]
        if worker.stopped:
            return how
        left = list(self._doing[number].values())
        if not left:
            self._false_starts[number] += 1
        if len(left) == 1 and self._kills(left[0]):
            why = f"{MOST_DEATHS} processes that measured it ended, the last one {how}"
            self._fail(number, left[0], why)
        else:
            for cell in left:  # alone, so that it shows which it is
                self._shares.put_back(number, Unit(self._groups[number], (cell,)))
            self._listeners[number].on_notice(f"the process of engine {number + 1} ended {how}")
        if self._shares and self._false_starts[number] < MOST_DEATHS:
            self._start(number)
        return how

    def _kills(self, cell: PlannedCell) -> bool:
        self._deaths[cell.cell] += 1
        return self._deaths[cell.cell] >= MOST_DEATHS

    def _fail(self, number: int, cell: PlannedCell, reason: str) -> None:
        self.failed[cell.cell] = reason
        with self._store.claim(cell.cell) as mine:
            if mine is not None:
                mine.fail(reason)
        self._listeners[number].on_cell_end(cell, reason)
