from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from prefbench.report.collect import collect
from prefbench.report.tables import render
from tests.killed import TASKS


def run(zoo: Path, results: Path, seed: int, longest: float) -> int:
    """How often it was killed before it came to its end."""
    command = [
        sys.executable,
        "-m",
        "tests.killed",
        str(zoo),
        str(results),
        str(seed),
        str(longest),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def rows(results: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*.parquet"))
    }


def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(
    small_zoo: Path, tmp_path: Path
) -> None:
    started = time.monotonic()
    assert run(small_zoo, tmp_path / "whole", 0, 10_000) == 0
    alone = time.monotonic() - started
    n_killed = run(small_zoo, tmp_path / "killed", 0, alone / 6)
    assert n_killed >= 3  # of about six, fewer where the first run was slowed down
    whole, killed = rows(tmp_path / "whole"), rows(tmp_path / "killed")
    assert len([name for name in whole if name.endswith("records.parquet")]) == 2 * len(TASKS)
    assert killed.keys() == whole.keys()
    assert [name for name in whole if killed[name] != whole[name]] == []
    tables = [render(collect(tmp_path / name), "json") for name in ("whole", "killed")]
    assert tables[0] == tables[1]
    assert list((tmp_path / "killed").rglob("journal.jsonl")) == []
