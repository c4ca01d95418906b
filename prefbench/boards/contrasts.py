"""Some rows against each other: every metric's paired differences, corrected as one family."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from prefbench.boards.aligned import align
from prefbench.boards.scored import board_of
from prefbench.errors import InputError
from prefbench.leaderboard import Board, Column, Entry, Gathered, find_baseline
from prefbench.records import Checkpoint
from prefbench.stats.corrections import Correction, corrected
from prefbench.stats.estimates import Estimate, Method
from prefbench.stats.paired import exact_p
from prefbench.stats.significance import items_needed


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Two rows on one metric.

    Attributes:
        column: the metric.
        first: a row's name.
        second: another's.
        values: of the two, each on all of its own items.
        difference: first minus second, on the items that both have.
        p: corrected for all contrasts of the family; NaN where there is no test.
        needed: further items that would separate them with 80 % power, were the difference what it
            seems; 0 where they are separated, None where nobody can say.
        only_first: items that only the first has right; None where items are not right or wrong.
        only_second: items that only the second has right.
        noise: no larger difference can be told from measuring one checkpoint twice.
    """

    column: Column
    first: str
    second: str
    values: tuple[Estimate, Estimate]
    difference: Estimate
    p: float
    needed: int | None
    only_first: int | None = None
    only_second: int | None = None
    noise: float | None = None

    def better(self, alpha: float) -> str:
        """Which row is better, `different`, `noise`, or empty if it may be chance."""
        if not self.p < alpha:
            return ""
        if self.noise is not None and abs(self.difference.value) <= self.noise:
            return "noise"
        sense = self.column.metric.higher_is_better
        if sense is None:
            return "different"
        return self.first if (self.difference.value > 0) == sense else self.second


def contrast(
    gathered: Gathered,
    rows: Sequence[str],
    *,
    correction: Correction = "holm",
    confidence: float = 0.95,
    interval: Method = "percentile",
    n_resamples: int = 10_000,
    everything: bool = False,
) -> list[Contrast]:
    """Each two of some rows on every metric that both have.

    Args:
        gathered: what was measured.
        rows: names of rows, or methods that one row has; at least two.
        correction: over all metrics and all twos.
        confidence: of the intervals; p-values are held against the rest.
        interval: percentile or bca.
        n_resamples: bootstrap resamples.
        everything: all metrics; else those that the tasks show.

    Raises:
        InputError: a row is unknown or named twice, or there are fewer than two.
    """
    names = [named(gathered.checkpoints, row) for row in rows]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"give two rows or more, each once, not {', '.join(names) or 'none'}")
    found = []
    for place in range(1, len(names)):
        board = board_of(
            _only(gathered, names[: place + 1]),
            baseline=names[place],
            confidence=confidence,
            interval=interval,
            n_resamples=n_resamples,
        )
        found += list(_against(gathered, board, names[:place], names[place], everything))
    p = corrected([one.difference.p for one in found], correction)
    known = sum(not math.isnan(one.difference.p) for one in found)
    alpha = 1 - confidence
    strictest = alpha / max(1, known if correction != "none" else 1)
    contrasts = [
        dataclasses.replace(one, p=float(q), needed=_needed(one.difference, q < alpha, strictest))
        for one, q in zip(found, p, strict=True)
    ]
    order = {pair: place for place, pair in enumerate(combinations(names, 2))}
    return sorted(contrasts, key=lambda one: order[one.first, one.second])


def named(rows: Sequence[Checkpoint], wanted: str) -> str:
    """The row of that name, or the one row of that method.

    Raises:
        InputError: there is none, or several.
    """
    try:
        return str(find_baseline(rows, wanted))
    except InputError as error:
        there = ", ".join(row.name for row in rows)
        raise InputError(
            f"{str(error).removeprefix('the baseline ')}; there are: {there}"
        ) from None


def _only(gathered: Gathered, names: Sequence[str]) -> Gathered:
    """The rows of these names alone.

    What was measured stays: a round robin is fitted to all, and noise is known from any row.
    """
    return dataclasses.replace(
        gathered,
        checkpoints=tuple(row for row in gathered.checkpoints if row.name in names),
    )


def _against(
    gathered: Gathered, board: Board, others: Sequence[str], second: str, everything: bool
) -> Iterator[Contrast]:
    rows = {row.name: row for row in board.rows}
    for column in board.columns:
        if not (column.shown or everything):
            continue
        for first in others:
            own, other = (board.entry(rows[name], column) for name in (first, second))
            if own is None or other is None or own.difference is None:
                continue
            right = _only_right(gathered, column, own, other)
            yield Contrast(
                column,
                first,
                second,
                (own.score.estimate, other.score.estimate),
                own.difference,
                math.nan,
                None,
                *right,
                noise=board.noise.get(column.key),
            )


def _only_right(
    gathered: Gathered, column: Column, first: Entry, second: Entry
) -> tuple[int | None, int | None]:
    """How many items only one of two has right, where McNemar's test was taken."""
    if not column.metric.proportion:
        return None, None
    names = [first.score.checkpoint, second.score.checkpoint]
    aligned = align(gathered, column.group, column.metric, names)
    if aligned is None or len(aligned.checkpoints) < 2:
        return None, None
    both = np.asarray(aligned.there.all(axis=1))
    columns = aligned.columns[both]
    if exact_p(columns, aligned.resampling.only(both)) is None:
        return None, None
    one, other = columns[..., 0].T
    return int((one > other).sum()), int((other > one).sum())


def _needed(difference: Estimate, separated: bool, alpha: float) -> int | None:
    if separated:
        return 0
    needed = items_needed(difference.value, difference.se, difference.n, alpha=alpha)
    return int(needed) if math.isfinite(needed) else None
