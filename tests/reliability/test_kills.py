"""Signal 9 at drawn moments: no row is lost or doubled, and no kept verdict is asked for again.

`python -m tests.benchmarks.reliability kills` does the same a hundred times each.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.reliability.commands import Commands
from tests.reliability.jobs import CONCURRENCY, judge_job, run_job, watch_job, watched
from tests.reliability.killing import kill_often

N_KILLS = 6


def test_a_run(commands: Commands, small_zoo: Path, tmp_path: Path) -> None:
    killed = kill_often(
        commands, run_job(small_zoo), tmp_path, n_kills=N_KILLS, rng=random.Random(1)
    )
    assert killed.n_kills == N_KILLS
    assert killed.left["open cell"] > 0  # it was killed at work


def test_a_judging_run(commands: Commands, small_zoo: Path, tmp_path: Path) -> None:
    with judge_job(small_zoo, tmp_path / "place") as job:
        killed = kill_often(
            commands, job, tmp_path / "results", n_kills=N_KILLS, rng=random.Random(2)
        )
    assert killed.n_kills == N_KILLS
    # In flight, or answered and not written yet: twice as many as are asked at once, and one that
    # is being written.
    assert 0 < killed.most_again <= 2 * CONCURRENCY + 1


def test_a_watch(commands: Commands, small_zoo: Path, tmp_path: Path) -> None:
    runs = watched(small_zoo, tmp_path / "runs", ("sft", "dpo"))
    killed = kill_often(
        commands, watch_job(small_zoo, runs), tmp_path, n_kills=N_KILLS, rng=random.Random(3)
    )
    assert killed.n_kills == N_KILLS
    assert killed.left["open cell"] > 0
