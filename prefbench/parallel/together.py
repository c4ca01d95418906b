"""Workers that measure the cells of one run together; each cell is handed to one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from typing import Any

from prefbench import errors
from prefbench.cells import PlannedCell, Unit, in_units
from prefbench.errors import ClusterError, PrefbenchError
from prefbench.listener import Listener
from prefbench.parallel.job import strange
from prefbench.parallel.shares import Shares
from prefbench.parallel.worker import Worker, Workplace
from prefbench.store import Store

MOST_DEATHS = 2
"""Of workers, by one cell, or before they were ready."""
MOST_LOSSES = 5
"""Of workers at one cell whose machine went away, or before they were ready."""


def measure_together(
    cells: Sequence[PlannedCell], workplace: Workplace, *, store: Store, listener: Listener
) -> dict[str, str]:
    """Measures cells in as many workers as there is work and room for.

    A worker that dies has its cells taken over, by a fresh one in its place or by another. A cell
    that other runs have claimed is left to them until the end, then waited for.

    Returns:
        The reasons of the cells that failed, by name; those over which two workers died are
        among them.

    Raises:
        StoreError: the results directory cannot be written.
        ClusterError: there is no place that can do the work.
    """
    together = _Together(workplace, store, listener)
    try:
        claimed = together.carry_out(in_units(cells), wait=False)
        while claimed:  # again what is lost once more
            claimed = together.carry_out(in_units(claimed), wait=True)
    finally:
        for worker in list(together.workers.values()):
            worker.end()
    return together.failed


class _Together:
    """The workers, and what each is doing."""

    def __init__(self, workplace: Workplace, store: Store, listener: Listener) -> None:
        self.workers: dict[int, Worker] = {}
        self.failed: dict[str, str] = {}
        self._workplace = workplace
        self._store = store
        self._listener = listener
        self._heard: SimpleQueue[tuple[Worker, dict[str, Any] | None]] = SimpleQueue()
        self._shares = Shares((), 1)
        self._wait = False
        self._doing: dict[int, dict[str, PlannedCell]] = {}
        """By worker, the cells that it has been handed and has not ended; and their group."""
        self._groups: dict[int, tuple[str, ...]] = {}
        self._places: dict[int, tuple[str, str]] = {}
        """By worker that is somewhere else: where, and how people call that."""
        self._begun: set[int] = set()
        """Workers that were ready once."""
        self._excused: set[int] = set()
        """Workers whose place was unfit: their end says nothing of their cells."""
        self._claimed: list[PlannedCell] = []
        self._deaths: Counter[tuple[str, bool]] = Counter()
        """Of workers at a cell, those that were lost apart."""
        self._false_starts: Counter[tuple[int, bool]] = Counter()

    def carry_out(self, units: Sequence[Unit], *, wait: bool) -> list[PlannedCell]:
        """Has units measured; returns the cells that other runs have claimed."""
        n_workers = min(self._workplace.n_first, len(units))
        self._shares, self._wait, self._claimed = Shares(units, max(1, n_workers)), wait, []
        self._false_starts.clear()
        for number in range(n_workers):
            self._start(number)
        reason = ""
        while self.workers:
            worker, event = self._heard.get()
            if self.workers.get(worker.number) is not worker:
                continue  # it was ended, and says so
            if event is None:
                reason = self._bury(worker)
            else:
                self._hear(worker, event)
            if not self._shares:
                self._end_waiting()
        while unit := self._shares.take(0):  # no worker could be started
            for cell in unit.cells:
                self._fail(0, cell, f"no process that could measure it stays alive: {reason}")
        return self._claimed

    def _start(self, number: int) -> None:
        self._doing[number] = {}
        self._begun.discard(number)
        self._excused.discard(number)
        self._places.pop(number, None)
        self.workers[number] = self._workplace.start(
            number, lambda worker, event: self._heard.put((worker, event))
        )

    def _hear(self, worker: Worker, event: Mapping[str, Any]) -> None:
        number = worker.number
        doing, listener = self._doing[number], self._listener.of(number)
        match event["event"]:
            case "placed":
                self._places[number] = event["place"], event["title"]
                listener.on_place(event["title"])
            case "ready":
                self._begun.add(number)
                self._false_starts[number, False] = self._false_starts[number, True] = 0
                self._claimed += [doing[name] for name in event["claimed"]]
                self._hand_out(worker)
                self._grow(number)
            case "cell":
                listener.on_cell(doing[event["cell"]])
            case "step":
                listener.on_step(event["what"], event["done"], event["total"])
            case "notice":
                listener.on_notice(event["text"])
            case "end":
                cell = doing.pop(event["cell"])
                if event["reason"] is not None:
                    self.failed[cell.cell] = event["reason"]
                listener.on_cell_end(cell, event["reason"])
            case "unfit":
                self._excuse(worker, event["reason"], doing.get(event["cell"] or ""))
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

    def _grow(self, number: int) -> None:
        """Asks for one more where the last one has found its place and work is left."""
        is_last = number == self._shares.n_workers - 1
        if is_last and self._shares and self._shares.n_workers < self._workplace.n_most:
            self._shares.add_worker()
            self._start(number + 1)

    def _end_waiting(self) -> None:
        """Ends those that have not begun, now that there is nothing left to hand out."""
        for number in self.workers.keys() - self._begun:
            self.workers.pop(number).end()

    def _excuse(self, worker: Worker, reason: str, cell: PlannedCell | None) -> None:
        """Has the work of an unfit place done elsewhere.

        Raises:
            ClusterError: there is no other.
        """
        number = worker.number
        self._excused.add(number)
        if cell is not None and (why := strange(cell.checkpoint, self._workplace.job)):
            self._doing[number].pop(cell.cell)
            self._fail(number, cell, why)  # from here it looks no better
            return
        place, title = self._places.get(number, ("", "here"))
        if not self._workplace.leave(place):
            raise ClusterError(f"nothing is left to measure on: {reason}")
        self._listener.of(number).on_notice(f"{reason}; nothing is measured on {title}")

    def _bury(self, worker: Worker) -> str:
        """Has a worker that is gone replaced, and what it has left measured; says how it ended."""
        number = worker.number
        how = worker.end()
        del self.workers[number]
        left = list(self._doing[number].values())
        if worker.stopped and not left:
            return how
        if number in self._excused:
            if left:
                self._shares.put_back(number, Unit(self._groups[number], tuple(left)))
        else:
            self._blame(worker, left, how)
        starts = self._false_starts
        gone_on = starts[number, False] < MOST_DEATHS and starts[number, True] < MOST_LOSSES
        if self._shares and gone_on:
            self._start(number)
        return how

    def _blame(self, worker: Worker, left: Sequence[PlannedCell], how: str) -> None:
        """Counts the end of a worker against the one cell that it was at, or its own start."""
        number, most = worker.number, MOST_LOSSES if worker.lost else MOST_DEATHS
        if not left:
            self._false_starts[number, worker.lost] += 1
        if len(left) == 1:
            key = left[0].cell, worker.lost
            self._deaths[key] += 1
            if self._deaths[key] >= most:
                why = f"{most} processes that measured it ended, the last one {how}"
                self._fail(number, left[0], why)
                return
        for cell in left:  # alone, so that it shows which it is
            self._shares.put_back(number, Unit(self._groups[number], (cell,)))
        what = f"the process of engine {number + 1} ended {how}"
        self._listener.of(number).on_notice(what)

    def _fail(self, number: int, cell: PlannedCell, reason: str) -> None:
        self.failed[cell.cell] = reason
        with self._store.claim(cell.cell) as mine:
            if mine is not None:
                mine.fail(reason)
        self._listener.of(number).on_cell_end(cell, reason)
