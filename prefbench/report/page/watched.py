"""How far a watch is: the state of each checkpoint, since when and why."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from prefbench.errors import InputError, StoreError
from prefbench.report.watch import why_of
from prefbench.watch.status import Row, read_status


class Line(NamedTuple):
    """One checkpoint."""

    name: str
    state: str
    since: str
    measured: str
    judged: str
    gate: str
    why: tuple[str, ...]


class Watched(NamedTuple):
    """What a watch has written last."""

    when: str
    counts: tuple[tuple[str, int], ...]
    """Of each state, how many."""
    lines: tuple[Line, ...]
    has_gate: bool


def watched_of(results: Path) -> tuple[Watched | None, str | None]:
    """The states of checkpoints where a watch has been used, or why they cannot be shown."""
    if not (results / "status.json").is_file():
        return None, None
    try:
        status = read_status(results)
    except (InputError, StoreError) as error:
        return None, f"the watch's status cannot be shown: {error}"
    counts: dict[str, int] = {}
    for row in status.rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    lines = tuple(map(_line, status.rows))
    has_gate = any(line.gate for line in lines)
    return Watched(_time(status.when), tuple(counts.items()), lines, has_gate), None


def _line(row: Row) -> Line:
    return Line(
        row.name,
        row.state,
        _time(row.since or ""),
        f"{row.n_measured} of {len(row.cells)}" if row.cells else "",
        f"{row.n_judged} of {len(row.comparisons)}" if row.comparisons else "",
        str(row.gate["outcome"]) if row.gate else "",
        tuple(why_of(row)),
    )


def _time(when: str) -> str:
    return f"{when[:16].replace('T', ' ')} UTC" if when else ""
