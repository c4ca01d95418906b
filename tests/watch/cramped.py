"""A watch whose results lie on a disk that is full, until something makes room.

A program of its own, in a mount namespace of its own: `unshare -rm python -m tests.watch.cramped`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from prefbench.watch.policy import Measuring, Policy
from prefbench.watch.watching import watch
from tests.watch.watchers import SETTINGS


def main(runs: Path, data: Path, results: Path) -> None:
    """Fills the disk when the first turn begins, and makes room when the watch says so."""
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", results], check=True)
    filler, waited, done = results / "filler", threading.Event(), threading.Event()

    def log(line: str) -> None:
        print(line, flush=True)
        if line.endswith(": running") and not waited.is_set():
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 4096):
                        pass
                except OSError:
                    pass
        if line.startswith("waits until it can go on"):
            waited.set()
        if line.endswith(": measured") and "×" not in line:
            done.set()

    def make_room() -> None:
        waited.wait()
        filler.unlink()

    threading.Thread(target=make_room, daemon=True).start()
    rows = watch(
        runs,
        Measuring(["demo_everyday"], results, SETTINGS, mirrors=[data]),
        Policy(interval=0.2, quiet=0.0),
        log=log,
        stop=done.is_set,
    )
    print([row.state for row in rows], len(list(results.rglob("failure.json"))))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
