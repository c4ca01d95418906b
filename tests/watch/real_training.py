"""A real training and the real `prefbench watch` beside it, as processes that can be killed."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefbench.cells import Settings
from prefbench.report.collect import collect
from prefbench.report.tables import render
from prefbench.runner import run
from prefbench.store import Store

TOP = Path(__file__).parents[2]


def python(module: str, *arguments: object) -> subprocess.Popen[str]:
    """A program of its own, whose output is kept."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=TOP,
    )


def train(
    kind: str, start: Path, run: Path, *, callback: bool = True, **options: object
) -> subprocess.Popen[str]:
    """A training; the options are those of tests.integrations.training."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    given += ["--callback"] * callback
    return python("tests.integrations.training", kind, start, run, *given)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is measured of what, as `watch` and `run` are both told."""

    runs: Path
    tasks: Sequence[str]
    mirror: Path
    limit: int | None = None
    batch_size: int | None = None

    def watch(self, results: Path, *further: object) -> subprocess.Popen[str]:
        given: list[object] = [self.runs, "--results", results, "--mirror", self.mirror]
        given += [f"--task={task}" for task in self.tasks]
        given += [f"--limit={self.limit}"] if self.limit else []
        given += [f"--batch-size={self.batch_size}"] if self.batch_size else []
        return python("prefbench", "watch", *given, "--engine", "hf", *further)

    def run(self, results: Path) -> Any:
        return run(
            self.runs,
            tasks=self.tasks,
            results=results,
            settings=Settings(engine="hf", limit=self.limit, batch_size=self.batch_size),
            mirrors=[self.mirror],
        )


def kill_after(
    watching: subprocess.Popen[str], happened: Callable[[], bool], seconds: float
) -> None:
    """Kills a watcher with -9 so many seconds after something happened."""
    until = time.monotonic() + 300
    while not happened():
        if watching.poll() is not None or time.monotonic() > until:
            watching.kill()
            raise AssertionError(f"the watch measures nothing: {watching.communicate()[0]}")
        time.sleep(0.02)
    time.sleep(seconds)
    assert watching.poll() is None
    os.kill(watching.pid, signal.SIGKILL)
    watching.communicate()


def work(results: Path) -> dict[str, int]:
    """What is kept of each cell, by its size."""
    found = {}
    for path in results.glob("cells/*/*"):
        if path.name in ("journal.jsonl", "records.parquet"):
            try:
                found[str(path)] = path.stat().st_size
            except FileNotFoundError:  # sealed meanwhile
                continue
    return found


def check_same_as_one_run(measured: Measured, results: Path, alone: Path) -> int:
    """That nothing was lost, doubled or left, and all is what a single run makes of it.

    Args:
        measured: what is there when training has ended.
        results: of the watchers.
        alone: a new directory for the single run.

    Returns:
        How many cells both have.
    """
    again = measured.run(results)
    assert not again.measured, again
    assert not again.failed, again
    whole = measured.run(alone)
    assert not whole.failed
    tables = [
        render(collect(folder, plan=outcome.plan), style)
        for style in ("json", "text")
        for folder, outcome in ((results, again), (alone, whole))
    ]
    assert tables[0] == tables[1]
    assert tables[2] == tables[3]
    cells = (*whole.measured, *whole.done)
    for cell in cells:
        kept, fresh = (path / "cells" / cell / "records.parquet" for path in (results, alone))
        assert kept.read_bytes() == fresh.read_bytes()
    store = Store(results)
    for folder in (results / "cells").iterdir():
        if store.is_sealed(folder.name):  # one whose checkpoint was deleted may stay open
            items = store.records(folder.name)["item"].to_pylist()
            assert sorted(items) == sorted(set(items))
            assert measured.limit in (None, len(items))
    return len(cells)
