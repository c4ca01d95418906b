"""What a table shows of a leaderboard, and which of its differences stand, corrected together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefbench.leaderboard import Board, Column, Contest, Entry
from prefbench.records import Checkpoint
from prefbench.stats.corrections import Correction, corrected, letter_groups
from prefbench.stats.pairs import MANY
from prefbench.stats.significance import detectable, items_needed

LEFT_OUT = (
    "Values on too few of the items, or that came without items, are compared with the baseline at "
    "most, and are nowhere counted among the best."
)

_Key = tuple[str, tuple[str, str]]


class Rivals(NamedTuple):
    """The rows of a column that were compared with each other, best first."""

    rows: tuple[str, ...]
    p: NDArray[np.float64]
    """Corrected p-values of their differences, (k, k); NaN where two were not compared."""
    letters: Mapping[str, str]
    """Empty where there are too many rows for letters."""


@dataclass(frozen=True)
class Shown:
    """Some columns of a board. The comparisons in them are one family, corrected together.

    The family is each two rows of every column, or, of more than MANY rows, each with the baseline
    and with the two at the ends. Where neither direction is better, and for rows with too few of
    the items, it is each with the baseline.
    """

    board: Board
    columns: tuple[Column, ...]
    correction: Correction
    n_comparisons: int
    """Size of the family."""
    by_baseline: Mapping[_Key, float]
    """Corrected p-values of the differences to the baseline."""
    rivals: Mapping[tuple[str, str], Rivals]

    @property
    def alpha(self) -> float:
        """The level at which the family is tested."""
        return 1 - self.board.confidence

    def entry(self, row: Checkpoint, column: Column) -> Entry | None:
        return self.board.entry(row, column)

    def adjusted(self, row: Checkpoint, column: Column) -> float:
        """The corrected p-value of the difference to the baseline; NaN where there is none."""
        return self.by_baseline.get((row.name, column.key), math.nan)

    def verdict(self, row: Checkpoint, column: Column) -> str:
        """`better`, `worse` or `different` than the baseline; `noise`; empty if it may be chance.

        `noise` is a difference no larger than one checkpoint's, measured twice.
        """
        entry = self.entry(row, column)
        if entry is None or entry.difference is None:
            return ""
        if not self.adjusted(row, column) < self.alpha:
            return ""
        gap, better = entry.difference.value, column.metric.higher_is_better
        if abs(gap) <= self.board.noise.get(column.key, -1):
            return "noise"
        if better is None:
            return "different"
        return "better" if (gap > 0) == better else "worse"

    def letters(self, row: Checkpoint, column: Column) -> str:
        """Rows that share a letter may be alike; `a` is the best row's. Empty where none hold."""
        rivals = self.rivals.get(column.key)
        return rivals.letters.get(row.name, "") if rivals else ""

    def in_best_group(self, row: Checkpoint, column: Column) -> bool:
        """Whether the row is the best of its column, or may be as good."""
        rivals = self.rivals.get(column.key)
        if rivals is None or row.name not in rivals.rows:
            return False
        # Of many rows the best may not be compared with all: on the items all have, another is.
        best = int(np.argmin(np.isnan(rivals.p).sum(axis=1))) if len(rivals.rows) > MANY else 0
        p = rivals.p[best, rivals.rows.index(row.name)]
        return row.name == rivals.rows[0] or not p < self.alpha

    def detectable(self, column: Column) -> float | None:
        """The difference to the baseline that is found with 80 % power, in the metric's unit.

        By the median standard error of the column's differences, at the level that the first of
        the family's comparisons must pass. None where no difference has a standard error above 0.
        """
        errors = [
            entry.difference.se
            for row in self.board.rows
            if (entry := self.entry(row, column)) and entry.difference
        ]
        known = [se for se in errors if se > 0]
        return detectable(float(np.median(known)), alpha=self.strictest) if known else None

    def items_needed(self, row: Checkpoint, column: Column) -> int | None:
        """Further items that would separate the row from the baseline with 80 % power.

        Were the difference what it seems, at the level that the first of the family's comparisons
        must pass. 0 where they are separated; None where it is unknown, or where there is no
        difference at all.
        """
        entry = self.entry(row, column)
        gap = entry.difference if entry else None
        if gap is None:
            return None
        if self.adjusted(row, column) < self.alpha:
            return 0
        needed = items_needed(gap.value, gap.se, gap.n, alpha=self.strictest)
        # Few clusters may separate nothing, however large and steady the difference.
        return max(1, int(needed)) if math.isfinite(needed) else None

    def notes(self) -> list[str]:
        """How to read intervals, marks and letters, as sentences for below a table."""
        board = self.board
        if not any(self.entry(row, column) for row in board.rows for column in self.columns):
            return ["Nothing was measured."]
        level, alpha = (f"{100 * share:.6g}%" for share in (board.confidence, self.alpha))
        lines = [f"Values with {level} bootstrap intervals over items; percentages for shares."]
        if self.n_comparisons:
            correction = {
                "holm": "Holm's correction for",
                "bh": "Benjamini and Hochberg's correction for",
                "none": "no correction for",
            }[self.correction]
            n = self.n_comparisons
            family = "the one comparison" if n == 1 else f"the {n} comparisons"
            lines.append(
                f"Differences are paired on the same items, and tested at {alpha} with "
                f"{correction} {family} of this table."
            )
        if any(self._unpaired()):
            lines.append(
                "Values that came without items cannot be paired: differences to them are less "
                "precise."
            )
        if self.by_baseline:
            lines.append(f"▲ better, ▼ worse, ≠ different from {board.baseline}.")
        if any(rivals.letters for rivals in self.rivals.values()):
            lines.append("Rows that share a letter may be alike; the best has an a.")
        if self.leaves_out_rows():
            lines.append(LEFT_OUT)
        if self.by_baseline:
            lines.append(
                "Detectable: a difference to the baseline that these items show with 80% power."
            )
        if self.by_baseline and any(column.key in board.noise for column in self.columns):
            lines.append(
                "≈ differs from the baseline, but by no more than a checkpoint that was measured "
                "twice did from itself."
            )
        return lines

    def leaves_out_rows(self) -> bool:
        """Whether a value has no place among the rows that were compared with each other."""
        return any(
            row.name not in rivals.rows
            for column in self.columns
            if (rivals := self.rivals.get(column.key)) and rivals.rows
            for row in self.board.rows
            if (entry := self.entry(row, column)) and not math.isnan(entry.score.estimate.value)
        )

    def _unpaired(self) -> Iterator[bool]:
        """Of each difference that was tested, whether it is between values that share no items."""
        for column in self.columns:
            for row in self.board.rows:
                entry = self.entry(row, column)
                if entry and entry.difference and (row.name, column.key) in self.by_baseline:
                    yield entry.difference.method == "unpaired"

    @property
    def strictest(self) -> float:
        """The level at which even the first of the family's comparisons is a finding."""
        return self.alpha / max(1, self.n_comparisons if self.correction != "none" else 1)


def show(board: Board, *, everything: bool = False, correction: Correction = "holm") -> Shown:
    """The columns of a board that are to be shown, with the comparisons in them corrected.

    Args:
        board: what there is.
        everything: all columns; else those that the tasks show.
        correction: holm bounds the chance of one false finding, bh the share of false ones among
            the findings; none bounds nothing.

    Raises:
        InputError: there is no such correction.
    """
    columns = tuple(column for column in board.columns if column.shown or everything)
    family: list[tuple[Any, ...]] = []
    raw: list[float] = []
    for column in columns:
        contest = board.contests.get(column.key) if _has_best(column) else None
        for row in board.rows:
            entry = board.entry(row, column)
            if entry and entry.difference:
                family.append((column.key, row.name, None))
                raw.append(entry.difference.p)
        for first, second, p in _compared(contest):
            if board.baseline not in (first, second):
                family.append((column.key, first, second))
                raw.append(p)
    values = corrected(raw, correction)
    found = {key: float(p) for key, p in zip(family, values, strict=True) if not math.isnan(p)}
    by_baseline = {(row, key): p for (key, row, other), p in found.items() if other is None}
    rivals = {
        column.key: _rivals(board, column, found, 1 - board.confidence)
        for column in columns
        if column.key in board.contests and _has_best(column)
    }
    return Shown(board, columns, correction, len(found), by_baseline, rivals)


def _has_best(column: Column) -> bool:
    return column.metric.higher_is_better is not None


def _compared(contest: Contest | None) -> Iterator[tuple[str, str, float]]:
    """Each two rows that were compared, with the p-value of their difference."""
    if contest:
        p = contest.pairs.p
        for i, j in np.argwhere(np.triu(~np.isnan(p), 1)):
            yield contest.rows[i], contest.rows[j], float(p[i, j])


def _rivals(board: Board, column: Column, found: Mapping[Any, float], alpha: float) -> Rivals:
    """A column's rows best first, with their corrected p-values and letters."""
    contest = board.contests[column.key]
    sign = 1 if column.metric.higher_is_better else -1
    values = {
        name: sign * entry.score.estimate.value
        for name in contest.rows
        if (entry := board.entries.get((name, column.key)))
        and not math.isnan(entry.score.estimate.value)
    }

    def p_of(first: str, second: str) -> float:
        pair = {first, second}
        if board.baseline in pair:
            (other,) = pair - {board.baseline}
            return found.get((column.key, other, None), math.nan)
        return found.get(
            (column.key, first, second), found.get((column.key, second, first), math.nan)
        )

    ordered = sorted(values, key=lambda name: -values[name])
    p = np.full((len(ordered), len(ordered)), math.nan)
    for i, j in combinations(range(len(ordered)), 2):
        p[i, j] = p[j, i] = p_of(ordered[i], ordered[j])
    known = np.flatnonzero(~np.isnan(p).all(axis=1))
    rows, p = tuple(ordered[i] for i in known), p[np.ix_(known, known)]
    letters = letter_groups(p < alpha) if len(rows) <= MANY else []
    return Rivals(rows, p, dict(zip(rows, letters, strict=False)))
