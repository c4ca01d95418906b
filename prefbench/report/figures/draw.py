"""All figures of a results directory, as files for a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from prefbench.boards.scored import board_of
from prefbench.boards.shown import Shown, show
from prefbench.errors import InputError
from prefbench.leaderboard import Gathered
from prefbench.report.collect import gather
from prefbench.report.figures.agility import perplexity_and_agility
from prefbench.report.figures.aligned import differences_by_step
from prefbench.report.figures.differences import accuracies, forest
from prefbench.report.figures.entanglement import entangled
from prefbench.report.figures.frontier import reward_and_divergence
from prefbench.report.figures.heat import token_cosines
from prefbench.report.figures.positions import positions
from prefbench.report.figures.quadrants import quadrants
from prefbench.report.figures.sheet import FORMATS, Drawn, save, typeset
from prefbench.report.figures.steps import trajectories
from prefbench.report.figures.temperatures import win_rates_by_temperature
from prefbench.report.figures.winrates import win_rates
from prefbench.stats.corrections import Correction
from prefbench.store import Store

FAMILIES: tuple[Callable[[Gathered, Shown], Drawn], ...] = (
    perplexity_and_agility,
    win_rates,
    accuracies,
    forest,
    trajectories,
    quadrants,
    positions,
    entangled,
    differences_by_step,
    win_rates_by_temperature,
)
STORED: tuple[Callable[[Gathered, Shown, Store | None], Drawn], ...] = (
    reward_and_divergence,
    token_cosines,
)
"""Those that also look at answers, or at which cell belongs to which."""

CAPTIONS = "captions.txt"


def draw_figures(
    results: Path,
    folder: Path,
    *,
    formats: Sequence[str] = ("pdf",),
    tasks: Sequence[str] = (),
    baseline: str | None = None,
    confidence: float = 0.95,
    correction: Correction = "holm",
    tell: Callable[[str], None] | None = None,
) -> list[Path]:
    """Writes every figure for which there are results; equal results give equal bytes.

    What a reader must know of intervals and marks is in a file of captions, and in each figure's
    own metadata.

    Args:
        results: a results directory.
        folder: where the figures go; made where it is missing.
        formats: of each figure, out of pdf, svg and png.
        tasks: only these; all where empty.
        baseline: a checkpoint's name, or a method that one of them has; None means SFT where there
            is exactly one.
        confidence: of intervals and ellipses.
        correction: of the comparisons that are shown.
        tell: is given a sentence for each figure that has nothing to show.

    Returns:
        The files, in the order of the families, and last that of the captions.

    Raises:
        StoreError: the directory has no readable results.
        InputError: a format, a task or the baseline is unknown.
    """
    for kind in formats:
        if kind not in FORMATS:
            raise InputError(f"no figure format is named {kind!r}; there are: {', '.join(FORMATS)}")
    gathered = gather(results, tasks=tasks)
    board = board_of(gathered, baseline=baseline, confidence=confidence)
    store = Store(results, create=False)
    drawn = figures_of(gathered, show(board, correction=correction), store)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for drawing in drawn.drawings:
        for kind in formats:
            path = folder / f"{drawing.name}.{kind}"
            save(drawing, path)
            paths.append(path)
    if drawn.drawings:
        captions = folder / CAPTIONS
        lines = [f"{drawing.name}: {drawing.caption}\n" for drawing in drawn.drawings]
        captions.write_text("\n".join(lines), encoding="utf-8")
        paths.append(captions)
    if tell:
        for notice in drawn.notices:
            tell(notice)
    return paths


def figures_of(gathered: Gathered, shown: Shown, store: Store | None = None) -> Drawn:
    """Every figure for which there is something to show, and why others are left out.

    Args:
        gathered: what was measured.
        shown: the leaderboard of it.
        store: where it came from; without it no answers can be drawn.
    """
    with typeset():
        found = [
            *(family(gathered, shown) for family in FAMILIES),
            *(family(gathered, shown, store) for family in STORED),
        ]
    return Drawn(
        tuple(drawing for one in found for drawing in one.drawings),
        tuple(notice for one in found for notice in one.notices),
    )
