"""Log-probs per token before, at and after the first difference, beside the reference's."""

from __future__ import annotations

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered
from prefbench.report.effects.positions import PLACES, TEXTS, Profile, profiles
from prefbench.report.figures.dots import Dots, chart, numbered
from prefbench.report.figures.rows import finals, labels_of, left_out
from prefbench.report.figures.sheet import SPREAD, Drawing, Drawn, level
from prefbench.report.figures.wording import said


def positions(gathered: Gathered, shown: Shown) -> Drawn:
    """A figure for each task: three places of the chosen texts, and of the rejected ones."""
    board = shown.board
    names = labels_of(finals(board), board)
    tasks = profiles(gathered, board)
    drawings: list[Drawing] = []
    for i, (group, some) in enumerate(tasks, 1):
        name = f"log_prob_by_position_{i}" if len(tasks) > 1 else "log_prob_by_position"
        lines = [
            [_panel(said(group.name), text, place, some) for place in PLACES] for text in TEXTS
        ]
        rows = [one.row for one in some]
        figures = chart(rows, [names[row.name] for row in rows], lines, width=SPREAD)
        caption = _caption(group.name, board.confidence) + left_out(board)
        drawings += numbered(name, figures, caption)
    return Drawn(tuple(drawings))


def _panel(task: str, text: str, place: str, some: tuple[Profile, ...]) -> Dots:
    first = text == TEXTS[0] and place == next(iter(PLACES))
    return Dots(
        title=(*((task,) if first else ()), f"{text}, {PLACES[place]}"),
        unit="nats per token",
        values=tuple(one.own[text, place] for one in some),
        filled=(True,) * len(some),
        references=tuple(one.reference[text, place] for one in some),
    )


def _caption(task: str, confidence: float) -> str:
    return (
        f"Mean log-prob per token on {said(task)}, over the tokens that both texts of a pair share "
        "at the beginning, over the first token in which they differ, and over all after it, with "
        f"{level(confidence)} bootstrap intervals over pairs. Grey strokes: the checkpoint's "
        "reference on the same tokens. Every panel has a scale of its own."
    )
