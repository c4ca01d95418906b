"""Likelihood displacement: where each pair's two texts went from the reference."""

from __future__ import annotations

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered
from prefbench.report.effects.planes import MOST_DRAWN, Planes, displacement
from prefbench.report.figures.dots import numbered
from prefbench.report.figures.planes import sheets_of
from prefbench.report.figures.rows import finals, labels_of, left_out
from prefbench.report.figures.sheet import Drawing, Drawn, level
from prefbench.report.figures.wording import said

LABELS = ("chosen: log-ratio (nats)", "rejected: log-ratio (nats)")


def quadrants(gathered: Gathered, shown: Shown) -> Drawn:
    """A figure for each task of margins, with a plane for each checkpoint."""
    board = shown.board
    names = labels_of(finals(board), board)
    drawings: list[Drawing] = []
    tasks = displacement(gathered, board)
    for i, found in enumerate(tasks, 1):
        name = f"displacement_{i}" if len(tasks) > 1 else "displacement"
        figures = sheets_of(found, names, LABELS, shaded=(1, -1))
        drawings += numbered(name, figures, _caption(found, board.confidence) + left_out(board))
    return Drawn(tuple(drawings))


def _caption(found: Planes, confidence: float) -> str:
    text = (
        f"Likelihood displacement on {said(found.group.name)}: each point is a pair, rightwards "
        "the log-ratio of its chosen text to the reference, upwards that of its rejected text; "
        "the large mark is their mean. In the corners the share of pairs in each quarter, with "
        f"{level(confidence)} bootstrap intervals. Shaded: chosen rose and rejected fell."
    )
    if found.thinned():
        text += f" Of each checkpoint {MOST_DRAWN} pairs are drawn; shares are of all."
    if found.stretched:
        text += " Axes are even near 0 and logarithmic beyond."
    return text
