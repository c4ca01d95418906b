"""Cells by jobs of Slurm: an array of jobs, each with a share of the cells of one run.

results/logs/slurm/<plan>/<share>.json         which job measures which cells, by the driver
results/logs/slurm/<plan>/<share>.report.json  how it went, by the job when it is through
results/logs/slurm/<plan>/<job>_*              what submitit keeps, logs among it

Of results on an object store it is prefbench-slurm/<plan>/ where the run was started.

Jobs go on when their driver ends; the next one with the same plan joins them. What submitit keeps
is pickled and never read back: how a job went is told by its report and by the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefbench.buckets.bucket import bucket_of
from prefbench.cells import PlannedCell, Settings, in_units
from prefbench.cluster.share import CarryOut, Share
from prefbench.errors import ClusterError, InputError
from prefbench.listener import Listener
from prefbench.parallel.executors import Measure
from prefbench.parallel.job import Job
from prefbench.parallel.shares import divide, estimate
from prefbench.processes import said
from prefbench.store import Store

if TYPE_CHECKING:
    from submitit.core.core import Job as Submitted
    from submitit.core.core import PicklingExecutor

MOST_JOBS = 3
"""That may end before they are through with a share."""
MINUTES = 240
"""Of a job, unless the user says; it is queued again when they are over."""
LOOK_EVERY = {"slurm": 10.0, "local": 0.5}
"""Seconds between two looks at jobs."""
SEEN_WITHIN = {"slurm": 30.0, "local": 0.0}
"""Seconds after a job's end in which its last files are seen from here; file systems cache."""


def options(given: Sequence[str]) -> dict[str, int | str]:
    """KEY=VALUE, as the command line has them.

    Raises:
        InputError: one is not of this form.
    """
    found: dict[str, int | str] = {}
    for one in given:
        key, is_pair, value = one.partition("=")
        if not is_pair or not key.isidentifier():
            raise InputError(f"--slurm {one}: must be KEY=VALUE, e.g. partition=gpu")
        found[key] = int(value) if value.isdigit() else value
        if key == "time" and not value.isdigit():
            raise InputError(f"--slurm {one}: the time is in minutes, e.g. time=240")
    return found


@dataclass(frozen=True)
class OnSlurm:
    """Carries out a run's cells by jobs.

    Attributes:
        options: of the jobs, as submitit names those of sbatch.
        n_jobs: at most; each has a share of the cells.
        kind: `local` runs the same jobs as processes of this machine.
    """

    options: Mapping[str, int | str] = dataclasses.field(default_factory=dict)
    n_jobs: int = 4
    kind: Literal["slurm", "local"] = "slurm"

    def __post_init__(self) -> None:
        if self.n_jobs < 1:
            raise InputError(f"max_workers must be at least 1, not {self.n_jobs}")

    @contextlib.contextmanager
    def opened(self, settings: Settings, listener: Listener) -> Iterator[Measure]:
        """Sees that there are submitit and Slurm.

        Raises:
            InputError: there are not.
        """
        try:
            import submitit
        except ImportError as error:
            raise InputError(
                f"submitit cannot be imported: {error}; pip install 'prefbench[slurm]'"
            ) from error
        if self.kind == "slurm" and not submitit.SlurmExecutor.affinity() > 0:
            raise InputError("no Slurm here: srun is not found; run this where sbatch works")

        def measure(
            cells: Sequence[PlannedCell], job: Job, store: Store, listener: Listener
        ) -> dict[str, str]:
            jobs = _Jobs(self, dataclasses.replace(job, far=True), store, listener)
            return jobs.carry_out(cells)

        yield measure

    def executor(self, folder: Path, settings: Settings) -> PicklingExecutor:
        """Submits jobs, with the options.

        Raises:
            InputError: submitit does not know one of them.
        """
        import submitit

        engines = settings.tensor_parallel_size * settings.data_parallel_size
        on_gpus = settings.device == "cuda" or settings.tensor_parallel_size > 1
        usual: dict[str, int | str] = {"job_name": "prefbench"} | (
            {"gpus_per_node": engines} if on_gpus and settings.engine != "server" else {}
        )
        executor: PicklingExecutor
        if self.kind == "slurm":
            executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=20)
            usual["time"] = MINUTES
        else:
            executor = submitit.LocalExecutor(folder=folder)
            usual = {"timeout_min": MINUTES}
        try:
            executor.update_parameters(**{**usual, **self.options})
        except (NameError, ValueError, TypeError) as error:
            raise InputError(f"--slurm: {error}") from error
        return executor


@dataclass
class _Running:
    """A share whose job was submitted."""

    number: int
    cells: list[PlannedCell]
    record: Path
    job: Submitted[Any]
    n_jobs: int = 1
    on: str | None = None
    """The cell that was told to be measured now."""
    over_since: float | None = None

    @property
    def report(self) -> Path:
        return _report_of(self.record)


class _Jobs:
    """The jobs of one run, and what they have done."""

    def __init__(self, how: OnSlurm, job: Job, store: Store, listener: Listener) -> None:
        self._how = how
        self._job = job
        self._store = store
        self._listener = listener
        self._folder = _folder(job)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._executor = how.executor(self._folder, job.settings)
        self._running: list[_Running] = []
        self._ended: set[str] = set()
        self.failed: dict[str, str] = {}

    def carry_out(self, cells: Sequence[PlannedCell]) -> dict[str, str]:
        """Has cells measured; returns the reasons of those that failed, by name."""
        self._join(cells)
        joined = {cell.cell for one in self._running for cell in one.cells}
        self._submit(self._divided([cell for cell in cells if cell.cell not in joined]))
        try:
            while self._running:
                self._store.refresh()
                for one in list(self._running):
                    self._look(one)
                if self._running:
                    time.sleep(LOOK_EVERY[self._how.kind])
        except BaseException:
            ids = ", ".join(one.job.job_id for one in self._running)
            self._listener.on_notice(f"these jobs go on: {ids}; the same command joins them")
            raise
        return self.failed

    def _divided(self, cells: Sequence[PlannedCell]) -> list[list[PlannedCell]]:
        """Shares of about the same cost; cells whose engines are open together stay together."""
        units = in_units(cells)
        groups = [list(some) for _, some in itertools.groupby(units, lambda unit: unit.group)]
        costs = [sum(map(estimate, group)) for group in groups]
        n = min(self._how.n_jobs, len(groups))
        shares = divide(costs, n) if n else []
        return [[c for i in share for unit in groups[i] for c in unit.cells] for share in shares]

    def _submit(self, shares: Sequence[Sequence[PlannedCell]], n_before: int = 0) -> None:
        """Submits shares as one array, and writes down which job has which."""
        if not shares:
            return
        job = self._job.as_json()
        records = [self._record(share) for share in shares]
        wanted = []
        for share, record in zip(shares, records, strict=True):
            _forget(record)
            wanted.append(Share(job, tuple(cell.cell for cell in share), _report_of(record)))
        try:
            submitted = self._executor.map_array(CarryOut(), wanted)
        except Exception as error:  # whatever sbatch says comes as many kinds
            raise ClusterError(f"the jobs cannot be submitted: {error}") from error
        for share, record, one in zip(shares, records, submitted, strict=True):
            facts = {"job": one.job_id, "cells": [cell.cell for cell in share]}
            record.write_text(json.dumps(facts), encoding="utf-8")
            number = len(self._ended) + len(self._running)
            running = _Running(number, list(share), record, one, n_before + 1)
            self._running.append(running)
            self._listener.of(number).on_place(f"job {one.job_id}")
        ids = ", ".join(one.job_id for one in submitted)
        self._listener.on_notice(f"submitted as job {ids}; logs: {self._folder}")

    def _record(self, share: Sequence[PlannedCell]) -> Path:
        names = " ".join(sorted(cell.cell for cell in share))
        return self._folder / f"{hashlib.sha256(names.encode()).hexdigest()[:12]}.json"

    def _join(self, cells: Sequence[PlannedCell]) -> None:
        """Takes over the jobs of a driver that ended before them."""
        wanted = {cell.cell: cell for cell in cells}
        for record in sorted(self._folder.glob("*.json")):
            if record.name.endswith(".report.json"):
                continue
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                facts = json.loads(record.read_text(encoding="utf-8"))
                mine = [wanted[name] for name in facts["cells"] if name in wanted]
                job = self._executor.job_class(self._folder, str(facts["job"]))
                if not job.done(force_check=True):
                    # Of one with nothing left to do, its end: it writes its report last.
                    self._running.append(_Running(len(self._running), mine, record, job))
                    self._listener.on_notice(f"joined job {job.job_id}, which runs already")
                    continue
            _forget(record)

    def _look(self, one: _Running) -> None:
        """Tells what a job has done since, and goes on from its end."""
        is_over = one.job.done()  # asked first: what it has done before its end is seen below
        report = _read(one.report)
        listener = self._listener.of(one.number)
        left = []
        for cell in one.cells:
            if cell.cell in self._ended:
                continue
            if self._store.is_sealed(cell.cell):
                self._end(listener, cell, None)
            elif report and cell.cell in report["failed"]:
                self._end(listener, cell, str(report["failed"][cell.cell]))
            else:
                left.append(cell)
        if left and one.on != left[0].cell:
            one.on = left[0].cell
            listener.on_cell(left[0])
        if not is_over or (left and not self._is_seen(one)):
            return
        self._running.remove(one)
        _forget(one.record)
        if left:
            self._try_again(one, left, report)

    def _is_seen(self, one: _Running) -> bool:
        """Whether what a job wrote at its end would be seen from here by now."""
        if one.over_since is None:
            one.over_since = time.monotonic()
        return time.monotonic() - one.over_since >= SEEN_WITHIN[self._how.kind]

    def _try_again(
        self, one: _Running, left: list[PlannedCell], report: Mapping[str, Any] | None
    ) -> None:
        """Submits what a job has not come to once more, or gives it up."""
        why = report["error"] if report else self._ending(one)
        if one.n_jobs < MOST_JOBS:
            self._listener.of(one.number).on_notice(f"job {one.job.job_id} {why}; submitted again")
            self._submit([left], one.n_jobs)
            return
        for cell in left:
            reason = f"{MOST_JOBS} jobs ended before it was measured; the last one {why}"
            with self._store.claim(cell.cell) as mine:
                if mine is not None:
                    mine.fail(reason)
            self._end(self._listener.of(one.number), cell, reason)

    def _ending(self, one: _Running) -> str:
        log = one.job.paths.stderr
        last = said(log).rpartition("\n")[2]
        quoted = f", its last words: {last[:300]}" if last else ""
        return f"ended too early ({one.job.state}){quoted}; its log: {log}"

    def _end(self, listener: Listener, cell: PlannedCell, reason: str | None) -> None:
        self._ended.add(cell.cell)
        if reason is not None:
            self.failed[cell.cell] = reason
        listener.on_cell_end(cell, reason)


def _folder(job: Job) -> Path:
    """Where jobs and their driver meet, which all nodes must see."""
    here = bucket_of(job.results) is None
    logs = job.results / "logs" / "slurm" if here else Path("prefbench-slurm")
    return job.folder / logs / job.plan


def _report_of(record: Path) -> Path:
    return record.with_suffix(".report.json")


def _forget(record: Path) -> None:
    """Removes what is written of a share once its job is over."""
    record.unlink(missing_ok=True)
    _report_of(record).unlink(missing_ok=True)


def _read(report: Path) -> dict[str, Any] | None:
    """A job's report, once it is there."""
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
        return {"failed": dict(found["failed"]), "error": found["error"]}
    except (OSError, ValueError, LookupError, TypeError):
        return None
