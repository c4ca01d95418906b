"""The job of a run: all that other processes, here or elsewhere, need to do its work."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from prefbench.buckets.places import place, told
from prefbench.cells import PlannedCell, Settings
from prefbench.checkpoints import read_checkpoint
from prefbench.errors import ClusterError, PrefbenchError
from prefbench.records import Checkpoint
from prefbench.store import Store

SEEN_WITHIN = 30.0
"""Seconds in which what one node has written is seen from another; network file systems cache."""


@dataclass(frozen=True)
class Job:
    """All that a worker needs to plan the cells of a run once more, which gives the same cells."""

    checkpoints: tuple[Checkpoint, ...]
    tasks: tuple[str, ...]
    results: Path
    settings: Settings
    references: tuple[tuple[str, Checkpoint | str], ...] = ()
    """By a checkpoint's path: its reference, or why it has none."""
    mirrors: tuple[Path, ...] = ()
    task_folders: tuple[Path, ...] = ()
    command: tuple[str, ...] = ()
    """The run's, for the manifests."""
    folder: Path = Path()
    """Where the run was started: what relative paths are relative to."""
    plan: str = ""
    """Its name in the store, and when it was about to be written."""
    begun: str = ""
    far: bool = False
    """Whether it is carried out on machines that may see other files than the run's own does."""

    def as_json(self) -> str:
        """The job in one line."""
        from pydantic import TypeAdapter

        facts = TypeAdapter(Job).dump_python(self, mode="json")
        # A working copy of results on an object store is another one on each machine.
        return json.dumps({**facts, "results": told(self.results)})

    @classmethod
    def from_json(cls, line: str) -> Job:
        """The job that such a line says."""
        from pydantic import TypeAdapter

        facts = json.loads(line)
        return TypeAdapter(Job).validate_python({**facts, "results": place(facts["results"])})


def plan_again(job: Job) -> dict[str, PlannedCell]:
    """The cells of a run by name, planned from its job; none of checkpoints that are not there.

    Raises:
        PrefbenchError: tasks or data that the run has found are not to be had here.
    """
    from prefbench.analyses import plan_beside
    from prefbench.cells import plan_cells, plan_tasks

    planned = plan_tasks(
        job.tasks, limit=job.settings.limit, mirrors=job.mirrors, folders=job.task_folders
    )
    there = [one for one in job.checkpoints if one.path.is_dir()]
    own = plan_cells(there, planned, job.settings)
    references = {Path(path): one for path, one in job.references}
    # Judges change no cell that is measured here, and a ranking is planned with none.
    asked = [one for one in planned if one.task.recipe.measure != "ranking"]
    beside = plan_beside(own, asked, there, references, job.settings, {})
    return {cell.cell: cell for cell in [*own, *beside.cells, *beside.later]}


def shared_store(job: Job, *, patience: float = SEEN_WITHIN) -> Store:
    """The results directory of a run, seen from another machine: it has the plan just written.

    Raises:
        ClusterError: it is not there, or it is another one with the same path.
    """
    until = time.monotonic() + patience
    while True:
        try:
            store = Store(job.results, create=False)
            for plan in store.plans():
                if plan.get("id") == job.plan and str(plan.get("when", "")) >= job.begun:
                    return store
            why = "is another directory there, without this run's plan"
        except PrefbenchError as error:
            why = f"cannot be opened there: {error}"
        if time.monotonic() > until:
            where = job.folder / job.results
            raise ClusterError(
                f"{where}: {why}; results must lie where all nodes see them: on a shared file "
                "system or in an object store"
            )
        time.sleep(min(1.0, max(0.1, patience / 10)))


def strange(checkpoint: Checkpoint, job: Job) -> str | None:
    """How a checkpoint that is seen from here differs from the one that was planned with."""
    where = job.folder / checkpoint.path
    if not checkpoint.path.is_dir():
        return f"{where}: the checkpoint is not there"
    try:
        found = read_checkpoint(
            checkpoint.path,
            allow_pickle=job.settings.allow_pickle,
            allow_remote_code=job.settings.trust_remote_code,
        )
    except (PrefbenchError, OSError) as error:
        return f"{where}: the checkpoint cannot be read there: {error}"
    if found.fingerprint != checkpoint.fingerprint:
        return f"{where}: the checkpoint has other files there than when the run began"
    return None
