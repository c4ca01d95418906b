"""The verb `import`: old lm-eval runs become rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefbench.report.options import Results

if TYPE_CHECKING:
    from prefbench.interchange.imported import Imported

EXAMPLES = (
    "Examples: prefbench import old/results_2026-01-31T10-00-00.000000.json · "
    "prefbench import lm_eval_out/ --method dpo --name 'DPO, last year' · "
    "prefbench import lm_eval_out/ --task arc_challenge --as arc_challenge_25shot"
)


def import_(
    paths: Annotated[
        list[Path], typer.Argument(help="results_*.json of lm-eval, or folders with such files.")
    ],
    results: Results = Path("results"),
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="A task that was measured here: the run joins its columns, paired on the "
            "documents that are the task's; without samples unpaired.",
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Which of the files' tasks, by lm-eval's name; else all.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Of the row, as the table orders methods, e.g. dpo.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the row; else the model's name and (lm-eval).")
    ] = None,
) -> None:
    """Take old lm-eval results into the results directory, so that the table shows them.

    Samples (samples_*.jsonl) that lie beside a results file are read with it: then values have
    bootstrap intervals, and differences are paired. Without them the values and standard errors
    of the file stand, unpaired. The table says of each what was imported. Importing a file again
    changes nothing.
    """
    from prefbench.errors import StoreError
    from prefbench.interchange.imported import import_lm_eval
    from prefbench.store import Store

    done = import_lm_eval(paths, results, as_task=as_, task=task, method=method, name=name)
    for line in lines(done):
        typer.echo(line)
    if left := Store(results).close():
        raise StoreError(left)


def lines(done: Sequence[Imported]) -> list[str]:
    """What was imported, a line for each task of each file, and what to do next."""
    from prefbench.report.layout import plain

    told = [plain(_line(one)) for one in done]
    n_new = sum(one.new for one in done)
    if n_new < len(done):
        told.append(f"{len(done) - n_new} of {len(done)} had been imported before.")
    return [*told, "prefbench table shows them."]


def _line(one: Imported) -> str:
    joins = "" if one.column == one.task else f" as {one.column}"
    told = f"{one.checkpoint} × {one.task}{joins}: "
    if one.by_item:
        told += f"{', '.join(one.by_item)} of {one.n_items} items"
        if one.n_missing:
            told += f", {one.n_missing} items of {one.column} are not in the run"
        if one.n_left_out:
            told += f", {one.n_left_out} documents are none of {one.column}"
    if one.aggregates:
        told += "; " if one.by_item else ""
        told += f"{', '.join(one.aggregates)} without values by item, so unpaired"
    return told
