"""The wall clock jumps by hours and days, while commands work and between them.

What the wall clock says is written into plans, manifests and events, and tells which of two plans
is the later. How long anything waits is told by the monotonic clock.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.commands import Commands, sealed, table
from tests.reliability.jobs import judge_job, run_job, watch_job, watched

HOUR, DAY = 3600, 86_400
JUMPS = (-3 * DAY, 2 * HOUR, 400 * DAY, -30 * HOUR)
BACKWARDS = -50_000 * HOUR


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that says by how many seconds the clock is wrong."""
    return tmp_path_factory.mktemp("clock") / "wrong-by"


@pytest.fixture(scope="module")
def moved(clock: Path) -> Iterator[Commands]:
    clock.write_text("0")
    with Commands(env={"SHIFTED_BY": str(clock)}) as made:
        yield made


def test_the_clock_is_really_moved(moved: Commands, clock: Path, tmp_path: Path) -> None:
    clock.write_text(str(400 * DAY))
    done = moved.run("watch", tmp_path, "--once", "--quiet", 0, "--results", tmp_path / "results")
    year = int(done.err[:4])
    clock.write_text("0")
    again = moved.run("watch", tmp_path, "--once", "--quiet", 0, "--results", tmp_path / "results")
    assert year - int(again.err[:4]) in (1, 2)


@pytest.mark.parametrize("name", ["run", "watch", "judge"])
def test_nothing_is_measured_twice_and_all_comes_to_an_end(
    moved: Commands, clock: Path, small_zoo: Path, tmp_path: Path, name: str
) -> None:
    rng = random.Random(name)
    runs = watched(small_zoo, tmp_path / "runs", ("sft", "dpo"))
    with judge_job(small_zoo, tmp_path / "place") as judging:
        job = {
            "run": run_job(small_zoo, limit=6),
            "watch": watch_job(small_zoo, runs, limit=4),
            "judge": judging,
        }[name]
        clock.write_text("0")
        whole, results = tmp_path / "whole", tmp_path / "results"
        for folder in (whole, results):
            job.prepare(folder)
        alone = moved.run(*job.argv(whole), under=whole)
        assert alone.code == 0, alone.err
        asked = job.n_asked()
        for jump in JUMPS:  # each life begins with the jump of the last, and meets another
            at = rng.randint(1, max(2, alone.n_steps // 2))
            jumped = f"echo {jump} > {clock}"
            life = moved.run(*job.argv(results), under=results, at=at, do=jumped)
            assert life.code == 0, life.err
        before = {path: path.stat().st_mtime_ns for path in results.glob("cells/*/*.parquet")}
        clock.write_text(str(BACKWARDS))
        assert moved.run(*job.argv(results)).code == 0
        after = {path: path.stat().st_mtime_ns for path in results.glob("cells/*/*.parquet")}
        clock.write_text("0")
        assert after == before
        assert sealed(results) == sealed(whole)
        assert table(moved, results) == table(moved, whole)
        assert job.n_asked() - asked == asked  # no verdict more than the undisturbed one
