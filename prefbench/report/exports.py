"""Exports of the leaderboard to other projects' files, by the name of their format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from prefbench.report.collect import gather
from prefbench.report.layout import plain

if TYPE_CHECKING:
    from prefbench.interchange.exported import Notice, Result
    from prefbench.store import Store


class Export(Protocol):
    """Writes what a results directory holds below a folder, and returns the files."""

    def __call__(
        self,
        results: Path,
        out: Path,
        *,
        tasks: Sequence[str] = ...,
        baseline: str | None = ...,
        notice: Notice = ...,
    ) -> list[Path]: ...


def to_stderr(text: str) -> None:
    """Tells the user what an export had to leave out."""
    typer.echo(plain(text), err=True)


def lm_eval(
    results: Path,
    out: Path,
    *,
    tasks: Sequence[str] = (),
    baseline: str | None = None,
    notice: Notice = to_stderr,
) -> list[Path]:
    """lm-eval's `results_*.json` and `samples_*.jsonl`, a folder per checkpoint."""
    from prefbench.interchange.lm_eval_out import write_lm_eval

    found, store = _results(results, tasks, baseline, notice)
    return write_lm_eval(found, store, out)


def _results(
    results: Path, tasks: Sequence[str], baseline: str | None, notice: Notice
) -> tuple[list[Result], Store]:
    """The table's values with the cells behind them.

    Raises:
        StoreError: the directory has no readable results.
        InputError: a task or the baseline is unknown, or nothing is measured.
    """
    from prefbench.interchange.exported import results_of
    from prefbench.leaderboard import board_of
    from prefbench.store import Store

    gathered = gather(results, tasks=tasks)
    store = Store(results, create=False)
    board = board_of(gathered, baseline=baseline)
    return results_of(board, gathered.cells, store, notice), store


EXPORTS: Mapping[str, Export] = {"lm-eval": lm_eval}
"""What `prefbench table --format … --out DIR` writes besides text."""
