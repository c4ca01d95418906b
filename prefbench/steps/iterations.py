"""Chains of checkpoints, each the reference of the next: SPIN, or DPO that is iterated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefbench.provenance import run_folder
from prefbench.records import Checkpoint


@dataclass(frozen=True)
class Chain:
    """Checkpoints of one method, each tuned from the one before, the first iterate first."""

    rows: tuple[Checkpoint, ...]

    @property
    def method(self) -> str | None:
        return self.rows[0].method

    @property
    def folders(self) -> frozenset[Path]:
        """Those of the runs that wrote it."""
        return frozenset(map(folder_of, self.rows))


def chains_of(checkpoints: Sequence[Checkpoint]) -> list[Chain]:
    """Every chain of two checkpoints or more.

    It is followed backwards from the last checkpoint of each run that no other was tuned from; so
    what is tuned twice from one checkpoint is two chains.
    """
    lasts = list(_lasts(checkpoints))
    parents = {row.name: tuned_from(row, checkpoints) for row in lasts}
    passed = {folder_of(parent) for parent in parents.values() if parent}
    chains = []
    for tip in lasts:
        if folder_of(tip) not in passed:
            rows = tuple(_backwards(tip, checkpoints))[::-1]
            if len(rows) > 1:
                chains.append(Chain(rows))
    return chains


def tuned_from(row: Checkpoint, checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """The iterate before, if there is one: the reference, of the same method, of another run."""
    for other in checkpoints:
        if is_reference(other, row) and folder_of(other) != folder_of(row):
            return other if row.method and other.method == row.method else None
    return None


def is_reference(one: Checkpoint, of: Checkpoint) -> bool:
    """Whether a checkpoint is what another was tuned from."""
    return of.reference is not None and of.reference in (str(one.path), one.name)


def folder_of(row: Checkpoint) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    return run_folder(row.path) or row.path


def in_training(row: Checkpoint) -> tuple[float, bool, str]:
    """Where a checkpoint stands in its run: by step; that of the run's own folder after equals."""
    step = math.inf if row.step is None else row.step
    return step, run_folder(row.path) is None, row.name


def _lasts(checkpoints: Sequence[Checkpoint]) -> Iterator[Checkpoint]:
    """The last checkpoint of each run, of those that can be measured if there is any."""
    runs: dict[Path, list[Checkpoint]] = {}
    for row in checkpoints:
        runs.setdefault(folder_of(row), []).append(row)
    for rows in runs.values():
        ready = [row for row in rows if row.state == "ready"]
        yield max(ready or rows, key=in_training)


def _backwards(tip: Checkpoint, checkpoints: Sequence[Checkpoint]) -> Iterator[Checkpoint]:
    """A checkpoint, the one it was tuned from, and so on; each run once, should they go round."""
    row: Checkpoint | None = tip
    seen: set[Path] = set()
    while row is not None and folder_of(row) not in seen:
        yield row
        seen.add(folder_of(row))
        row = tuned_from(row, checkpoints)
