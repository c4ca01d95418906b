"""Processes that we start: all that they start ends with them, and they end with us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

LOG_TAIL = 4000
"""Characters of a log that a message may quote from."""


def import_places() -> str:
    """PYTHONPATH for a Python started with -P: it imports what this one would, and nothing from a
    directory that it happens to be in.
    """
    return os.pathsep.join(place or str(Path.cwd()) for place in sys.path)


def end_group(process: subprocess.Popen[Any]) -> None:
    """Ends a process that was started in a session of its own, and everything it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def said(log: Path, start: int = 0) -> str:
    """The end of what a process has printed into a file since it was so many bytes long."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - LOG_TAIL))
        return file.read().decode(errors="replace").strip()
    return ""


def ending(process: subprocess.Popen[Any], log: Path, start: int = 0) -> str:
    """How a process that is gone has ended, with its last words."""
    code = process.returncode
    how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    last = said(log, start).rpartition("\n")[2]
    quoted = f", its last words: {last[:300]}" if last else ""
    return f"{how}{quoted}; its log: {log}"


def end_with_parent(fileno: int, parent: int) -> None:
    """Ends this process and its group as soon as its parent is gone, however that ended.

    The kernel sends the signal where it can, also while this process is stuck; elsewhere, and for
    processes that this one started, a thread sees a connection close.

    Args:
        fileno: of the connection, whose other end the parent alone holds.
        parent: the parent's process id, asked for as early as possible.
    """
    with contextlib.suppress(OSError, AttributeError):
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    end_when_closed(fileno)
    if os.getppid() != parent:  # it was gone before the signal was asked for
        os.killpg(os.getpgrp(), signal.SIGKILL)


def end_when_closed(fileno: int) -> None:
    """Ends this process and its group as soon as a connection's other end is closed."""

    def watch() -> None:
        poll = select.poll()
        poll.register(fileno, 0)  # closing is told whatever is asked for
        poll.poll()
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent watch").start()


def leave() -> NoReturn:
    """Ends this process without the seconds that engine libraries take to fold up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
