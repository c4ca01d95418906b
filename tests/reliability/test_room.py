"""Results whose disk is full, or which turn read-only, at drawn steps of a command's writing.

`python -m tests.benchmarks.reliability room` does the same more often.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.commands import TOP, Commands
from tests.reliability.jobs import judge_job, run_job, watch_job, watched
from tests.reliability.killing import Job
from tests.reliability.starving import FULL, READ_ONLY, Way, starve_often

N = 2


@pytest.fixture(scope="module")
def secluded() -> Iterator[Commands]:
    with Commands("unshare", "-rm") as made:
        yield made


@pytest.fixture(params=["run", "watch", "judge"])
def job(request: pytest.FixtureRequest, small_zoo: Path, tmp_path: Path) -> Iterator[Job]:
    if request.param == "run":
        yield run_job(small_zoo, limit=6)
    elif request.param == "watch":
        runs = watched(small_zoo, tmp_path / "runs", ("sft", "dpo"))
        yield watch_job(small_zoo, runs, limit=4)
    else:
        with judge_job(small_zoo, tmp_path / "place") as made:
            yield made


@pytest.mark.parametrize("way", [FULL, READ_ONLY], ids=lambda way: way.name)
def test_nothing_is_lost_and_the_same_command_goes_on(
    secluded: Commands, job: Job, way: Way, tmp_path: Path
) -> None:
    starved = starve_often(
        secluded, job, way, tmp_path / "results", n=N, rng=random.Random(f"{job.name} {way.name}")
    )
    assert starved.n_failed > 0
    assert sum(starved.named.values()) == starved.n_failed


def test_results_that_may_only_be_read_are_read_by_all_that_shows_them(
    secluded: Commands, small_zoo: Path, tmp_path: Path
) -> None:
    results, runs = tmp_path / "results", watched(small_zoo, tmp_path / "runs", ("sft", "dpo"))
    assert secluded.run(*watch_job(small_zoo, runs, limit=4).argv(results)).code == 0
    policy = tmp_path / "policy.yaml"
    policy.write_text('{baseline: sft, rules: [{task: "*", metric: shown, max_rise: 5%}]}')
    secluded.shell(READ_ONLY.begin.format(results))
    shown = [
        ("table", results, "--format", "latex"),
        ("compare", "--results", results),
        ("compare", "dpo", "sft", "--results", results),
        ("why", "dpo", "demo_dialogues", "--results", results),
        ("status", results),
        ("claims", results),
        ("trajectory", "dpo", "--results", results),
        ("gate", results, "--policy", policy),
        ("report", results, "--html", tmp_path / "report.html"),
    ]
    try:
        for argv in shown:
            done = secluded.run(*argv)
            assert "Traceback" not in done.err, done.err
            assert "Read-only" not in done.err
            assert done.code in ((0, 1, 2) if argv[0] == "gate" else (0,)), done.err
            assert argv[0] == "report" or done.out
    finally:
        secluded.shell(READ_ONLY.end.format(results))
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_home_that_may_only_be_read_costs_only_time(small_zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    job = run_job(small_zoo, limit=2)
    argv = [sys.executable, "-m", "prefbench", *map(str, job.argv(tmp_path / "results"))]
    mount = f"mount -t tmpfs -o ro tmpfs {tmp_path / 'home'}"
    kept = {name: value for name, value in os.environ.items() if name not in CACHES}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", *argv],
        env={**kept, "HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "6 cells measured" in done.stderr


CACHES = ("XDG_CACHE_HOME", "HF_HOME", "HF_DATASETS_CACHE", "HF_HUB_CACHE", "TORCH_HOME")
