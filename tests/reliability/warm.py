"""Runs command lines of prefbench, each in a process of its own that need not import first.

A program of its own: it imports once, then forks for each line of JSON on its stdin, before any
thread of torch has begun, and answers with a line of JSON. `commands.py` speaks with it.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from prefbench import analysing, cli, judging, opening, runner  # noqa: F401  # once, not in each child
from prefbench.engines import hf  # noqa: F401
from prefbench.harness import HarnessTask  # noqa: F401
from prefbench.judges import chat, reward  # noqa: F401
from prefbench.report import collect, progress, tables  # noqa: F401
from prefbench.watch import watching  # noqa: F401
from tests.reliability.shifted import shift_clock

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def note_writes(under: str, at: int | str, do: str, counted: mmap.mmap) -> None:
    """Counts each step of writing below a folder, and at one of them does something.

    Files opened to be written, renamed or removed, folders made, databases connected: what the
    interpreter tells its audit hooks of. `kill` ends the process at once, by signal 9; `begin` lets
    the time begin after which the parent kills it; else `do` is a shell command.

    Args:
        under: the folder.
        at: the how manieth step, or the first of an event's name.
        do: what.
        counted: 8 bytes for the count, and one for whether the time has begun.
    """
    inside = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal inside
        if inside or event not in ("open", "os.rename", "os.remove", "os.mkdir", "sqlite3.connect"):
            return
        if event == "open" and not (int(arguments[2] or 0) & WRITES):
            return
        path = arguments[0]
        if isinstance(path, int) or not os.fsdecode(path).startswith(under):
            return
        n = int.from_bytes(counted[:8], "little") + 1
        counted[:8] = n.to_bytes(8, "little")
        if at not in (n, event):
            return
        if do == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if do == "begin":
            counted[8] = 1
            return
        inside = True
        subprocess.run(do, shell=True, check=True)
        inside = False

    sys.addaudithook(hook)


def live(asked: dict[str, Any], counted: mmap.mmap) -> None:
    """The child: becomes the command, and ends as it does."""
    os.setpgid(0, 0)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.argv = ["prefbench", *asked["argv"]]
    note_writes(asked["under"], asked["at"], asked["do"], counted)
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # as the interpreter would
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """One command's life, from its fork to its end or to its kill."""
    counted = mmap.mmap(-1, 9)
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        live(asked, counted)
    ended = os.pidfd_open(child)
    if asked["killed_after"] is not None:
        while asked["do"] == "begin" and not counted[8]:
            if select.select([ended], [], [], 0.005)[0]:
                break
        select.select([ended], [], [], asked["killed_after"])
        os.kill(child, signal.SIGKILL)  # nothing to one that has ended: it is not waited for yet
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(ended)
    n_steps = int.from_bytes(counted[:8], "little")
    return {"code": code, "seconds": time.monotonic() - begun, "n_steps": n_steps}


def main() -> None:
    torch.set_num_threads(1)
    if place := os.environ.get("SHIFTED_BY"):
        shift_clock(Path(place))
    print(json.dumps({"pid": os.getpid()}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "shell" in asked:
            done = subprocess.run(
                asked["shell"], shell=True, capture_output=True, text=True, check=False
            )
            told = {"code": done.returncode, "out": done.stdout, "err": done.stderr}
            print(json.dumps(told), flush=True)
        else:
            print(json.dumps(answer(asked)), flush=True)


if __name__ == "__main__":
    main()
