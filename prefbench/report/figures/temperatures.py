"""Win rates over the sampling temperature."""

from __future__ import annotations

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered
from prefbench.report.effects.temperatures import Sweep, sweeps
from prefbench.report.figures.curves import Line, Panel, figures_of_lines
from prefbench.report.figures.dots import numbered
from prefbench.report.figures.rows import finals, labels_of, left_out, method_of
from prefbench.report.figures.sheet import Drawn, level
from prefbench.report.figures.wording import said


def win_rates_by_temperature(gathered: Gathered, shown: Shown) -> Drawn:
    """A panel for each sweep, opponent and judge."""
    board = shown.board
    found = sweeps(gathered, board)
    if not found:
        return Drawn()
    names = labels_of(finals(board), board)
    there = {row.name for one in found for row, _ in one.lines}
    entries: list[tuple[str, str | None]] = [
        (names[row.name], method_of(row)) for row in finals(board) if row.name in there
    ]
    panels = [_panel(one) for one in found]
    rows = [panels[first : first + 3] for first in range(0, len(panels), 3)]
    figures = figures_of_lines(rows, entries)
    caption = (
        "Win rates over the temperature that texts were sampled at (0 is greedy), with "
        f"{level(board.confidence)} bootstrap intervals over prompts; the line is at 50%. "
        "Points of one temperature stand beside each other. Intervals are not corrected for "
        "several comparisons."
    )
    return Drawn(numbered("win_rate_by_temperature", figures, caption + left_out(board)))


def _panel(one: Sweep) -> Panel:
    group = one.group
    against = f"vs {said(group.opponent)}, {said(group.judge)}"
    return Panel(
        title=(said(one.name), said(group.conditions), against),
        across="temperature",
        up="win rate (%)",
        lines=tuple(Line(method_of(row), values) for row, values in one.lines),
        level=0.5,
        scale=100.0,
        bars=True,
    )
