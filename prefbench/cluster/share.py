"""What runs in a job of Slurm: measures a share of a run's cells, and writes down how that went."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefbench.errors import PrefbenchError
from prefbench.listener import Listener
from prefbench.parallel.executors import engine_environments
from prefbench.parallel.job import Job, plan_again, shared_store
from prefbench.parallel.local import ThisMachine
from prefbench.parallel.together import measure_together


@dataclass(frozen=True)
class Share:
    """Some cells of a run.

    Attributes:
        job: of the run, as JSON.
        cells: by name.
        report: the file that is written when the job is through with them.
    """

    job: str
    cells: tuple[str, ...]
    report: Path


class CarryOut:
    """A function of a share that may be stopped at any batch and asked again."""

    def __call__(self, share: Share) -> None:
        """Measures what of the share is not measured yet, each engine in a process of its own."""
        try:
            failed, left = carry_out(share)
            found: dict[str, Any] = {"failed": failed, "error": left}
        except PrefbenchError as error:
            found = {"failed": {}, "error": str(error)}
        temporary = share.report.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(found), encoding="utf-8")
        temporary.replace(share.report)

    def checkpoint(self, share: Share) -> Any:
        """Before a time limit or where others go first: the same again, which goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, share)


def carry_out(share: Share) -> tuple[dict[str, str], str | None]:
    """Measures a share.

    Returns:
        The reasons of the cells that failed, by name; why an object store lacks something.
    """
    job = Job.from_json(share.job)
    store = shared_store(job)
    known = plan_again(job)
    changed = "the task's files or data have changed since the run began; run again"
    failed = {name: changed for name in share.cells if name not in known}
    todo = [known[name] for name in share.cells if name in known and not store.is_sealed(name)]
    there = ThisMachine(job, engine_environments(job.settings))
    said = Listener(on_notice=lambda text: print(text, flush=True))
    failed |= measure_together(todo, there, store=store, listener=said)
    return failed, store.close()
