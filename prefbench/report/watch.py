"""The verbs `watch` and `status`: measure checkpoints as training writes them; how far it is."""

from __future__ import annotations

import dataclasses
import datetime
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from prefbench.report.layout import padded, plain, width_of
from prefbench.report.options import Mirrors, Results

if TYPE_CHECKING:
    from prefbench.watch.status import Row, Status

EXAMPLES = (
    "Examples: prefbench watch runs/ · prefbench watch runs/ --suite quick --interval 60 "
    "--mirror data/ · prefbench watch runs/ --every 1000 --order oldest · "
    "prefbench watch runs/ --once"
)
STATUS_EXAMPLES = "Examples: prefbench status · prefbench status results/ --json"


class TurnOrder(StrEnum):
    newest = "newest"
    oldest = "oldest"


def watch(
    directory: Annotated[Path, typer.Argument(help="Directory that training writes to.")],
    suite: Annotated[list[str], typer.Option("--suite", help="Suite to measure [paper].")] = [],  # noqa: B006  # typer's way
    task: Annotated[list[str], typer.Option("--task", help="Task to measure.")] = [],  # noqa: B006
    results: Results = Path("results"),
    interval: Annotated[
        float, typer.Option(help="Seconds between two looks, where nothing is to be done.")
    ] = 60.0,
    quiet: Annotated[
        float,
        typer.Option(help="Seconds for which a checkpoint's files must not have changed."),
    ] = 30.0,
    order: Annotated[
        TurnOrder, typer.Option(help="The checkpoint that was written last first, or last.")
    ] = TurnOrder.newest,
    every: Annotated[
        int | None,
        typer.Option(help="Of each checkpoint-N only those whose N is a multiple of this."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End when all that is there is done, or failed.")
    ] = False,
    status_file: Annotated[
        Path | None,
        typer.Option("--status", help="File that says how far it is [RESULTS/status.json]."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first N items of each task; stamped.")
    ] = None,
    engine: Annotated[str, typer.Option(help="As of `prefbench run`.")] = "auto",
    dtype: Annotated[str, typer.Option(help="As of `prefbench run`.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(help="Items answered, and kept, at once [up to the engine].")
    ] = None,
    judge: Annotated[
        list[str], typer.Option("--judge", help="Judge, instead of those that the tasks name.")
    ] = [],  # noqa: B006
    opponent: Annotated[
        list[str], typer.Option("--opponent", help="Whom answers are judged against.")
    ] = [],  # noqa: B006
    mirror: Mirrors = [],  # noqa: B006
    task_folder: Annotated[
        list[Path],
        typer.Option("--task-folder", help="Folder with task YAML files of your own."),
    ] = [],  # noqa: B006
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load pickled weights: they can run code.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python that a checkpoint brings.")
    ] = False,
) -> None:
    """Measure checkpoints as training writes them; beside training, for as long as it takes.

    Looks again and again, and touches a checkpoint only when it is whole and its files have been
    quiet. What is done is never done again, by whichever of several watchers of one results
    directory. SIGTERM and Ctrl-C stop it after the batch in flight (exit codes 0 and 130), and the
    same command goes on; `prefbench status` says how far it is. With --once the exit code is 1 if a
    checkpoint failed.
    """
    from prefbench.cells import Settings
    from prefbench.comparisons import Judging
    from prefbench.watch.watching import Measuring, Policy
    from prefbench.watch.watching import watch as keep_watching

    measuring = Measuring(
        tasks=[*suite, *task] or ["paper"],
        results=results,
        settings=Settings(
            limit=limit,
            engine=engine,
            dtype=dtype,
            device=device,
            batch_size=batch_size,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
        ),
        judging=Judging(judges=tuple(judge), opponents=tuple(opponent)),
        mirrors=mirror,
        task_folders=task_folder,
    )
    policy = Policy(interval=interval, quiet=quiet, order=order.value, every=every, once=once)
    with _asked_to_stop() as signals:
        rows = keep_watching(
            directory,
            measuring,
            policy,
            status=status_file,
            log=_log,
            stop=lambda: bool(signals),
        )
    if signal.SIGINT in signals:
        raise typer.Exit(130)
    if not signals and any(row.state == "failed" for row in rows):
        raise typer.Exit(1)


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """The signals that have asked to stop; a second one does not wait for the batch in flight."""
    came: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _log(line: str) -> None:
    when = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
    print(f"{when} {plain(line)}", file=sys.stderr, flush=True)


def status(
    results: Annotated[Path, typer.Argument(help="A results directory.")] = Path("results"),
    file: Annotated[
        Path | None, typer.Option("--status", help="Where the watch writes it, if elsewhere.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """How far a watch is: the state of each checkpoint, and why. Starts nothing."""
    from prefbench.watch.status import read_status

    found = read_status(results, file)
    print(as_json(found) if json_ else as_text(found), end="")


def as_json(found: Status) -> str:
    """Everything that is known."""
    return json.dumps(dataclasses.asdict(found), indent=1) + "\n"


def as_text(found: Status) -> str:
    """A line per checkpoint, and below it why it is not done."""
    head = ("checkpoint", "state", "step", "cells", "judged", "since")
    lines = [head, *(_cells(row) for row in found.rows)]
    widths = [max(width_of(line[i]) for line in lines) for i in range(len(head))]
    text = []
    for i, line in enumerate(lines):
        parts = (padded(cell, width) for cell, width in zip(line, widths, strict=True))
        text.append("  ".join(parts).rstrip())
        if i and (reason := found.rows[i - 1].reason):
            tries = found.rows[i - 1].tries
            text.append(f"    {plain(reason)}" + (f" (tried {tries} times)" * (tries > 1)))
    counts: dict[str, int] = {}
    for row in found.rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    text.append(", ".join(f"{n} {state}" for state, n in counts.items()) or "no checkpoints yet")
    n = len(found.watchers)
    watching = f"{n} watcher{'s' * (n > 1)}" if n else "no watcher runs"
    text.append(f"{watching}; last look {found.when[:19].replace('T', ' ')} UTC")
    return "\n".join(text) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    return tuple(
        map(
            plain,
            (
                row.name,
                row.state,
                "?" if row.step is None else str(row.step),
                f"{row.n_measured}/{len(row.cells)}" if row.cells else "-",
                f"{row.n_judged}/{len(row.comparisons)}" if row.comparisons else "-",
                (row.since or "")[:19].replace("T", " "),
            ),
        )
    )
