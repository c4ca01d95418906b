"""Progress on stderr: bars on a terminal, a line per cell elsewhere."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prefbench.listener import Listener
from prefbench.report.layout import plain

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from prefbench.cells import PlannedCell


LINE_EVERY = 30.0
"""Seconds between two lines on one judge's work."""


@contextmanager
def showing() -> Iterator[Listener]:
    """A listener that shows how a run goes on."""
    if sys.stderr.isatty():
        with _bars() as listener:
            yield listener
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        cells = progress.add_task("cells", total=None)
        several: dict[int, Listener] = {}

        def on_plan(n_cells: int, n_missing: int) -> None:
            progress.update(cells, total=n_missing)

        def for_engine(number: int) -> Listener:
            if number not in several:
                several[number] = _bar(progress, cells, f"engine {number + 1}")
            return several[number]

        judging = progress.add_task("", total=None, visible=False)

        def on_judge(name: str, done: int, total: int) -> None:
            title = plain(f"{name}: verdicts")
            progress.update(
                judging, description=title, completed=done, total=total, visible=done < total
            )

        alone = _bar(progress, cells, "")
        yield dataclasses.replace(alone, on_plan=on_plan, on_judge=on_judge, for_engine=for_engine)


def _bar(progress: Progress, cells: TaskID, engine: str) -> Listener:
    """Shows one engine's cell by a bar of its own, and counts on the bar of all cells."""
    bar = progress.add_task("", total=None, visible=False)
    title = place = ""

    def on_place(where: str) -> None:
        nonlocal place
        place = f" on {where}"

    def on_cell(cell: PlannedCell) -> None:
        nonlocal title
        who = f"{engine}{place}: " if engine else ""
        title = plain(f"{who}{cell.title}: ")

    def on_step(what: str, done: int, total: int) -> None:
        progress.update(
            bar, description=title + what, completed=done, total=total, visible=done < total
        )

    def on_cell_end(cell: PlannedCell, why: str | None) -> None:
        progress.update(bar, visible=False)
        progress.advance(cells)
        if why:
            progress.console.print(plain(f"{cell.title}: {why}"), markup=False)

    def on_notice(text: str) -> None:
        progress.console.print(plain(text), markup=False)

    return Listener(
        on_cell=on_cell,
        on_step=on_step,
        on_cell_end=on_cell_end,
        on_notice=on_notice,
        on_place=on_place,
    )


def _lines() -> Listener:
    started: dict[str, float] = {}
    places: dict[int, str] = {}

    def on_plan(n_cells: int, n_missing: int) -> None:
        print(f"{n_cells} cells, {n_missing} to be measured", file=sys.stderr, flush=True)

    def on_cell(cell: PlannedCell) -> None:
        started[cell.cell] = time.monotonic()

    def on_cell_end(cell: PlannedCell, why: str | None, where: str = "") -> None:
        took = time.monotonic() - started.get(cell.cell, time.monotonic())
        said = why or f"{took:.1f} s{where}"
        print(plain(f"{cell.title}: {said}"), file=sys.stderr, flush=True)

    def on_judge(name: str, done: int, total: int) -> None:
        if done == total or time.monotonic() - started.get(name, -LINE_EVERY) >= LINE_EVERY:
            started[name] = time.monotonic()
            print(plain(f"{name}: {done} of {total} verdicts"), file=sys.stderr, flush=True)

    def on_notice(text: str) -> None:
        print(plain(text), file=sys.stderr, flush=True)

    def for_engine(number: int) -> Listener:
        def on_place(where: str) -> None:
            places[number] = f" on {where}"

        def on_end(cell: PlannedCell, why: str | None) -> None:
            on_cell_end(cell, why, places.get(number, ""))

        return Listener(on_cell=on_cell, on_cell_end=on_end, on_notice=on_notice, on_place=on_place)

    return Listener(
        on_plan=on_plan,
        on_cell=on_cell,
        on_cell_end=on_cell_end,
        on_judge=on_judge,
        on_notice=on_notice,
        for_engine=for_engine,
    )


@contextmanager
def zoo_progress() -> Iterator[Callable[[str, float], None]]:
    """A function that is told each training run's name and how much of it is done, 0 to 1."""
    if not sys.stderr.isatty():
        finished: set[str] = set()

        def told(name: str, share: float) -> None:
            if share >= 1 and name not in finished:
                finished.add(name)
                print(f"trained: {name}", file=sys.stderr, flush=True)

        yield told
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("training {task.description}"), BarColumn(), TimeElapsedColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def shown(name: str, share: float) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=1.0)
            progress.update(bars[name], completed=share)

        yield shown
