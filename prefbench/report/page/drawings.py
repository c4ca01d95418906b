"""The page's figures: plain SVG with tooltips, in colours that the page's own style sets."""

from __future__ import annotations

from prefbench.boards.shown import Shown
from prefbench.report.page.intervals import accuracies, forests, rates
from prefbench.report.page.scatter import scatters
from prefbench.report.page.sheets import Figure
from prefbench.report.page.steps import trajectories


def figures_of(shown: Shown) -> list[Figure]:
    """All figures that the results have enough for: of one kind after those of another."""
    return [
        *scatters(shown),
        *rates(shown),
        *accuracies(shown),
        *trajectories(shown),
        *forests(shown),
    ]
