"""A child process that does one thing at a time for us, and never outlives us.

What an engine library does to its process (threads, environment, random numbers, memory that is
never given back) stays in the child; if it crashes or hangs, it is ended and we go on.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, NoReturn

from prefbench.errors import EngineError, StoppedError
from prefbench.processes import end_group, end_with_parent, ending, leave, said

PATIENCE = 10.0
"""Seconds that a child has to end by itself once it is told to."""

Calls = Mapping[str, Callable[..., Any]]


class Child:
    """A Python module that works in a process of its own, and is called from here."""

    def __init__(
        self,
        module: str,
        *,
        log: Path,
        environment: Mapping[str, str],
        timeout: float,
    ) -> None:
        """Starts it.

        Args:
            module: its `main` is run, and calls `serve`.
            log: what it prints is added to this file.
            environment: variables that it has besides ours.
            timeout: seconds without a sign of progress after which it counts as hung.

        Raises:
            EngineError: the log cannot be written.
        """
        self.log = log
        self.timeout = timeout
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
        except OSError as error:
            raise EngineError(f"its log {log} cannot be written: {error}") from error
        self._log_start = log.stat().st_size
        self._connection, theirs = Pipe()
        program = f"from {module} import main; main()"
        with theirs, log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is ours to handle; all it starts ends with it
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def call(self, name: str, *args: Any) -> Any:
        """What a function of the child returns.

        Raises:
            EngineError: the function raised; the child lives on.
            StoppedError: the child ended or made no progress for too long; it is gone.
        """
        try:
            self._connection.send((name, args))
            while True:
                if not self._connection.poll(self.timeout):
                    self.kill()
                    raise StoppedError(
                        f"no progress for {self.timeout:.0f} s in {name!r}; ended it (a longer "
                        f"--engine-timeout waits longer); its log: {self.log}"
                    )
                kind, value = self._connection.recv()
                if kind == "value":
                    return value
                if kind == "error":
                    raise EngineError(value)
        except (EOFError, OSError) as error:
            self.kill()
            raise StoppedError(
                f"its process ended ({ending(self._process, self.log, self._log_start)})"
            ) from error
        except BaseException as error:
            if not isinstance(error, EngineError):  # interrupted halfway: out of step from now on
                self.kill()
            raise

    def stop(self) -> None:
        """Ends it, gently if it is able to."""
        with contextlib.suppress(OSError):
            self._connection.send(("stop", ()))
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self.kill()

    def kill(self) -> None:
        """Ends it and everything it started."""
        end_group(self._process)
        self._connection.close()

    def said(self) -> str:
        """The end of what it printed."""
        return said(self.log, self._log_start)


def serve(calls: Calls) -> NoReturn:
    """The child's side: carries out calls until it is told to stop or its parent is gone."""
    connection = Connection(int(sys.argv[1]))
    parent = os.getppid()
    end_with_parent(connection.fileno(), parent)
    while True:
        name, args = connection.recv()
        if name == "stop":
            with contextlib.suppress(Exception):
                calls["stop"]()
            leave()
        try:
            connection.send(("value", calls[name](*args)))
        except Exception as error:  # noqa: BLE001  # whatever it is, the other side must hear of it
            traceback.print_exc()
            connection.send(("error", f"{type(error).__name__}: {error}"))


def progress(every: float = 1.0) -> Callable[[], None]:
    """A function that tells the parent, now and then, that work goes on."""
    connection = Connection(os.dup(int(sys.argv[1])))
    told = 0.0

    def tell() -> None:
        nonlocal told
        if time.monotonic() - told > every:
            told = time.monotonic()
            connection.send(("alive", None))

    return tell
