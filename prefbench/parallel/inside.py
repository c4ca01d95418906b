"""What runs in a worker's process; its other side is `local.py`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from prefbench.processes import end_with_parent, leave

if TYPE_CHECKING:
    from prefbench.cells import PlannedCell
    from prefbench.listener import Listener
    from prefbench.parallel.job import Job
    from prefbench.store import Store

CHANGED = "the task's files or data, or the checkpoint, have changed since the run began; run again"

Tell = Callable[..., None]


def main() -> None:
    """Carries out a job that stdin tells, and leaves."""
    commands, told = _connections()
    end_with_parent(commands.fileno(), os.getppid())

    def tell(event: str, **facts: Any) -> None:
        print(json.dumps({"event": event, **facts}), file=told, flush=True)

    from prefbench.errors import PrefbenchError

    try:
        _carry_out(commands, tell)
    except PrefbenchError as error:
        tell("error", kind=type(error).__name__, text=str(error))
    leave()


def _connections() -> tuple[TextIO, TextIO]:
    """Stdin and stdout for us alone; what libraries print goes where stderr goes."""
    commands, told = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return commands, told


def _carry_out(commands: TextIO, tell: Tell) -> None:
    from prefbench.errors import PrefbenchError, StoreError
    from prefbench.parallel.job import Job, plan_again, shared_store
    from prefbench.store import Store

    job = Job.from_json(commands.readline())
    sys.argv = list(job.command)
    try:
        cells = plan_again(job)
        store = shared_store(job) if job.far else Store(job.results)
    except PrefbenchError as error:
        if not job.far:
            raise
        tell("unfit", reason=str(error), cell=None)
        return
    try:
        _measure(job, cells, store, commands, tell)
    except StoreError as error:
        if not job.far:
            raise
        tell("unfit", reason=str(error), cell=None)  # from another node it may be writable


def _measure(
    job: Job, cells: Mapping[str, PlannedCell], store: Store, commands: TextIO, tell: Tell
) -> None:
    """Measures units as they are handed out; ends at once where one cannot be measured here."""
    from prefbench.cells import Unit
    from prefbench.engines import Engines
    from prefbench.work import Work

    known = [one for _, one in job.references if not isinstance(one, str)]
    with (
        Engines([*job.checkpoints, *known]) as engines,
        Work(store, job.settings, _telling(tell), engines) as work,
    ):
        tell("ready", claimed=[])
        for command in _commands(commands):
            there = tuple(cells[name] for name in command["cells"] if name in cells)
            if job.far and (found := _unfit(command["cells"], cells, job)):
                name, why = found
                tell("unfit", reason=why, cell=name)
                return
            for name in command["cells"]:
                if name not in cells:
                    _refuse(store, name)
                    tell("end", cell=name, reason=CHANGED)
            claimed = work.measure(Unit(tuple(command["group"]), there), wait=command["wait"])
            tell("ready", claimed=[cell.cell for cell in claimed])
    if left := store.close():
        tell("notice", text=left)


def _unfit(
    names: Sequence[str], cells: Mapping[str, PlannedCell], job: Job
) -> tuple[str, str] | None:
    """The first cell that cannot be measured here as it was planned, and why."""
    from prefbench.parallel.job import strange

    for name in names:
        if name not in cells:
            return name, _missing(job)
        if why := strange(cells[name].checkpoint, job):
            return name, why
    return None


def _missing(job: Job) -> str:
    """Why a cell cannot even be planned here: a checkpoint is not there, or something differs."""
    absent = [one.path for one in job.checkpoints if not one.path.is_dir()]
    return f"{job.folder / absent[0]}: the checkpoint is not there" if absent else CHANGED


def _refuse(store: Store, name: str) -> None:
    with store.claim(name, wait=True) as cell:
        assert cell is not None
        cell.fail(CHANGED)


def _telling(tell: Tell) -> Listener:
    """A listener that sends on what it hears, with cells by their names."""
    from prefbench.listener import Listener

    return Listener(
        on_cell=lambda cell: tell("cell", cell=cell.cell),
        on_step=lambda what, done, total: tell("step", what=what, done=done, total=total),
        on_cell_end=lambda cell, reason: tell("end", cell=cell.cell, reason=reason),
        on_notice=lambda text: tell("notice", text=text),
    )


def _commands(commands: TextIO) -> Iterator[dict[str, Any]]:
    for line in commands:
        command = json.loads(line)
        if "stop" in command:
            return
        yield command
