"""Gradient entanglement: what a step will do to both texts of each pair."""

from __future__ import annotations

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered
from prefbench.report.effects.planes import MOST_DRAWN, Planes, entanglement
from prefbench.report.figures.dots import numbered
from prefbench.report.figures.planes import sheets_of
from prefbench.report.figures.rows import finals, labels_of, left_out
from prefbench.report.figures.sheet import Drawing, Drawn, level
from prefbench.report.figures.wording import said

LABELS = ("⟨g₊, g₋⟩ / ‖g₊‖²", "⟨g₊, g₋⟩ / ‖g₋‖²")


def entangled(gathered: Gathered, shown: Shown) -> Drawn:
    """A figure for each task of gradients, with a plane for each checkpoint."""
    board = shown.board
    names = labels_of(finals(board), board)
    drawings: list[Drawing] = []
    tasks = entanglement(gathered, board)
    for i, found in enumerate(tasks, 1):
        name = f"entanglement_{i}" if len(tasks) > 1 else "entanglement"
        figures = sheets_of(found, names, LABELS, shaded=(-1, -1))
        drawings += numbered(name, figures, _caption(found, board.confidence) + left_out(board))
    return Drawn(tuple(drawings))


def _caption(found: Planes, confidence: float) -> str:
    text = (
        f"Gradient entanglement on {said(found.group.name)}: each point is a pair, the inner "
        "product of the gradients of its chosen (g₊) and its rejected text's log-prob (g₋) "
        "divided by the square of either norm; the large mark is their median. A small step of "
        "gradient descent on DPO's loss raises the chosen text of pairs left of 1 and lowers the "
        "rejected text of pairs below 1 (shaded: both). In the corners the share of pairs, with "
        f"{level(confidence)} bootstrap intervals. Beyond both lines no pair can lie: the product "
        "of both ratios is the squared cosine."
    )
    if found.banded:
        text += " Shades are bands of the pair's edit distance in tokens, as a share."
    if found.thinned():
        text += f" Of each checkpoint {MOST_DRAWN} pairs are drawn; shares are of all."
    if found.stretched:
        text += " Axes are even near 0 and logarithmic beyond."
    return text
