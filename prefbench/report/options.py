"""Options that verbs share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Form(StrEnum):
    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"


class IntervalMethod(StrEnum):
    percentile = "percentile"
    bca = "bca"


class Corrections(StrEnum):
    holm = "holm"
    bh = "bh"
    none = "none"


ResultsFolder = Annotated[Path, typer.Argument(help="A results directory.")]
Results = Annotated[Path, typer.Option("--results", "-r", help="Where results are kept.")]
OnlyTasks = Annotated[
    list[str], typer.Option("--task", help="Only this task; several may be given.")
]
Baseline = Annotated[
    str | None,
    typer.Option(help="Row or method that differences are taken to. Default: the one SFT."),
]
Confidence = Annotated[float, typer.Option(help="Of the intervals.")]
Interval = Annotated[IntervalMethod, typer.Option(help="Bootstrap interval.")]
Correction = Annotated[
    Corrections,
    typer.Option(help="For the number of comparisons: Holm, Benjamini and Hochberg, none."),
]
Everything = Annotated[bool, typer.Option("--all", help="All metrics, not the main ones.")]
TableForm = Annotated[Form, typer.Option("--format", help="Of the table.")]
Width = Annotated[int | None, typer.Option(help="Of a text table, in characters.")]
Mirrors = Annotated[
    list[Path],
    typer.Option("--mirror", help="Local directory with data sets; may be given several times."),
]
