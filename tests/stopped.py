"""A run that stops itself, as SIGSTOP does, at some step; a program of its own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from prefbench.cells import Settings
from prefbench.listener import Listener
from prefbench.runner import run


def main(zoo: Path, results: Path, at: int) -> None:
    torch.set_num_threads(1)
    n = 0

    def on_step(*told: Any) -> None:
        nonlocal n
        n += 1
        if n == at:
            os.kill(os.getpid(), signal.SIGSTOP)

    listener = Listener(on_step=on_step, on_notice=lambda text: print(text, flush=True))
    outcome = run(
        [zoo / "checkpoints" / name for name in ("sft", "dpo")],
        tasks=("demo_arithmetic", "demo_dialogues", "demo_everyday"),
        results=results,
        settings=Settings(engine="hf", limit=24, batch_size=4),
        mirrors=[zoo / "data"],
        final_only=True,
        listener=listener,
    )
    print(f"{len(outcome.failed)} failed", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
