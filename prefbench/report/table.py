"""The verb `table`: the leaderboard as text, for a paper, for a page, or as others' files."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prefbench.errors import InputError
from prefbench.report.options import (
    Baseline,
    Confidence,
    Correction,
    Corrections,
    Everything,
    Interval,
    IntervalMethod,
    OnlyTasks,
    ResultsFolder,
)

EXAMPLES = (
    "Examples: prefbench table · prefbench table --format csv --out table.csv · "
    "prefbench table --format latex --intervals pm --out table.tex · "
    "prefbench table --format latex --standalone --out table.tex && pdflatex table.tex · "
    "prefbench table --pool-seeds · prefbench table --format lm-eval --out lm_eval_results/"
)


class Form(StrEnum):
    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"
    latex = "latex"
    html = "html"
    lm_eval = "lm-eval"
    every_eval_ever = "every-eval-ever"
    hf_eval_results = "hf-eval-results"
    model_index = "model-index"


class Intervals(StrEnum):
    bracket = "bracket"
    pm = "pm"
    subscript = "subscript"


def table(
    results: ResultsFolder = Path("results"),
    task: OnlyTasks = [],  # noqa: B006  # typer's way
    baseline: Baseline = None,
    correction: Correction = Corrections.holm,
    interval: Interval = IntervalMethod.percentile,
    confidence: Confidence = 0.95,
    pool_seeds: Annotated[
        bool,
        typer.Option("--pool-seeds", help="Seeds of one method and step as one row, their mean."),
    ] = False,
    everything: Everything = False,
    form: Annotated[
        Form, typer.Option("--format", help="The last four write files below --out DIR.")
    ] = Form.text,
    out: Annotated[Path | None, typer.Option(help="File or directory to write to.")] = None,
    width: Annotated[
        int | None,
        typer.Option(help="Of a text table in characters, of a LaTeX table in digits."),
    ] = None,
    intervals: Annotated[
        Intervals, typer.Option(help="In LaTeX: value [low, high], value ± half, or bounds.")
    ] = Intervals.bracket,
    letters: Annotated[
        bool, typer.Option("--letters", help="In LaTeX: letter groups beside the values.")
    ] = False,
    paper_columns: Annotated[int, typer.Option(help="In LaTeX: columns of the paper, 1 or 2.")] = 1,
    label: Annotated[str, typer.Option(help="In LaTeX: of the table.")] = "tab:prefbench",
    standalone: Annotated[
        bool, typer.Option("--standalone", help="In LaTeX: a whole document, to compile.")
    ] = False,
) -> None:
    """The leaderboard of all that was measured, in any format; loads no model.

    All comparisons that are shown are one family, corrected together; rows that share a letter may
    be alike, and below each column stands the difference that its items can detect.
    """
    from prefbench.report.exports import EXPORTS, export

    if form.value in EXPORTS:
        if out is None:
            raise InputError(f"--format {form.value} writes files: say --out DIR")
        if pool_seeds:
            raise InputError(f"--format {form.value} is of checkpoints: leave out --pool-seeds")
        files = export(form.value, results, out, tasks=task, baseline=baseline)
        for file in files:
            print(file)
        if not files:
            print("no file was written", file=sys.stderr)
        return
    from prefbench.boards.pooled import pooled_board
    from prefbench.boards.scored import board_of
    from prefbench.boards.shown import show
    from prefbench.report.collect import gather
    from prefbench.report.paper.caption import conditions_of
    from prefbench.report.paper.fragment import fragment
    from prefbench.report.paper.latex import latex
    from prefbench.report.tables import render, terminal_width

    gathered = gather(results, tasks=task)
    if pool_seeds and interval is IntervalMethod.bca:
        raise InputError("--interval bca leaves out one cluster at a time, not one seed")
    board = (
        pooled_board(gathered, baseline=baseline, confidence=confidence, everything=everything)
        if pool_seeds
        else board_of(
            gathered,
            baseline=baseline,
            confidence=confidence,
            interval=interval.value,
            everything=everything,
            hidden=form in (Form.csv, Form.json),
        )
    )
    if form in (Form.latex, Form.html):
        shown = show(board, everything=everything, correction=correction.value)
        conditions = conditions_of(results, gathered)
        text = (
            fragment(shown, conditions=conditions)
            if form is Form.html
            else latex(
                shown,
                conditions=conditions,
                interval_style=intervals.value,
                letters=letters,
                width=width,
                paper_columns=paper_columns,
                name=label,
                standalone=standalone,
            )
        )
    else:
        text = render(
            board,
            form.value,
            width=width or terminal_width(),
            everything=everything,
            correction=correction.value,
        )
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror or error}") from error
