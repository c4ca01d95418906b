"""A worker measures the units that it is handed, and tells how it goes on.

What it tells are events, dictionaries that JSON can say: `ready` (with the cells that other
processes have claimed) whenever it has nothing to do; what a Listener hears in between; `placed`
where it is somewhere else than the run; `unfit` where its place cannot do the work; and `error`
where the whole run cannot go on. None is the last: it is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from prefbench.cells import Unit
from prefbench.parallel.job import Job

Hear = Callable[["Worker", "dict[str, Any] | None"], None]


class Worker(Protocol):
    """What measures, from its start until it is gone."""

    number: int
    """Which of the workers of the run it is; a successor has the same."""
    stopped: bool
    """Whether it has been told to end."""
    lost: bool
    """Whether its place went away under it, of which the cells at hand are no likely cause."""

    def measure(self, unit: Unit, *, wait: bool) -> None:
        """Hands it a unit; it is ready again when it is through with it."""

    def stop(self) -> None:
        """Tells it to end, which it does as soon as it has closed its engines."""

    def end(self) -> str:
        """Ends it now, if it has not ended, with all that it started; says how it ended."""


class Workplace(Protocol):
    """Where workers are started."""

    job: Job
    n_first: int
    """How many to begin with."""
    n_most: int
    """How many at most: one more is started whenever the last one has found its place."""

    def start(self, number: int, hear: Hear) -> Worker:
        """Starts a worker.

        Args:
            number: which of the workers it is.
            hear: told, in another thread, what it tells, and None when it is gone.
        """

    def leave(self, place: str) -> bool:
        """Starts no more workers at a place that is unfit; whether there is another."""
