"""Runs the main job in a child again and again, killing it with -9 at random moments.

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
from prefbench.runner import run

TASKS = ("demo_arithmetic", "demo_dialogues", "demo_everyday")


def measure(zoo: Path, results: Path) -> None:
    run(
        [zoo / "checkpoints" / name for name in ("sft", "dpo")],
        tasks=TASKS,
        results=results,
        settings=Settings(engine="hf", limit=24, batch_size=4),
        mirrors=[zoo / "data"],
        final_only=True,
    )


def main(zoo: Path, results: Path, seed: int, longest: float) -> None:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    n_killed = 0
    while True:
        child = os.fork()
        if child == 0:
            try:
                measure(zoo, results)
            except BaseException:  # noqa: BLE001  # the child tells and ends
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        # Ever longer lives, so that the work ends however slow the machine is.
        deadline = time.monotonic() + rng.uniform(0, longest * (1 + n_killed / 20))
        while time.monotonic() < deadline:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                print(n_killed)
                sys.exit(os.waitstatus_to_exitcode(status))
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        n_killed += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
