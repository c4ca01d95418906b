"""Exports of the leaderboard to other projects' files, by the name of their format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from prefbench.report.collect import gather
from prefbench.report.layout import plain

if TYPE_CHECKING:
    from prefbench.interchange.exported import Notice, Result
    from prefbench.store import Store


def to_stderr(text: str) -> None:
    """Tells the user what an export had to leave out."""
    typer.echo(plain(text), err=True)


class Held(NamedTuple):
    """The table's values with the cells behind them."""

    results: list[Result]
    store: Store
    confidence: float
    notice: Notice


def export(
    form: str,
    results: Path,
    out: Path,
    *,
    tasks: Sequence[str] = (),
    baseline: str | None = None,
    notice: Notice = to_stderr,
) -> list[Path]:
    """Writes what a results directory holds as another project's files.

    Args:
        form: one of EXPORTS.
        results: the directory.
        out: the folder to write below.
        tasks: only these.
        baseline: of the table; exports hold no differences.
        notice: told what had to be left out.

    Returns:
        The files.

    Raises:
        StoreError: the directory has no readable results.
        InputError: a task or the baseline is unknown, or nothing is measured.
    """
    from prefbench.boards.scored import board_of
    from prefbench.interchange.exported import results_of
    from prefbench.store import Store

    gathered = gather(results, tasks=tasks)
    store = Store(results, create=False)
    board = board_of(gathered, baseline=baseline)
    found = results_of(board, gathered.cells, store, notice)
    return EXPORTS[form](Held(found, store, board.confidence, notice), out)


def _lm_eval(held: Held, out: Path) -> list[Path]:
    """lm-eval's `results_*.json` and `samples_*.jsonl`, a folder per checkpoint."""
    from prefbench.interchange.lm_eval_out import write_lm_eval

    return write_lm_eval(held.results, held.store, out)


def _every_eval_ever(held: Held, out: Path) -> list[Path]:
    """Records of Every Eval Ever, one per checkpoint and benchmark."""
    from prefbench.interchange.every_eval_ever import write_every_eval_ever

    return write_every_eval_ever(held.results, held.confidence, out, held.notice)


def _hf_eval_results(held: Held, out: Path) -> list[Path]:
    """The hub's `.eval_results/*.yaml`, a folder per checkpoint."""
    from prefbench.interchange.hub import write_eval_results

    return write_eval_results(held.results, held.confidence, out, held.notice)


def _model_index(held: Held, out: Path) -> list[Path]:
    """A model card per checkpoint, with the results in its head."""
    from prefbench.interchange.hub import write_model_index

    return write_model_index(held.results, held.confidence, out)


EXPORTS: Mapping[str, Callable[[Held, Path], list[Path]]] = {
    "lm-eval": _lm_eval,
    "every-eval-ever": _every_eval_ever,
    "hf-eval-results": _hf_eval_results,
    "model-index": _model_index,
}
"""What `prefbench table --format … --out DIR` writes besides text."""
