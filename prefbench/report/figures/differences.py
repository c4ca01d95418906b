"""Paired differences to the baseline: of every column that is shown, and of accuracies apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Column, Gathered
from prefbench.metrics import BEST_OF
from prefbench.records import Checkpoint
from prefbench.report.figures.dots import Dots, chart, in_lines, numbered
from prefbench.report.figures.rows import finals, labels_of, left_out
from prefbench.report.figures.sheet import COLUMN, SPREAD, Drawn, level
from prefbench.report.figures.wording import said
from prefbench.stats.estimates import Estimate

_ACCURACIES = ("acc", "acc_norm", "acc_bytes", "exact_match")
_UNITS = {
    "percent": "points",
    "nats": "nats",
    "perplexity": "perplexity",
    "bits": "bits",
    "number": "",
}


def accuracies(gathered: Gathered, shown: Shown) -> Drawn:
    """GSM8K, ARC, HellaSwag and all else that has an accuracy, in points against the baseline."""
    columns = [c for c in shown.columns if _kind(c) in _ACCURACIES]
    return _figure(shown, columns, "accuracies", "accuracies", width=COLUMN, across=2)


def forest(gathered: Gathered, shown: Shown) -> Drawn:
    """Every column that is shown, each on an axis of its own."""
    few = len(shown.columns) <= 2
    return _figure(
        shown,
        shown.columns,
        "differences",
        "metrics",
        width=COLUMN if few else SPREAD,
        across=2 if few else 4,
    )


def _kind(column: Column) -> str:
    return column.metric.name.partition(",")[0].partition(BEST_OF)[0]


def _figure(
    shown: Shown, columns: Sequence[Column], name: str, what: str, *, width: float, across: int
) -> Drawn:
    board = shown.board
    if board.baseline is None:
        return Drawn(notices=(f"there is no baseline: no figure of differences in {what}",))
    rows = [row for row in finals(board) if row.name != board.baseline]
    told = [c for c in columns if any(_difference(shown, row, c) for row in rows)]
    rows = [row for row in rows if any(_difference(shown, row, c) for c in told)]
    if not rows:
        return Drawn(notices=(f"no difference in {what} to {said(board.baseline)}: no figure",))
    panels = [_panel(shown, rows, column) for column in told]
    names = labels_of(rows, board)
    figures = chart(rows, [names[row.name] for row in rows], in_lines(panels, across), width=width)
    gaps = (gap for one in panels for gap in one.values)
    return Drawn(numbered(name, figures, _caption(shown, gaps)))


def _difference(shown: Shown, row: Checkpoint, column: Column) -> Estimate | None:
    entry = shown.entry(row, column)
    gap = entry.difference if entry else None
    return gap if gap is not None and math.isfinite(gap.value) else None


def _panel(shown: Shown, rows: Sequence[Checkpoint], column: Column) -> Dots:
    group, metric = column.group, column.metric
    against = f"vs {said(group.opponent)}, {said(group.judge)}" if group.opponent else ""
    return Dots(
        title=(said(group.task), said(group.conditions), against, said(metric.title)),
        unit=_UNITS[metric.unit],
        values=tuple(_difference(shown, row, column) for row in rows),
        filled=tuple(
            shown.verdict(row, column) in ("better", "worse", "different") for row in rows
        ),
        line=0.0,
        scale=100.0 if metric.unit == "percent" else 1.0,
    )


def _caption(shown: Shown, gaps: Iterable[Estimate | None]) -> str:
    board, n = shown.board, shown.n_comparisons
    family = "the one comparison" if n == 1 else f"the {n} comparisons"
    how = {
        "holm": f"after Holm's correction for {family} of the table",
        "bh": f"after Benjamini and Hochberg's correction for {family} of the table",
        "none": "without correction for several comparisons",
    }[shown.correction]
    text = (
        f"Differences to {said(board.baseline or '')}, paired on the same items, with "
        f"{level(board.confidence)} bootstrap intervals. Filled: significant at "
        f"{level(shown.alpha)} {how}; hollow: may be chance, or no more than noise. A question "
        "mark stands where there is no interval. Arrows point to better. Intervals are not "
        "corrected."
    )
    if any(gap is not None and gap.method == "unpaired" for gap in gaps):
        text += " Differences to values that came without items are not paired, and less precise."
    return text + left_out(board)
