"""A training run's own log: whether it can be true, and what was measured beside it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from prefbench.doctor.beside_log import Step, on_other_pairs, on_the_same_pairs
from prefbench.doctor.findings import Finding
from prefbench.doctor.training_log import STATE, TrainingLog, examine_log, find_log, read_log
from prefbench.errors import InputError
from prefbench.leaderboard import Gathered
from prefbench.provenance import run_folder
from prefbench.records import Checkpoint


def examine_run(run: Path, gathered: Gathered | None) -> list[Finding]:
    """What a run's log holds, whether it can be true, and whether measurements agree with it.

    Exact agreement can be had on the same pairs alone: of an evaluation at a step whose checkpoint
    was measured on as many pairs. Everything else that is logged is a mean over other pairs, of
    which only signs, trends and whether it lies in the measured interval are told.

    Args:
        run: a training run's directory, or one of its checkpoint-N.
        gathered: what was measured; None where nothing was.

    Returns:
        Findings of the groups `log` and `measured`. Broken is what contradicts itself, unknown what
        differs for a reason that cannot be known from here.

    Raises:
        InputError: the run is no directory.
    """
    folder = run.resolve()
    if not folder.is_dir():
        raise InputError(f"{run}: no such directory; give a training run's, or its checkpoint-N")
    file = find_log(folder)
    if file is None:
        detail = f"no {STATE} in {folder} or its checkpoints; a Trainer writes one with each"
        return [Finding("log", STATE, "missing", detail, needed=True)]
    try:
        log = read_log(file)
    except InputError as error:
        return [Finding("log", STATE, "broken", str(error), needed=True)]
    findings = examine_log(log)
    if not log.names:
        return findings
    tasks = _steps(folder, gathered) if gathered else {}
    if not tasks:
        fix = f"prefbench run {shlex.quote(str(run))} --suite preference"
        detail = "nothing of pairs was measured of this run's checkpoints"
        return [*findings, Finding("measured", "results", "missing", detail, fix)]
    return [*findings, *(finding for steps in tasks.values() for finding in _beside(log, steps))]


def _steps(folder: Path, gathered: Gathered) -> dict[str, list[Step]]:
    """The run's checkpoints in the order of steps, by task, of tasks that have what a log has."""

    def belongs(row: Checkpoint) -> bool:
        path = row.path.resolve()
        return folder in (path, run_folder(path))

    rows = {row.name: row for row in gathered.checkpoints if belongs(row)}
    found: dict[str, list[Step]] = {}
    for one in gathered.measured:
        row = rows.get(one.checkpoint)
        if row is not None and row.step is not None:
            step = Step(row, row.step, one)
            if step.values:
                found.setdefault(one.group, []).append(step)
    return {
        group: sorted(steps, key=lambda one: (one.step, one.row.name))
        for group, steps in found.items()
    }


def _beside(log: TrainingLog, steps: Sequence[Step]) -> Iterator[Finding]:
    """One finding for each of a task's steps; equal steps have equal weights and count once."""
    before: Step | None = None
    for one in steps:
        if before is None or one.step > before.step:
            yield on_the_same_pairs(log, one) or on_other_pairs(log, one, before)
            before = one
