"""The checkpoints that one training wrote, and what they are compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, find_baseline
from prefbench.provenance import run_folder
from prefbench.records import Checkpoint


@dataclass(frozen=True)
class Run:
    """The checkpoints that one training wrote."""

    steps: tuple[Checkpoint, ...]
    """Those that could be measured, in the order of training; equal weights once."""
    names: frozenset[str]
    """Of all its rows."""
    notes: tuple[str, ...] = ()


def run_named(gathered: Gathered, run: str) -> Run:
    """The run of that name, of a row's name, or of that beginning.

    Raises:
        InputError: there is none, or several, or none of its checkpoints can be measured.
    """
    runs: dict[Path, list[Checkpoint]] = {}
    for row in gathered.checkpoints:
        runs.setdefault(run_folder(row.path) or row.path, []).append(row)
    names = {folder: _name_of(folder, rows) for folder, rows in runs.items()}
    wanted = run.rstrip("/")
    fit = [f for f, rows in runs.items() if wanted in (names[f], *(row.name for row in rows))]
    fit = fit or [f for f in runs if names[f].rpartition("/")[2] == wanted]
    fit = fit or [f for f in runs if names[f].startswith(wanted)]
    if len(fit) != 1:
        there = ", ".join(names[folder] for folder in fit or runs) or "none"
        what = f"may be {len(fit)} runs" if fit else "names no run"
        raise InputError(f"{run!r} {what}; give one of: {there}")
    rows = sorted(runs[fit[0]], key=_place)
    ready = [row for row in rows if row.state == "ready"]
    notes = [
        f"{row.name} is {row.state}: {row.reason or 'no reason known'}"
        for row in rows
        if row.state != "ready"
    ]
    if not ready:
        raise InputError(f"{run}: has no checkpoint that can be measured: {'; '.join(notes)}")
    once: list[Checkpoint] = []
    for row in ready:
        same = next((o for o in once if o.fingerprint and o.fingerprint == row.fingerprint), None)
        if same is None:
            once.append(row)
        else:
            notes.append(f"{row.name} has the weights of {same.name}")
    if len(once) == 1:
        notes.append("this run has one step: there is nothing to follow or to choose from")
    return Run(tuple(once), frozenset(row.name for row in rows), tuple(notes))


def _name_of(folder: Path, rows: Sequence[Checkpoint]) -> str:
    """A run's name: that of its final row, or its steps' names without `/checkpoint-N`."""
    for row in rows:
        if row.path == folder:
            return row.name
    return rows[0].name.rpartition("/")[0] or rows[0].name


def _place(row: Checkpoint) -> tuple[float, bool, str]:
    """By step; the final one, which stands in the run's folder itself, after its equals."""
    step = math.inf if row.step is None else row.step
    return step, run_folder(row.path) is None, row.name


def reference_of(
    run: Run, gathered: Gathered, wanted: str | None = None
) -> tuple[str | None, list[str]]:
    """The row that a run's steps are compared with, and what is to be said of it.

    Raises:
        InputError: the wanted one is not there.
    """
    if wanted is not None:
        return find_baseline(gathered.checkpoints, wanted), []
    measured = {one.checkpoint for one in gathered.measured}
    sources = list(dict.fromkeys(row.reference for row in run.steps if row.reference))
    for source in sources:
        for row in gathered.checkpoints:
            if source in (str(row.path), row.name) and row.name in measured:
                return row.name, []
    others = [row for row in gathered.checkpoints if row.name not in run.names]
    found = find_baseline(others, None)
    tuned = f"tuned from {sources[0]}, which was not measured here" if sources else ""
    if found is not None:
        return found, [f"{tuned}; compared with {found} instead"] if tuned else []
    why = tuned or "what it was tuned from is not known"
    return None, [f"no reference: {why}, and there is not one SFT row; --reference names one"]
