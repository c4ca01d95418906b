"""What tells the two texts of a pair apart, step by step, and what training made of it."""

from __future__ import annotations

from itertools import groupby

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered
from prefbench.report.effects.aligned import MEASURES, Curves, curves
from prefbench.report.figures.curves import Line, Panel, figures_of_lines
from prefbench.report.figures.dots import numbered
from prefbench.report.figures.rows import finals, labels_of, left_out, method_of
from prefbench.report.figures.sheet import Drawn, level
from prefbench.report.figures.wording import said

RANDOM = "not trained (random weights)"


def differences_by_step(gathered: Gathered, shown: Shown) -> Drawn:
    """A row of panels for each task: gradients, probabilities and hidden states, by step."""
    board = shown.board
    found = curves(gathered, board)
    if not found:
        return Drawn()
    names = labels_of(finals(board), board)
    there = {curve.row.name: curve.row for one in found for curve in one.curves if curve.row}
    entries: list[tuple[str, str | None]] = [
        (names[row.name], method_of(row)) for row in finals(board) if row.name in there
    ]
    if any(curve.row is None for one in found for curve in one.curves):
        entries.insert(0, (RANDOM, None))
    rows = [list(map(_panel, some)) for _, some in groupby(found, lambda one: one.group.name)]
    figures = figures_of_lines(rows, entries)
    caption = (
        "How the two texts of a pair differ at aligned steps: the t-th token of one against the "
        "t-th of the other. Norms of the difference of the gradients of both log-probs with "
        "respect to the logits, of the difference of both distributions, and of the hidden states "
        "that both come from, squared, per dimension (our definition). Means over the pairs that "
        f"have so many tokens, with {level(board.confidence)} bootstrap bands; logarithmic."
    )
    if any(one.has_zeros for one in found):
        caption += (
            " Hollow points on the lower edge are exactly 0: with one prompt for both texts, both "
            "begin alike."
        )
    return Drawn(numbered("differences_by_step", figures, caption + left_out(board)))


def _panel(one: Curves) -> Panel:
    group = one.group
    first = one.measure == next(iter(MEASURES))
    return Panel(
        title=(said(group.name) if first else "", MEASURES[one.measure]),
        across="step t",
        up="",
        lines=tuple(
            Line(method_of(curve.row) if curve.row else None, curve.values)
            for curve in sorted(one.curves, key=lambda curve: curve.row is not None)
        ),
        log=True,
    )
