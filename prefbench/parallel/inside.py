"""What runs in a worker's process; its other side is `worker.py`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from prefbench.processes import end_with_parent, leave

if TYPE_CHECKING:
    from prefbench.listener import Listener

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
    from prefbench.analyses import plan_beside
    from prefbench.cells import Unit, plan_cells, plan_tasks
    from prefbench.engines import Engines
    from prefbench.parallel.worker import Job
    from prefbench.store import Store
    from prefbench.work import Work

    job = Job.from_json(commands.readline())
    sys.argv = list(job.command)
    planned = plan_tasks(
        job.tasks, limit=job.settings.limit, mirrors=job.mirrors, folders=job.task_folders
    )
    own = plan_cells(job.checkpoints, planned, job.settings)
    references = {Path(path): one for path, one in job.references}
    # Judges change no cell that is measured here, and a ranking is planned with none.
    asked = [one for one in planned if one.task.recipe.measure != "ranking"]
    beside = plan_beside(own, asked, job.checkpoints, references, job.settings, {})
    cells = {cell.cell: cell for cell in [*own, *beside.cells, *beside.later]}
    store = Store(job.results)
    known = [one for one in references.values() if not isinstance(one, str)]
    with (
        Engines([*job.checkpoints, *known]) as engines,
        Work(store, job.settings, _telling(tell), engines) as work,
    ):
        tell("ready", claimed=[])
        for command in _commands(commands):
            for name in command["cells"]:
                if name not in cells:
                    with store.claim(name, wait=True) as cell:
                        assert cell is not None
                        cell.fail(CHANGED)
                    tell("end", cell=name, reason=CHANGED)
            there = tuple(cells[name] for name in command["cells"] if name in cells)
            claimed = work.measure(Unit(tuple(command["group"]), there), wait=command["wait"])
            tell("ready", claimed=[cell.cell for cell in claimed])


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
