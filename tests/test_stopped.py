from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from prefbench.lease_files import LOCKS, NODE, SECONDS
from prefbench.report.collect import collect
from prefbench.report.tables import render


def rows(results: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*.parquet"))
    }


def start(zoo: Path, results: Path, node: str, at: int = 0) -> subprocess.Popen[str]:
    """A run on a node whose locks no other node sees, and which stops itself at a step."""
    locks = results.with_name(f"locks of {node}")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stopped", str(zoo), str(results), str(at)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, NODE: node, LOCKS: str(locks), SECONDS: "1"},
    )


def test_a_run_that_was_stopped_while_another_node_went_on_changes_nothing(
    small_zoo: Path, tmp_path: Path
) -> None:
    """It has asked a part of a cell, which the other takes over, and wakes in the midst of it."""
    whole = start(small_zoo, tmp_path / "whole", "one")
    stopped = start(small_zoo, tmp_path / "results", "one", at=9)
    try:
        assert os.WIFSTOPPED(os.waitpid(stopped.pid, os.WUNTRACED)[1])
        journals = list((tmp_path / "results").rglob("journal.jsonl"))
        assert journals
        other = start(small_zoo, tmp_path / "results", "two")
        assert other.communicate()[0].splitlines()[-1] == "0 failed"
        before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.*")}
        stopped.send_signal(signal.SIGCONT)
        said = stopped.communicate()[0]
    finally:
        stopped.kill()
        stopped.wait()
    assert "taken over by another process" in said
    assert said.splitlines()[-1] == "0 failed"
    assert {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.*")} == before
    assert whole.communicate()[0].splitlines()[-1] == "0 failed"
    assert rows(tmp_path / "results") == rows(tmp_path / "whole")
    tables = [render(collect(tmp_path / name), "json") for name in ("whole", "results")]
    assert tables[0] == tables[1]
    assert not list((tmp_path / "results").rglob("lease*"))
