"""Which rows claims are about, and which they are compared with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from prefbench.claims.numbers import Number, with_derived
from prefbench.leaderboard import Gathered, Group, Measured, find_baseline, row_order
from prefbench.provenance import run_folder
from prefbench.records import METHODS, Checkpoint


class Rows:
    """What was measured, by row and task, and how rows belong to each other.

    Args:
        gathered: what was measured.
        baseline: a row's name or a method; None means SFT where there is exactly one.
        all_steps: every checkpoint of a run; else its last that was measured.

    Raises:
        InputError: the baseline is not among the checkpoints.
    """

    def __init__(
        self, gathered: Gathered, baseline: str | None = None, *, all_steps: bool = False
    ) -> None:
        self.gathered = gathered
        self.groups: Mapping[str, Group] = {group.name: group for group in gathered.groups}
        self.cells = {(one.checkpoint, one.group): with_derived(one) for one in gathered.measured}
        with_cells = {one.checkpoint for one in gathered.measured}
        there = [row for row in gathered.checkpoints if row.name in with_cells]
        self.rows = tuple(sorted(there if all_steps else _last(there), key=row_order))
        self.baseline = find_baseline(
            gathered.checkpoints if baseline is not None else self.rows, baseline
        )

    def of_methods(self, methods: Sequence[str]) -> list[Checkpoint]:
        """The rows of some methods, or all."""
        return [row for row in self.rows if not methods or row.method in methods]

    def tasks_with(self, row: str, numbers: Sequence[Number]) -> Iterator[Measured]:
        """What a row gave on each task that has all of some numbers, in the table's order.

        Of tasks with the same items, such as pairs with and without their reference, the first.
        """
        before: list[Measured] = []
        for group in self.groups:
            one = self.cells.get((row, group))
            if one is None or one.sure is not None:
                continue
            if not all(number.is_in(one) for number in numbers):
                continue
            if not any(_are_alike(one, other) for other in before):
                before.append(one)
                yield one

    def other(self, row: Checkpoint, to: str) -> tuple[str | None, str]:
        """The row that another is compared with (`Change.to`); or None and why there is none."""
        if to in ("reference", "previous"):
            source = self.source(row)
            if to == "previous":
                alike = source is not None and source.method == row.method
                return (source.name, "") if source and alike else (None, "")
            if source is not None:
                return source.name, ""
        if to in ("reference", "baseline"):
            if self.baseline is None:
                return None, "there is not one SFT row; --baseline names one"
            return (None, "") if self.baseline == row.name else (self.baseline, "")
        found = [one.name for one in self.rows if one.method == to]
        if len(found) == 1:
            return found[0], ""
        title = METHODS.get(to, to)
        return None, (
            f"there are {len(found)} {title} rows" if found else f"no {title} row was measured"
        )

    def source(self, row: Checkpoint) -> Checkpoint | None:
        """The row that a row was tuned from, where that was measured."""
        if not row.reference:
            return None
        with_cells = {name for name, _ in self.cells}
        for one in self.gathered.checkpoints:
            named = row.reference in (str(one.path), one.name)
            if named and one.name in with_cells and one.name != row.name:
                return one
        return None


def _are_alike(one: Measured, other: Measured) -> bool:
    """Whether all that two tasks have in common is the same, but for the engine's rounding."""
    if not np.array_equal(one.items, other.items):
        return False
    names = one.quantities.keys() & other.quantities.keys()
    return all(
        np.allclose(one.quantities[name], other.quantities[name], 1e-4, 1e-4, equal_nan=True)
        for name in names
    )


def title_of(name: str, rows: Sequence[Checkpoint]) -> str:
    """A row's method, and its name where the method does not tell rows apart."""
    row = next((one for one in rows if one.name == name), None)
    title = METHODS.get((row.method if row else None) or "", name)
    alike = [one for one in rows if row and one.method == row.method]
    return f"{title} ({name})" if len(alike) > 1 and title != name else title


def _last(rows: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Of each training run, the last checkpoint that was measured."""
    runs: dict[Path, Checkpoint] = {}
    for row in rows:
        folder = run_folder(row.path) or row.path
        before = runs.get(folder)
        if before is None or _place(row) > _place(before):
            runs[folder] = row
    return list(runs.values())


def _place(row: Checkpoint) -> tuple[bool, float]:
    """By step; the final one stands in the run's folder itself."""
    return run_folder(row.path) is None, -math.inf if row.step is None else row.step
