"""The verb `report`: results as a page to read and as figures to print."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prefbench.report.options import (
    Baseline,
    Confidence,
    Correction,
    Corrections,
    OnlyTasks,
    ResultsFolder,
)

EXAMPLES = (
    "Examples: prefbench report --html report.html · "
    "prefbench report demo/results --html report.html --samples 500 · "
    "prefbench report --figures figures/ --format pdf --format png --task gsm8k_5shot"
)


class Drawn(StrEnum):
    pdf = "pdf"
    svg = "svg"
    png = "png"


def report(
    results: ResultsFolder = Path("results"),
    html: Annotated[
        Path | None, typer.Option(help="Write one page that holds everything, to this file.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Draw figures for a paper into this directory.")
    ] = None,
    format_: Annotated[
        list[Drawn] | None,
        typer.Option("--format", help="Of the figures; several may be given. Else pdf."),
    ] = None,
    task: OnlyTasks = [],  # noqa: B006  # typer's way
    baseline: Baseline = None,
    confidence: Confidence = 0.95,
    correction: Correction = Corrections.holm,
    everything: Annotated[
        bool, typer.Option("--all", help="The page has all metrics, not the main ones.")
    ] = False,
    samples: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Items of each task in the page's sample browser, the first ones. Else all, as "
            "far as they fit into some 50 MB.",
        ),
    ] = None,
) -> None:
    """A page and figures from all that was measured; loads no model.

    The page is one HTML file that opens anywhere, loads nothing and sends nothing: what to know
    first, the leaderboard, figures, the samples with their verdicts, and how it was measured.
    """
    from prefbench.errors import InputError
    from prefbench.report.layout import plain

    if html is None and figures is None:
        raise InputError("nothing to write: say --html FILE, --figures DIR, or both")
    if format_ and figures is None:
        raise InputError("--format is of figures: say --figures DIR")
    if html is not None:
        from prefbench.report.collect import gather
        from prefbench.report.page.page import write_page

        notes = write_page(
            html,
            gather(results, tasks=task),
            results,
            baseline=baseline,
            confidence=confidence,
            correction=correction.value,
            everything=everything,
            samples=samples,
        )
        for note in notes:
            print(plain(f"note: {note}"), file=sys.stderr)
        print(f"{html}: {html.stat().st_size / 1e6:.1f} MB")
    if figures is not None:
        from prefbench.report.figures.draw import draw_figures

        files = draw_figures(
            results,
            figures,
            formats=[one.value for one in format_ or [Drawn.pdf]],
            tasks=task,
            baseline=baseline,
            confidence=confidence,
            correction=correction.value,
            tell=lambda notice: print(plain(f"note: {notice}"), file=sys.stderr),
        )
        print("\n".join(map(str, files)))
