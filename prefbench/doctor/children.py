"""Processes that try something while this one looks at the rest; none outlives its time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefbench.processes import end_group


@dataclass(frozen=True)
class Ended:
    """How a process ended: its stdout, and why it gave none that counts."""

    output: str
    problem: str | None


class Child:
    """A process that was started and is waited for later."""

    def __init__(
        self, command: Sequence[str], time_limit: float, environment: Mapping[str, str]
    ) -> None:
        self.time_limit = time_limit
        self.until = time.monotonic() + time_limit
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**os.environ, **environment},
            start_new_session=True,  # so that all that it starts can be ended with it
        )

    def wait(self) -> Ended:
        """Waits for its end, at most until its time limit."""
        try:
            left = max(0.0, self.until - time.monotonic())
            output, _ = self.process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            self.stop()
            return Ended("", f"did not end within {self.time_limit:g} s")
        code = self.process.returncode
        if code < 0:
            return Ended(output, f"the process was ended by {signal.Signals(-code).name}")
        return Ended(output, f"the process ended with exit code {code}" if code else None)

    def stop(self) -> None:
        """Ends it, and what it has started, if that has not happened yet."""
        if self.process.returncode is None:
            end_group(self.process)
        if self.process.stdout:
            self.process.stdout.close()


@contextmanager
def started(
    command: Sequence[str], *, time_limit: float, environment: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """A process for the length of a `with`.

    Raises:
        OSError: there is no such program, or it cannot be started.
    """
    child = Child(command, time_limit, environment or {})
    try:
        yield child
    finally:
        child.stop()


@contextmanager
def attempt(
    what: str,
    argument: str = "",
    *,
    time_limit: float,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """One of `attempts.ATTEMPTS`, begun in a process of its own."""
    # A checkout need not be installed; -P keeps the working directory's files from being imported.
    places = [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2])]
    path = os.pathsep.join(place for place in places if place)
    program = "import sys; from prefbench.doctor.attempts import main; main(*sys.argv[1:])"
    command = [sys.executable, "-P", "-c", program, str(time_limit), what, argument]
    with started(
        command, time_limit=time_limit, environment={**(environment or {}), "PYTHONPATH": path}
    ) as child:
        yield child


def outcome(child: Child) -> dict[str, Any]:
    """What an attempt tells; `error` in it says why it failed."""
    ended = child.wait()
    lines = ended.output.splitlines()
    if ended.problem or not lines:
        return {"error": ended.problem or "the process ended without a word"}
    facts: dict[str, Any] = json.loads(lines[-1])
    return facts
