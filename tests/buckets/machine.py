"""The `prefbench` command on machines of their own: other caches, and leases that end soon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]


def start(cache: Path, *words: object, **variables: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "prefbench", *map(str, words)],
        env={
            **os.environ,
            "PREFBENCH_CACHE": str(cache),
            "PREFBENCH_LEASE_SECONDS": "8",
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TOP,
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a command printed that must succeed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def command(cache: Path, *words: object, **variables: str) -> tuple[str, str]:
    """What the command prints."""
    return ended(start(cache, *words, **variables))
