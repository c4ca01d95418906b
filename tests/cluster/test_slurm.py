from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import prefbench.cluster.slurm
from prefbench.cells import Settings
from prefbench.cluster.slurm import OnSlurm, options
from prefbench.errors import InputError
from prefbench.listener import Listener
from prefbench.report.collect import collect
from prefbench.report.tables import render
from prefbench.runner import Outcome, run
from tests.cluster.slurm_here import write_commands

pytestmark = pytest.mark.xdist_group("slurm")

pytest.importorskip("submitit")  # an extra

TASKS = ("demo_dialogues", "demo_everyday")
SETTINGS = Settings(limit=24, batch_size=4, engine="hf", device="cpu")


@pytest.fixture(scope="module")
def runs(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, and a third that does not load."""
    folder = tmp_path_factory.mktemp("slurm") / "runs"
    for name in ("sft", "dpo", "ipo"):
        shutil.copytree(
            small_zoo / "checkpoints" / name,
            folder / name,
            ignore=shutil.ignore_patterns("checkpoint-*"),
        )
    facts = json.loads((folder / "ipo" / "config.json").read_text())
    (folder / "ipo" / "config.json").write_text(json.dumps({**facts, "model_type": "nonsense"}))
    return folder


@pytest.fixture(scope="module")
def alone(
    runs: Path, small_zoo: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """What one process measures."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums may be split by it
    results = tmp_path_factory.mktemp("alone") / "results"
    outcome = measure(runs, results, small_zoo, None)
    torch.set_num_threads(n_threads)
    return results, outcome


def measure(runs: Path, results: Path, zoo: Path, executor: OnSlurm | None, **more: Any) -> Outcome:
    arguments: dict[str, Any] = {"tasks": TASKS, "mirrors": [zoo / "data"], **more}
    return run(runs, results=results, settings=SETTINGS, executor=executor, **arguments)


def rows(results: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*.parquet"))
    }


def wait_for_a_batch(results: Path) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until and not list(results.rglob("journal.jsonl")):
        time.sleep(0.02)


def jobs_of(results: Path) -> list[psutil.Process]:
    """The processes of jobs on one results directory, without those that they started."""
    found = []
    for one in psutil.process_iter():
        try:
            words = one.cmdline()
        except psutil.Error:
            continue
        if "submitit.core._submit" in words and words[-1].startswith(str(results)):
            found.append(one)
    return found


def test_a_job_killed_amid_a_cell_is_submitted_again_and_changes_nothing(
    runs: Path, small_zoo: Path, alone: tuple[Path, Outcome], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    notices: list[str] = []
    ended: list[tuple[str, str, str | None]] = []

    def kill_one() -> None:
        wait_for_a_batch(results)
        jobs_of(results)[0].kill()

    killing = threading.Thread(target=kill_one)
    killing.start()
    listener = Listener(
        on_notice=notices.append,
        on_cell_end=lambda cell, why: ended.append((cell.checkpoint.name, cell.task.name, why)),
    )
    outcome = measure(runs, results, small_zoo, OnSlurm(n_jobs=2, kind="local"), listener=listener)
    killing.join()
    assert sum("submitted again" in text for text in notices) == 1
    whole = alone[1]
    assert len(whole.measured) == 4
    assert outcome == whole
    assert {f"{name} × {task}": why for name, task, why in ended if why} == whole.failed
    assert len(ended) == 6
    assert rows(results) == rows(alone[0])
    assert render(collect(results), "json") == render(collect(alone[0]), "json")


def test_jobs_that_never_come_to_a_cell_are_given_up(
    runs: Path, small_zoo: Path, tmp_path: Path
) -> None:
    broken: dict[str, Any] = {"setup": ["exit 3"]}
    outcome = measure(
        runs / "sft", tmp_path / "results", small_zoo, OnSlurm(broken, n_jobs=1, kind="local")
    )
    assert outcome.measured == ()
    assert len(outcome.failed) == 2
    for reason in outcome.failed.values():
        assert reason.startswith(
            "3 jobs ended before it was measured; the last one ended too early"
        )


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Slurm's commands, before all others."""
    folder = tmp_path / "slurm"
    write_commands(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_jobs_outlive_their_run_and_the_same_command_joins_them(
    runs: Path, small_zoo: Path, alone: tuple[Path, Outcome], tmp_path: Path, slurm: Path
) -> None:
    results = tmp_path / "results"
    command = [
        sys.executable, "-m", "prefbench", "run", str(runs), "--task", TASKS[0], "--task", TASKS[1],
        "--mirror", str(small_zoo / "data"), "--results", str(results), "--limit", "24",
        "--batch-size", "4", "--engine", "hf", "--device", "cpu", "--format", "json",
        "--executor", "slurm", "--max-workers", "2", "--slurm", "partition=tiny",
        "--slurm", "time=30", "--slurm", "cpus_per_task=1",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first:
        wait_for_a_batch(results)
        first.send_signal(signal.SIGKILL)
    job, *others = jobs_of(results)
    job.suspend()  # so that it is there to be joined
    assert psutil.wait_procs(others, timeout=300)[1] == []  # and these are not
    (folder,) = (results / "logs" / "slurm").glob("*/")
    through = {"job": "1000_1", "cells": ["measured"]}  # as of one that nobody waited for
    (folder / "through.json").write_text(json.dumps(through))
    (folder / "through.report.json").write_text(json.dumps({"failed": {}, "error": None}))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as again:
        assert again.stderr is not None
        assert again.stdout is not None
        said = ""
        while "joined job 1000_" not in said:
            line = again.stderr.readline()
            assert line, said
            said += line
        job.resume()
        shown, _ = again.communicate()
    assert again.returncode == 1  # of the checkpoint that does not load
    assert rows(results) == rows(alone[0])
    assert shown == render(collect(alone[0]), "json")
    script = (slurm / "job-1000").read_text()
    for line in ("partition=tiny", "time=30", "cpus-per-task=1", "array=0-1%"):
        assert f"#SBATCH --{line}" in script
    assert list((results / "logs" / "slurm").rglob("*.json")) == []


def test_a_job_that_goes_away_is_submitted_again(
    runs: Path, small_zoo: Path, alone: tuple[Path, Outcome], tmp_path: Path, slurm: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(prefbench.cluster.slurm.LOOK_EVERY, "slurm", 0.5)
    monkeypatch.setitem(prefbench.cluster.slurm.SEEN_WITHIN, "slurm", 1.0)
    results = tmp_path / "results"
    notices: list[str] = []

    def cancel() -> None:
        wait_for_a_batch(results)
        subprocess.run(["scancel", "1000_0"], check=True)

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    outcome = measure(
        runs, results, small_zoo, OnSlurm(n_jobs=2), listener=Listener(on_notice=notices.append)
    )
    cancelling.join()
    assert outcome == alone[1]
    assert rows(results) == rows(alone[0])
    (again,) = (text for text in notices if "submitted again" in text)
    assert "job 1000_0 ended too early (NODE_FAIL)" in again


def test_what_jobs_cannot_be_asked_for_is_said(
    runs: Path, small_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert options(["partition=gpu", "time=60"]) == {"partition": "gpu", "time": 60}
    for wrong in ("gpus", "=3", "time=1:00:00"):
        with pytest.raises(InputError, match="--slurm"):
            options([wrong])
    with pytest.raises(InputError, match="max_workers"):
        OnSlurm(n_jobs=0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no Slurm here"):
        measure(runs, tmp_path / "results", small_zoo, OnSlurm())
