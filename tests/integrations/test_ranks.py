"""A training of two processes: one of them tells of what was saved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prefbench.requests import is_whole, read_request

TOP = Path(__file__).parents[2]


def test_only_the_first_process_writes(small_zoo: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    launched = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = ["-m", "tests.integrations.training", "plain", small_zoo / "base", run, "--callback"]
    done = subprocess.run(
        [sys.executable, *launched, *map(str, program)],
        capture_output=True,
        text=True,
        cwd=TOP,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("seconds of the callback at each save") == 2  # both came to the end
    for folder in (run, *(run / f"checkpoint-{step}" for step in (2, 4, 6))):
        request = read_request(folder)
        assert request is not None
        assert is_whole(folder, request)
        assert request.method == "by process 0"
