"""A child process that does one thing at a time for us, and never outlives us.

What an engine library does to its process (threads, environment, random numbers, memory that is
never given back) stays in the child; if it crashes or hangs, it is ended and we go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, NoReturn

from prefbench.errors import EngineError, StoppedError

PATIENCE = 10.0
"""Seconds that a child has to end by itself once it is told to."""
LOG_TAIL = 4000
"""Characters of the log that a message may quote from."""

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
        """
        self.log = log
        self.timeout = timeout
        self._connection, theirs = Pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = log.stat().st_size if log.exists() else 0
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
            raise StoppedError(f"its process ended ({self._ending()})") from error
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
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()

    def said(self) -> str:
        """The end of what it printed."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - LOG_TAIL))
            return file.read().decode(errors="replace").strip()
        return ""

    def _ending(self) -> str:
        code = self._process.returncode
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        last = self.said().rpartition("\n")[2]
        quoted = f", its last words: {last[:300]}" if last else ""
        return f"{how}{quoted}; its log: {self.log}"


def serve(calls: Calls) -> NoReturn:
    """The child's side: carries out calls until it is told to stop or its parent is gone."""
    connection = Connection(int(sys.argv[1]))
    parent = os.getppid()
    _end_with_parent(connection, parent)
    while True:
        name, args = connection.recv()
        if name == "stop":
            with contextlib.suppress(Exception):
                calls["stop"]()
            _leave()
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


def _end_with_parent(connection: Connection, parent: int) -> None:
    """Ends this process as soon as its parent does, however that ended.

    The kernel sends the signal where it can, also while this process is stuck; elsewhere, and for
    processes that this one started, a thread sees the connection close.
    """
    with contextlib.suppress(OSError, AttributeError):
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)

    def watch() -> None:
        poll = select.poll()
        poll.register(connection.fileno(), 0)  # closing is told whatever is asked for
        poll.poll()
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()
    if os.getppid() != parent:  # it was gone before the signal was asked for
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _leave() -> NoReturn:
    """Ends this process without the seconds that engine libraries take to fold up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
