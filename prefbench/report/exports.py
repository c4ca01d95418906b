"""Exports of the leaderboard to other projects' files, by the name of their format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

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

    held = _held(results, tasks, baseline, notice)
    return write_lm_eval(held.results, held.store, out)


def every_eval_ever(
    results: Path,
    out: Path,
    *,
    tasks: Sequence[str] = (),
    baseline: str | None = None,
    notice: Notice = to_stderr,
) -> list[Path]:
    """Records of Every Eval Ever, one per checkpoint and benchmark."""
    from prefbench.interchange.every_eval_ever import write_every_eval_ever

    held = _held(results, tasks, baseline, notice)
    return write_every_eval_ever(held.results, held.confidence, out, notice)


def hf_eval_results(
    results: Path,
    out: Path,
    *,
    tasks: Sequence[str] = (),
    baseline: str | None = None,
    notice: Notice = to_stderr,
) -> list[Path]:
    """The hub's `.eval_results/*.yaml`, a folder per checkpoint."""
    from prefbench.interchange.hub import write_eval_results

    held = _held(results, tasks, baseline, notice)
    return write_eval_results(held.results, held.confidence, out, notice)


def model_index(
    results: Path,
    out: Path,
    *,
    tasks: Sequence[str] = (),
    baseline: str | None = None,
    notice: Notice = to_stderr,
) -> list[Path]:
    """A model card per checkpoint, with the results in its head."""
    from prefbench.interchange.hub import write_model_index

    held = _held(results, tasks, baseline, notice)
    return write_model_index(held.results, held.confidence, out)


class _Held(NamedTuple):
    """What a results directory holds."""

    results: list[Result]
    store: Store
    confidence: float


def _held(results: Path, tasks: Sequence[str], baseline: str | None, notice: Notice) -> _Held:
    """The table's values with the cells behind them.

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
    return _Held(found, store, board.confidence)


EXPORTS: Mapping[str, Export] = {
    "lm-eval": lm_eval,
    "every-eval-ever": every_eval_ever,
    "hf-eval-results": hf_eval_results,
    "model-index": model_index,
}
"""What `prefbench table --format … --out DIR` writes besides text."""
