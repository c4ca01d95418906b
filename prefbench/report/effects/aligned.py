"""What tells the two texts of a pair apart, step by step: t-th token against t-th token."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefbench.leaderboard import Board, Gathered, Group
from prefbench.records import Checkpoint
from prefbench.report.effects.estimated import Ratio, estimated, members_with
from prefbench.report.figures.rows import finals
from prefbench.stats.estimates import Estimate

MEASURES: Mapping[str, str] = {
    "gradient_difference_l2": "gradient difference (L2)",
    "probability_difference_l2": "probability difference (L2)",
    "information_difference": "information difference",
}
_RANDOM = "_random"
_AT = re.compile(rf"({'|'.join(MEASURES)})({_RANDOM})?@(\d+)")


@dataclass(frozen=True)
class Curve:
    """A measure by step; `row` is None for models that nobody trained."""

    row: Checkpoint | None
    values: tuple[tuple[int, Estimate], ...]


@dataclass(frozen=True)
class Curves:
    """One measure on one task."""

    group: Group
    measure: str
    curves: tuple[Curve, ...]

    @property
    def has_zeros(self) -> bool:
        """Whether something is exactly 0, which no logarithmic axis holds."""
        return any(e.value == 0 for curve in self.curves for _, e in curve.values)


def curves(gathered: Gathered, board: Board) -> list[Curves]:
    """Per task and measure, all last checkpoints and a randomly initialised model."""
    found = []
    for group in gathered.groups:
        members = members_with(gathered, group, ())
        names = {name for one in members for name in one.quantities}
        parsed = {name: match for name in names if (match := _AT.fullmatch(name))}
        if not parsed:
            continue
        ratios = {name: Ratio(name) for name in sorted(parsed)}
        told = estimated(members, group, ratios, confidence=board.confidence)
        rows = [row for row in finals(board) if row.name in told]
        for measure in MEASURES:
            steps: dict[bool, list[tuple[int, str]]] = {False: [], True: []}
            for name, match in parsed.items():
                if match[1] == measure:
                    steps[match[2] is not None].append((int(match[3]), name))
            lines = [Curve(row, _values(told[row.name], steps[False])) for row in rows]
            # Checkpoints of one shape have the same random model: it is drawn once.
            others = [_values(told[row.name], steps[True]) for row in rows]
            distinct = {tuple((t, e.value) for t, e in values): values for values in others}
            lines += [Curve(None, values) for values in distinct.values()]
            there = tuple(line for line in lines if line.values)
            if there:
                found.append(Curves(group, measure, there))
    return found


def _values(
    told: Mapping[str, Estimate], steps: Sequence[tuple[int, str]]
) -> tuple[tuple[int, Estimate], ...]:
    return tuple((t, told[name]) for t, name in sorted(steps) if math.isfinite(told[name].value))
