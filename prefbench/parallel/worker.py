"""A worker: a process that measures the units it is handed, and tells how it goes on.

Both directions carry JSON, a line each. To it: the job, then units, then `stop`. From it: `ready`
(with the cells that other processes have claimed) whenever it has nothing to do, what a Listener
hears in between, and `error` where the whole run cannot go on. Its other side is `inside.py`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefbench.cells import Settings, Unit
from prefbench.errors import StoreError
from prefbench.processes import end_group, ending
from prefbench.records import Checkpoint

PROGRAM = "from prefbench.parallel.inside import main; main()"


@dataclass(frozen=True)
class Job:
    """All that a worker needs to plan the cells of a run once more, which gives the same cells."""

    checkpoints: tuple[Checkpoint, ...]
    tasks: tuple[str, ...]
    results: Path
    settings: Settings
    references: tuple[tuple[str, Checkpoint | str], ...] = ()
    """By a checkpoint's path: its reference, or why it has none."""
    mirrors: tuple[Path, ...] = ()
    task_folders: tuple[Path, ...] = ()
    command: tuple[str, ...] = ()
    """The run's, for the manifests."""

    def as_json(self) -> str:
        """The job in one line."""
        from pydantic import TypeAdapter

        return TypeAdapter(Job).dump_json(self).decode()

    @classmethod
    def from_json(cls, line: str) -> Job:
        """The job that such a line says."""
        from pydantic import TypeAdapter

        return TypeAdapter(Job).validate_json(line)


class Worker:
    """The process, from its start until it is gone."""

    def __init__(
        self,
        number: int,
        job: Job,
        environment: Mapping[str, str],
        hear: Callable[[Worker, dict[str, Any] | None], None],
    ) -> None:
        """Starts it.

        Args:
            number: which of the workers it is.
            job: of the run.
            environment: variables that it has besides ours.
            hear: told, in another thread, each of its lines, and None when it is gone.

        Raises:
            StoreError: there is no place for its log.
        """
        self.number = number
        self.stopped = False
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-%f")
        self.log = job.results / "logs" / f"worker-{stamp}-{number + 1}.log"
        # It imports what we would; -P: and nothing from a directory that it happens to be in.
        places = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, "PYTHONPATH": places, **environment},
                    encoding="utf-8",
                    start_new_session=True,  # Ctrl-C is ours to handle; all it starts ends with it
                )
        except OSError as error:
            raise StoreError(f"{self.log}: a worker cannot be started: {error}") from error
        self._hear = hear
        self._reader = threading.Thread(target=self._read, daemon=True, name="worker's lines")
        self._reader.start()
        self._send(job.as_json())

    @property
    def pid(self) -> int:
        return self._process.pid

    def measure(self, unit: Unit, *, wait: bool) -> None:
        """Hands it a unit; it is ready again when it is through with it."""
        names = [cell.cell for cell in unit.cells]
        self._send(json.dumps({"group": unit.group, "cells": names, "wait": wait}))

    def stop(self) -> None:
        """Tells it to end, which it does as soon as it has closed its engines."""
        self.stopped = True
        self._send(json.dumps({"stop": True}))

    def end(self) -> str:
        """Ends it now, if it has not ended, with all that it started; says how it ended."""
        end_group(self._process)
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what it was not there to read
                if pipe:
                    pipe.close()
        how = ending(self._process, self.log)
        with contextlib.suppress(OSError):
            if not self.log.stat().st_size:
                self.log.unlink()
        return how

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is gone, which its reader tells
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # the last one, torn by its end
                self._hear(self, json.loads(line))
        self._hear(self, None)
