"""Watchers one after the other, of which each dies in the turn of a checkpoint that kills it.

A program of its own, as `watchers`: the checkpoint brings code that ends the process as a segfault
or the kernel's killer of processes out of memory does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import torch

from prefbench.watch.states import TRIES
from tests.watch.watchers import SETTINGS, start


def make_deadly(source: Path, folder: Path) -> None:
    """A checkpoint whose code kills whoever opens it."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_deadly.Deadly"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_deadly.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )


def main(runs: Path, data: Path, results: Path) -> None:
    """Starts a watcher as long as the last one was killed, and tells how each ended."""
    torch.set_num_threads(1)
    settings = dataclasses.replace(SETTINGS, trust_remote_code=True)
    for _ in range(2 * TRIES):
        _, status = os.waitpid(start(runs, data, results, settings), 0)
        ended = os.waitstatus_to_exitcode(status)
        print("ended", ended, flush=True)
        if ended >= 0:
            break


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
