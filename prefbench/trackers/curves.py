"""What is pushed: one curve for each training run, its scores over the training step."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from prefbench import __version__
from prefbench.leaderboard import Board
from prefbench.provenance import run_folder
from prefbench.records import Checkpoint

_INSIDE = re.compile(r"/?checkpoint-\d+$")


@dataclass(frozen=True)
class Point:
    """The scores of one checkpoint, by name: `task/metric`, and that with _low, _high and _n."""

    step: int
    checkpoint: str
    fingerprint: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """The points of one training run, by step.

    `folder` is the run's directory, `id` what a tracker knows the run by.
    """

    name: str
    folder: str
    points: tuple[Point, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    @property
    def about(self) -> dict[str, Any]:
        """What a tracker keeps beside the scores; no paths, no command lines, no settings."""
        return {
            **self.facts,
            "prefbench": __version__,
            "fingerprints": {str(point.step): point.fingerprint for point in self.points},
            "checkpoints": {str(point.step): point.checkpoint for point in self.points},
        }


class Curves(NamedTuple):
    """All curves of a table, and what somebody must know of what is not in them."""

    curves: tuple[Curve, ...]
    notes: tuple[str, ...]


def curves_of(board: Board, *, everything: bool = False) -> Curves:
    """The curves of all rows that have scores, in the table's order.

    A run's final model stands at the step that its trainer_state.json says, unless a checkpoint-N
    stands there. A model of which no step is known stands at 0 where it is all there is of its run.

    Args:
        board: the table.
        everything: all metrics, not those that the tasks show alone.
    """
    runs: dict[Path, list[Checkpoint]] = {}
    for row in board.rows:
        runs.setdefault(run_folder(row.path) or row.path, []).append(row)
    curves: list[Curve] = []
    notes: list[str] = []
    for folder, rows in runs.items():
        # Of two at one step the checkpoint-N is certain: a final model may be an earlier one.
        found: dict[int, Point] = {}
        for row in sorted(rows, key=lambda row: run_folder(row.path) is None):
            scores = dict(_scores(board, row, everything))
            step = 0 if row.step is None and len(rows) == 1 else row.step
            if not scores:
                continue
            if step is None:
                notes.append(f"{row.name}: left out, nothing says at which step it was")
            elif step not in found:
                found[step] = Point(step, printable(row.name), printable(row.fingerprint), scores)
                if row.step is None:
                    notes.append(f"{row.name}: at step 0, nothing says at which it was")
            elif found[step].fingerprint != row.fingerprint:
                notes.append(f"{row.name}: left out, {found[step].checkpoint} is at its step, too")
        if found:
            points = tuple(found[step] for step in sorted(found))
            curves.append(Curve(_name(rows[0], folder), str(folder), points, _facts(board, rows)))
    return Curves(tuple(_told_apart(curves)), tuple(notes))


def printable(text: str) -> str:
    """Text without signs that could act where it is shown."""
    return "".join(c if c.isprintable() else " " for c in text)


def _scores(board: Board, row: Checkpoint, everything: bool) -> Iterator[tuple[str, float]]:
    for column in board.columns:
        entry = board.entry(row, column)
        if entry is None or not (column.shown or everything):
            continue
        # The group's name, not the task's: it tells limits, judges and opponents apart.
        key = printable(f"{column.group.name}/{column.metric.name}")
        estimate = entry.score.estimate
        if math.isfinite(estimate.value):
            yield key, estimate.value
            yield f"{key}_n", float(estimate.n)
        for end, bound in (("low", estimate.low), ("high", estimate.high)):
            if math.isfinite(bound):
                yield f"{key}_{end}", bound


def _facts(board: Board, rows: list[Checkpoint]) -> dict[str, Any]:
    facts = {"method": rows[0].method, "seed": rows[0].seed, "confidence": board.confidence}
    return {name: value for name, value in facts.items() if value is not None}


def _name(row: Checkpoint, folder: Path) -> str:
    inside = run_folder(row.path) is not None
    return printable((_INSIDE.sub("", row.name) if inside else row.name) or folder.name)


def _told_apart(curves: list[Curve]) -> Iterator[Curve]:
    """Curves with a name of their own each."""
    names: set[str] = set()
    for curve in curves:
        name, n = curve.name, 1
        while name in names:
            n += 1
            name = f"{curve.name} {n}"
        names.add(name)
        yield dataclasses.replace(curve, name=name)
