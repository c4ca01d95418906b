"""Workers on this machine, each a process.

Both directions carry JSON, a line each. To it: the job, then units, then `stop`. From it: its
events. Its other side is `inside.py`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefbench.cells import Unit
from prefbench.errors import StoreError
from prefbench.parallel.job import Job
from prefbench.parallel.worker import Hear
from prefbench.processes import end_group, ending, import_places

PROGRAM = "from prefbench.parallel.inside import main; main()"


class LocalWorker:
    """The process, from its start until it is gone."""

    lost = False  # it has no place of its own to lose

    def __init__(
        self, number: int, job: Job, environment: Mapping[str, str], hear: Hear, *, logs: Path
    ) -> None:
        """Starts it.

        Args:
            number: which of the workers it is.
            job: of the run.
            environment: variables that it has besides ours.
            hear: told, in another thread, each of its events, and None when it is gone.
            logs: folder for what it prints.

        Raises:
            StoreError: there is no place for its log.
        """
        self.number = number
        self.stopped = False
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-%f")
        self.log = logs / f"worker-{stamp}-{number + 1}.log"
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, "PYTHONPATH": import_places(), **environment},
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
        self.measure_named(unit.group, [cell.cell for cell in unit.cells], wait=wait)

    def measure_named(self, group: Sequence[str], cells: Sequence[str], *, wait: bool) -> None:
        """The same for cells by name."""
        self._send(json.dumps({"group": group, "cells": cells, "wait": wait}))

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


class ThisMachine:
    """A workplace with room for as many workers as there are environments."""

    def __init__(self, job: Job, environments: Sequence[Mapping[str, str]]) -> None:
        """Starts nothing yet.

        Args:
            job: of the run.
            environments: the variables that each worker has besides ours.
        """
        self.n_first = self.n_most = len(environments)
        self.job = job
        self._environments = environments

    def start(self, number: int, hear: Hear) -> LocalWorker:
        """Starts a worker in the environment of its number."""
        logs = self.job.results / "logs"
        return LocalWorker(number, self.job, self._environments[number], hear, logs=logs)

    def leave(self, place: str) -> bool:
        """There is no other."""
        return False
