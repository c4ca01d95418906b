"""Win rates over the temperature that texts were drawn at."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from prefbench.leaderboard import Board, Gathered, Group
from prefbench.records import Checkpoint
from prefbench.report.figures.rows import finals
from prefbench.stats.estimates import Estimate

WIN_RATE = "win_rate.v1"
_SWEPT = re.compile(r"(.+)_t(\d+(?:\.\d+)?)")
"""A task of a sweep: the sweep's name, and the temperature as `sweeps.suffix` writes it."""


@dataclass(frozen=True)
class Sweep:
    """A task at several temperatures, against one opponent and by one judge."""

    name: str
    group: Group
    """Of one of the temperatures."""
    lines: tuple[tuple[Checkpoint, tuple[tuple[float, Estimate], ...]], ...]


def sweeps(gathered: Gathered, board: Board) -> list[Sweep]:
    """Every sweep of which a checkpoint was judged at two temperatures at least."""
    together: dict[tuple[str, ...], dict[float, Group]] = {}
    for group in gathered.groups:
        if group.opponent and (match := _SWEPT.fullmatch(group.task)):
            about = match[1], group.opponent, group.judge, group.conditions
            together.setdefault(about, {})[float(match[2])] = group
    found = []
    for (name, *_), groups in together.items():
        lines = []
        for row in finals(board):
            values = tuple(
                (temperature, entry.score.estimate)
                for temperature, group in sorted(groups.items())
                if (entry := board.entries.get((row.name, (group.name, WIN_RATE))))
                and math.isfinite(entry.score.estimate.value)
            )
            # A checkpoint against itself wins half at any temperature.
            if len(values) >= 2 and any(e[:3] != (0.5, 0.5, 0.5) for _, e in values):
                lines.append((row, values))
        if lines:
            found.append(Sweep(name, next(iter(groups.values())), tuple(lines)))
    return found
