"""The checkpoints that one training wrote, or that were tuned one from the other, and from what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, find_baseline
from prefbench.provenance import run_folder
from prefbench.records import Checkpoint
from prefbench.steps.iterations import Chain, chains_of, folder_of, in_training


@dataclass(frozen=True)
class Run:
    """Checkpoints that follow one another: the steps of one training, or iterates."""

    steps: tuple[Checkpoint, ...]
    """Those that could be measured, in the order of training; equal weights once."""
    names: frozenset[str]
    """Of all its rows."""
    sources: tuple[str, ...] = ()
    """What it was tuned from, as paths or as it is written; of iterates, the first one was."""
    iterations: tuple[int, ...] = ()
    """Of iterates, which each of `steps` is; the first is 1, and 0 what it was tuned from."""
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> Literal["step", "iteration"]:
        """What one of `steps` is called."""
        return "iteration" if self.iterations else "step"


def run_named(gathered: Gathered, run: str) -> Run:
    """The run or the chain of iterates of that name, of a row's name, or of that beginning.

    A name whose runs are all in one chain means the chain, as does the method that chain has; the
    name of one `checkpoint-N` always means the steps of its training.

    Raises:
        InputError: there is none, or several, or none of its checkpoints can be measured.
    """
    runs: dict[Path, list[Checkpoint]] = {}
    for row in gathered.checkpoints:
        runs.setdefault(folder_of(row), []).append(row)
    names = {folder: _name_of(folder, rows) for folder, rows in runs.items()}
    wanted = run.rstrip("/")
    chains = chains_of(gathered.checkpoints)
    fit = [f for f, rows in runs.items() if wanted in (names[f], *(row.name for row in rows))]
    fit = fit or [f for f in runs if names[f].rpartition("/")[2] == wanted]
    held = [chain for chain in chains if not fit and chain.method == wanted.lower()]
    fit = fit or [f for f in runs if names[f].startswith(wanted)]
    held = held or [chain for chain in chains if fit and chain.folders.issuperset(fit)]
    if held and not _is_step(wanted, gathered.checkpoints):
        if len(held) == 1:
            return _iterates(held[0], runs)
        there = ", ".join(chain.rows[-1].name for chain in held)
        raise InputError(f"{run!r} is in {len(held)} chains; give the last of one: {there}")
    if len(fit) != 1:
        there = ", ".join(names[folder] for folder in fit or runs) or "none"
        what = f"may be {len(fit)} runs" if fit else "names no run"
        raise InputError(f"{run!r} {what}; give one of: {there}")
    return _steps(run, runs[fit[0]])


def _is_step(wanted: str, checkpoints: Sequence[Checkpoint]) -> bool:
    return any(row.name == wanted and run_folder(row.path) for row in checkpoints)


def _steps(run: str, rows: Sequence[Checkpoint]) -> Run:
    """What one training wrote."""
    rows = sorted(rows, key=in_training)
    once, notes = _measurable(run, rows)
    if len(once) == 1:
        notes.append("this run has one step: there is nothing to follow or to choose from")
    sources = dict.fromkeys(row.reference for row in once if row.reference)
    names = frozenset(row.name for row in rows)
    return Run(tuple(once), names, tuple(sources), notes=tuple(notes))


def _iterates(chain: Chain, runs: Mapping[Path, Sequence[Checkpoint]]) -> Run:
    """The members of a chain; iterates that cannot be measured leave a gap in the numbers."""
    once, notes = _measurable(chain.rows[-1].name, chain.rows)
    if len(once) == 1:
        notes.append("one iterate could be measured: there is nothing to follow or to choose from")
    rows = [row for folder in chain.folders for row in runs[folder]]
    others = sorted({row.name for row in rows if run_folder(row.path)} - {r.name for r in once})
    if others:
        notes.append(
            "these are iterates, each tuned from the one before; the steps of one's training are "
            f"shown by the name of a step, e.g. {others[0]}"
        )
    numbers = {row.name: number for number, row in enumerate(chain.rows, 1)}
    return Run(
        tuple(once),
        frozenset(row.name for row in rows),
        (chain.rows[0].reference,) if chain.rows[0].reference else (),
        tuple(numbers[row.name] for row in once),
        tuple(notes),
    )


def _measurable(run: str, rows: Sequence[Checkpoint]) -> tuple[list[Checkpoint], list[str]]:
    """Those that can be measured, equal weights once, and what is to be said of the others.

    Raises:
        InputError: none can be.
    """
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
    return once, notes


def _name_of(folder: Path, rows: Sequence[Checkpoint]) -> str:
    """A run's name: that of its final row, or its steps' names without `/checkpoint-N`."""
    for row in rows:
        if row.path == folder:
            return row.name
    return rows[0].name.rpartition("/")[0] or rows[0].name


def source_of(run: Run, gathered: Gathered) -> str | None:
    """The row that a run was tuned from, if it was measured."""
    rows = _measured(gathered)
    return next(
        (row.name for s in run.sources for row in rows if s in (str(row.path), row.name)), None
    )


def _measured(gathered: Gathered) -> list[Checkpoint]:
    names = {one.checkpoint for one in gathered.measured}
    return [row for row in gathered.checkpoints if row.name in names]


def reference_of(
    run: Run, gathered: Gathered, wanted: str | None = None
) -> tuple[str | None, list[str]]:
    """The row that a run's steps are compared with, and what is to be said of it.

    Raises:
        InputError: the wanted one is not there.
    """
    if wanted is not None:
        return find_baseline(gathered.checkpoints, wanted), []
    if (source := source_of(run, gathered)) is not None:
        return source, []
    others = [row for row in _measured(gathered) if row.name not in run.names]
    found = find_baseline(others, None)
    tuned = f"tuned from {run.sources[0]}, which was not measured here" if run.sources else ""
    if found is not None:
        return found, [f"{tuned}; compared with {found} instead"] if tuned else []
    why = tuned or "what it was tuned from is not known"
    return None, [
        f"no reference: {why}, and there is not one measured SFT row; --reference names one"
    ]
