"""Pushing: what a tracker does not have yet is sent to it, and a record of that is kept.

results/pushed.json   by destination and curve: the run's id, and each score that was sent
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from prefbench.buckets.places import told
from prefbench.errors import StoreError
from prefbench.trackers.base import Tracker
from prefbench.trackers.curves import Curve

RECORD = "pushed.json"


class Pushed(NamedTuple):
    """What became of one curve."""

    name: str
    id: str
    n_points: int
    """Steps at which something was sent."""
    n_known: int
    """Scores that had been sent before."""
    changed: tuple[str, ...] = ()
    """Scores that had been sent before with another value; the old ones stay."""


def push(
    curves: Sequence[Curve], tracker: Tracker, results: Path, *, anew: bool = False
) -> list[Pushed]:
    """Sends what was not sent there before, curve by curve; each is recorded once it is sent.

    Trackers keep what they have: a score that has another value now is not sent again, but told.

    Args:
        curves: what there is.
        tracker: where to.
        results: the directory that the record is kept in.
        anew: everything, to new runs beside those that are there.

    Raises:
        StoreError: the record cannot be read or written.
    """
    told = []
    with FileLock(results / f".{RECORD}.lock"):
        record = _read(results / RECORD)
        if tracker.is_gone:
            record.pop(tracker.destination, None)
        known = record.setdefault(tracker.destination, {})
        for curve in curves:
            before = known.get(curve.name)
            if before is None or anew:
                nth = before["nth"] + 1 if before else 1
                before = {"id": _id(curve, tracker, results, nth), "nth": nth, "points": {}}
            name = curve.name if before["nth"] == 1 else f"{curve.name} ({before['nth']})"
            lacking, changed = _lacking(curve, before["points"])
            if lacking:
                tracker.write(
                    dataclasses.replace(curve, name=name, points=tuple(lacking), id=before["id"])
                )
                for point in lacking:
                    before["points"].setdefault(str(point.step), {}).update(point.scores)
                known[curve.name] = before
                _write(results / RECORD, record)
            n_all = sum(len(point.scores) for point in curve.points)
            n_sent = sum(len(point.scores) for point in lacking)
            told.append(Pushed(name, before["id"], len(lacking), n_all - n_sent, tuple(changed)))
    return told


def _lacking(
    curve: Curve, before: Mapping[str, Mapping[str, float]]
) -> tuple[list[Any], list[str]]:
    """The points with the scores that were not sent, and the names of those that changed."""
    lacking, changed = [], []
    for point in curve.points:
        sent = before.get(str(point.step), {})
        new = {name: value for name, value in point.scores.items() if name not in sent}
        changed += [
            f"{name} at step {point.step}"
            for name, value in point.scores.items()
            if sent.get(name, value) != value
        ]
        if new:
            lacking.append(dataclasses.replace(point, scores=new))
    return lacking, changed


def _id(curve: Curve, tracker: Tracker, results: Path, nth: int) -> str:
    """The same for the same run in the same results; later only the record's word counts."""
    words = [tracker.destination, _where(results), curve.folder, nth]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def _where(results: Path) -> str:
    """The same on every machine for results on an object store."""
    name = told(results)
    return str(results.resolve()) if name == str(results) else name


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{file}: cannot be read: {error}; it says what was pushed, without it everything "
            "would be pushed again: mend it, or delete it and push to another project"
        ) from error
    return found if isinstance(found, dict) else {}


def _write(file: Path, record: Mapping[str, Any]) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise StoreError(
            f"{file}: cannot be written: {error}; what was just pushed would be pushed again"
        ) from error
