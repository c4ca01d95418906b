"""The heads of a table in levels: task, then opponent and conditions, then metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prefbench.leaderboard import Column
from prefbench.report.layout import plain
from prefbench.report.paper.caption import shortened

LONGEST = 60
"""Characters of a head."""


class Span(NamedTuple):
    """A head and the columns below it, from `start` until before `end`."""

    start: int
    end: int
    text: str


def heads_of(column: Column) -> tuple[str, ...]:
    """What stands above a column, outermost first, as plain text."""
    group = column.group
    against = f"vs {group.opponent}, {group.judge}" if group.opponent else ""
    heads = (group.task, against, group.conditions, column.metric.title)
    return tuple(shortened(plain(head), LONGEST) for head in heads if head)


def levels(columns: Sequence[Column]) -> list[list[Span]]:
    """The heads of columns beside each other, outermost first, each level from left to right.

    A column with fewer heads than others has them at the bottom, and empty ones above.
    """
    heads = [heads_of(column) for column in columns]
    depth = max(map(len, heads), default=0)
    filled = [("",) * (depth - len(one)) + one for one in heads]
    return [
        _spans([one[: level + 1] for one in filled], level == depth - 1) for level in range(depth)
    ]


def _spans(heads: Sequence[tuple[str, ...]], innermost: bool) -> list[Span]:
    """One level: columns that share its head and all above it, together. A metric stands alone."""
    spans: list[Span] = []
    for i, one in enumerate(heads):
        if i and one == heads[i - 1] and one[-1] and not innermost:
            spans[-1] = spans[-1]._replace(end=i + 1)
        else:
            spans.append(Span(i, i + 1, one[-1]))
    return spans
