"""Watchers as processes of their own, killed with -9 at random moments and started again.

A program of its own: it imports once, and forks before any thread of torch has begun.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from prefbench.cells import Settings
from prefbench.engines import hf  # noqa: F401  # imported once, not in every child
from prefbench.harness import HarnessTask  # noqa: F401
from prefbench.watch.policy import Measuring, Policy
from prefbench.watch.watching import watch

TASKS = ("demo_dialogues", "demo_everyday", "demo_winrate")
SETTINGS = Settings(engine="hf", limit=6, batch_size=2)


def start(runs: Path, data: Path, results: Path, settings: Settings = SETTINGS) -> int:
    """A watcher that ends when training has ended and all is done; its process."""
    child = os.fork()
    if child:
        return child
    try:
        watch(
            runs,
            Measuring(TASKS, results, settings, mirrors=[data]),
            Policy(interval=0.2, quiet=0.4, once=(runs / "trained").exists()),
            log=lambda line: print(os.getpid(), line, flush=True),
        )
    except BaseException:  # noqa: BLE001  # the child tells and ends
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(runs: Path, data: Path, results: Path, n: int, longest: float) -> None:
    """Keeps n watchers alive until each has ended by itself.

    Args:
        runs: where checkpoints come; `trained` in it says that no more will.
        data: the mirror.
        results: shared by all.
        n: watchers at once.
        longest: seconds of a life while there is training; 0 leaves them alone.
    """
    torch.set_num_threads(1)
    rng = random.Random(0)
    children = {start(runs, data, results) for _ in range(n)}
    n_killed = 0
    while children:
        if longest and not (runs / "trained").exists():
            time.sleep(rng.uniform(longest / 2, longest))
            victim = rng.choice(sorted(children))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            children.remove(victim)
            n_killed += 1
            children.add(start(runs, data, results))
            continue
        child, status = os.wait()
        children.remove(child)
        if os.waitstatus_to_exitcode(status):
            sys.exit(1)
    print("killed", n_killed)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]), float(sys.argv[5]))
