"""Every metric against the iteration, where checkpoints were tuned one from the other."""

from __future__ import annotations

import math

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Board, Column, Gathered
from prefbench.records import METHODS
from prefbench.report.figures.curves import Line, Panel, figures_of_lines
from prefbench.report.figures.dots import numbered
from prefbench.report.figures.sheet import Drawn, level
from prefbench.report.figures.wording import names_told_apart, said
from prefbench.stats.estimates import Estimate
from prefbench.steps.iterations import Chain, chains_of, is_reference


def iterations(gathered: Gathered, shown: Shown) -> Drawn:
    """A panel for each column that is shown, where two iterates or more of a chain have it."""
    board = shown.board
    chains = chains_of(board.rows)
    columns = [c for c in shown.columns if any(_line(board, chain, c) for chain in chains)]
    if not columns:
        return Drawn()
    chains = [chain for chain in chains if any(_line(board, chain, c) for c in columns)]
    methods = [str(chain.method) for chain in chains]
    titles = [METHODS.get(method, method) for method in methods]
    names = names_told_apart(
        [
            f"{title} (to {chain.rows[-1].name})" if titles.count(title) > 1 else title
            for title, chain in zip(titles, chains, strict=True)
        ]
    )
    panels = [_panel(board, chains, column) for column in columns]
    figures = figures_of_lines(
        [panels[first : first + 3] for first in range(0, len(panels), 3)],
        list(zip(names, methods, strict=True)),
    )
    caption = (
        "Values against the iteration: each iterate was tuned from the one before, the first from "
        "what stands at 0 where that was measured. The bands are "
        f"{level(board.confidence)} bootstrap intervals where they are known; each checkpoint's "
        "is its own, and differences between them are known better than these show."
    )
    return Drawn(numbered("iterations", figures, caption))


def _line(board: Board, chain: Chain, column: Column) -> tuple[tuple[float, Estimate], ...]:
    """A chain's values by iteration, with that which it began with; none of a single iterate."""
    start = [row for row in board.rows if is_reference(row, chain.rows[0])][:1]
    found = []
    for number, row in enumerate([*start, *chain.rows], 1 - len(start)):
        entry = board.entry(row, column)
        if entry and math.isfinite(entry.score.estimate.value):
            found.append((float(number), entry.score.estimate))
    return tuple(found) if sum(number > 0 for number, _ in found) > 1 else ()


def _panel(board: Board, chains: list[Chain], column: Column) -> Panel:
    group, metric = column.group, column.metric
    against = f"vs {said(group.opponent)}, {said(group.judge)}" if group.opponent else ""
    percent = metric.unit == "percent"
    about = said(metric.title) + (" (%)" if percent else "")
    return Panel(
        title=(said(group.task), said(group.conditions), against, about),
        across="iteration",
        up="",
        lines=tuple(
            Line(str(chain.method), line)
            for chain in chains
            if (line := _line(board, chain, column))
        ),
        log=metric.unit == "perplexity",
        scale=100.0 if percent else 1.0,
    )
