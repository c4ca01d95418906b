"""The verb `claims`: whether what papers say of preference tuning holds in these results."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prefbench.report.options import Baseline, Confidence, OnlyTasks, ResultsFolder, Width

EXAMPLES = (
    "Examples: prefbench claims · prefbench claims demo/results --readings · "
    "prefbench claims --claim displacement --claim dpop-rises --all · prefbench claims "
    "--format json"
)


class ClaimsForm(StrEnum):
    text = "text"
    json = "json"


def claims(
    results: ResultsFolder = Path("results"),
    claim: Annotated[
        list[str],
        typer.Option("--claim", help="Show this claim; several may be given. All are tested."),
    ] = [],  # noqa: B006  # typer's way
    task: OnlyTasks = [],  # noqa: B006
    baseline: Baseline = None,
    confidence: Confidence = 0.95,
    readings: Annotated[
        bool, typer.Option("--readings", help="A paragraph on each checkpoint, too.")
    ] = False,
    all_steps: Annotated[
        bool, typer.Option("--all-steps", help="Every checkpoint of a run, not its last.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Every row by itself, and all that cannot be checked.")
    ] = False,
    form: Annotated[ClaimsForm, typer.Option("--format", help="Of the output.")] = ClaimsForm.text,
    width: Width = None,
) -> None:
    """Whether the literature's claims hold in these results, each with its numbers.

    A claim holds where the numbers show it and does not hold where they show the contrary, at one
    level for all claims, rows and tasks together. Where they leave it open it is not shown.
    """
    from prefbench.claims.checking import check
    from prefbench.claims.literature import claims_named
    from prefbench.claims.readings import read
    from prefbench.report.claims_text import STYLES
    from prefbench.report.collect import gather
    from prefbench.report.tables import terminal_width

    asked = claims_named(claim)
    gathered = gather(results, tasks=task)
    checked = check(gathered, baseline=baseline, confidence=confidence, all_steps=all_steps).only(
        asked
    )
    said = read(gathered, baseline=baseline, confidence=confidence) if readings else None
    style = STYLES[form.value]
    print(style(checked, width or terminal_width(), everything=everything, readings=said), end="")
