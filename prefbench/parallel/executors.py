"""Who carries out the cells of a run: this process, several on this machine, or a cluster."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from prefbench.cells import PlannedCell, Settings
from prefbench.engines import Engines
from prefbench.listener import Listener
from prefbench.machine import count_cores
from prefbench.parallel.devices import environments, visible_gpus
from prefbench.parallel.job import Job
from prefbench.parallel.local import ThisMachine
from prefbench.parallel.together import measure_together
from prefbench.store import Store
from prefbench.work import Work


class Measure(Protocol):
    """Measures cells, and returns the reasons of those that failed, by name."""

    def __call__(
        self, cells: Sequence[PlannedCell], job: Job, store: Store, listener: Listener
    ) -> dict[str, str]: ...


class Executor(Protocol):
    """Who carries out cells."""

    def opened(self, settings: Settings, listener: Listener) -> AbstractContextManager[Measure]:
        """What measures, for the length of a `with`.

        Raises:
            PrefbenchError: it cannot do what the settings ask for.
        """


@dataclass(frozen=True)
class Here:
    """This process, or with --data-parallel-size as many of its own."""

    @contextlib.contextmanager
    def opened(self, settings: Settings, listener: Listener) -> Iterator[Measure]:
        """Sees that there are GPUs enough; starts nothing yet.

        Raises:
            InputError: there are too few GPUs for so many engines.
        """
        places = engine_environments(settings)

        def measure(
            cells: Sequence[PlannedCell], job: Job, store: Store, listener: Listener
        ) -> dict[str, str]:
            if len(places) > 1:  # a process of its own for each
                there = ThisMachine(job, places)
                return measure_together(cells, there, store=store, listener=listener)
            with (
                Engines([cell.checkpoint for cell in cells]) as engines,
                Work(store, settings, listener, engines) as work,
            ):
                return work.carry_out(cells)

        yield measure


def engine_environments(settings: Settings) -> list[dict[str, str]]:
    """What each engine that measures at the same time is started with; for one, nothing."""
    if settings.data_parallel_size == 1:
        return [{}]
    device = "cpu" if settings.engine == "server" else settings.device
    return environments(
        settings.data_parallel_size,
        n_gpus_each=settings.tensor_parallel_size,
        device=device,
        gpus=() if device == "cpu" else visible_gpus(),
        n_cores=count_cores(),
        environment=os.environ,
    )
