"""The verb `trajectory`: metrics over training steps or iterates, and which of them to take."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from prefbench.report.options import Everything, Form, OnlyTasks, Results, TableForm, Width

EXAMPLES = (
    "Examples: prefbench trajectory dpo · prefbench trajectory dpo --results results/ "
    "--by hh_helpful_pairs/perplexity · prefbench trajectory dpo --reference sft --format csv · "
    "prefbench trajectory spin"
)


def trajectory(
    run: Annotated[
        str,
        typer.Argument(
            help="A training run: its folder's name, or a beginning. Of iterates, each tuned from "
            "the one before: one of them, or their method."
        ),
    ],
    results: Results = Path("results"),
    by: Annotated[
        str | None,
        typer.Option(help="TASK/METRIC to choose the best step by [the first shown]."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Row or method to compare with [what the run was tuned from, else SFT]."),
    ] = None,
    task: OnlyTasks = [],  # noqa: B006  # typer's way
    confidence: Annotated[
        float, typer.Option(help="Of intervals, and of all that is corrected.")
    ] = 0.95,
    everything: Everything = False,
    format_: TableForm = Form.text,
    width: Width = None,
) -> None:
    """Every metric over the steps of a run, where it gets worse, and the best step.

    Checkpoints of one method that were tuned one from the other (SPIN, iterated DPO) are shown by
    iteration, each also against the one before; the name of a `checkpoint-N` gives the steps of
    its training.

    Differences to the reference are paired on the same items and corrected for the steps looked at.
    The best step comes with those that cannot be told apart from it, and with its value corrected
    for having been chosen.
    """
    from prefbench.errors import InputError
    from prefbench.report.collect import gather
    from prefbench.report.steps import STYLES
    from prefbench.steps.trajectory import trajectory as follow

    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, not {confidence}")
    found = follow(
        gather(results, tasks=task),
        run,
        by=by,
        reference=reference,
        everything=everything,
        confidence=confidence,
    )
    print(STYLES[format_.value](found, width or _width()), end="")


def _width() -> int:
    """The terminal's width where there is one."""
    return max(60, shutil.get_terminal_size((110, 24)).columns) if sys.stdout.isatty() else 110
