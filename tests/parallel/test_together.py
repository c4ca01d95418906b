from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import prefbench.parallel.local
from prefbench.cells import Settings, find, plan_cells, plan_tasks
from prefbench.errors import InputError, StoreError
from prefbench.listener import Listener
from prefbench.parallel.job import Job
from prefbench.parallel.local import LocalWorker
from prefbench.report.collect import collect
from prefbench.report.tables import render
from prefbench.runner import Outcome, run
from prefbench.store import Store

TASKS = ("demo_dialogues", "demo_everyday")
ALONE = Settings(limit=24, batch_size=4, engine="hf", device="cpu")
TWO = Settings(limit=24, batch_size=4, engine="hf", device="cpu", data_parallel_size=2)


@pytest.fixture(scope="module")
def runs(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, and a third that does not load."""
    folder = tmp_path_factory.mktemp("together") / "runs"
    for name in ("sft", "dpo", "ipo"):
        shutil.copytree(
            small_zoo / "checkpoints" / name,
            folder / name,
            ignore=shutil.ignore_patterns("checkpoint-*"),
        )
    facts = json.loads((folder / "ipo" / "config.json").read_text())
    (folder / "ipo" / "config.json").write_text(json.dumps({**facts, "model_type": "nonsense"}))
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sums may be split by the number of threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def measure(runs: Path, results: Path, zoo: Path, settings: Settings, **more: Any) -> Outcome:
    arguments: dict[str, Any] = {"tasks": TASKS, "mirrors": [zoo / "data"], **more}
    return run(runs, results=results, settings=settings, **arguments)


def rows(results: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*.parquet"))
    }


@pytest.fixture(scope="module")
def alone(
    runs: Path, small_zoo: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """Results of one engine, and what it told."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("alone") / "results"
    outcome = measure(runs, results, small_zoo, ALONE)
    torch.set_num_threads(n_threads)
    return results, outcome


def workers_of(pid: int) -> list[psutil.Process]:
    """The workers of a run in a process, which may have other children."""
    children = psutil.Process(pid).children()
    return [one for one in children if prefbench.parallel.local.PROGRAM in one.cmdline()]


class Heard:
    """What the listeners of a run hear."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str, str | None]] = []
        self.notices: list[str] = []
        self.engines: set[int] = set()
        self.on_step: Any = lambda engine, what, done, total: None

    def of(self, engine: int) -> Listener:
        self.engines.add(engine)
        return Listener(
            on_step=lambda *step: self.on_step(engine, *step),
            on_cell_end=lambda c, why: self.ended.append((c.checkpoint.name, c.task.name, why)),
            on_notice=self.notices.append,
        )

    @property
    def listener(self) -> Listener:
        return Listener(for_engine=self.of)


def test_workers_tell_what_is_measured_twice_apart(
    runs: Path, small_zoo: Path, tmp_path: Path
) -> None:
    outcomes, heard = [], Heard()
    for settings in (ALONE, TWO):
        twice = dataclasses.replace(settings, twice=("sft",))
        results = tmp_path / str(settings.data_parallel_size)
        outcomes.append(measure(runs / "sft", results, small_zoo, twice, listener=heard.listener))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0].measured) == 4
    assert rows(tmp_path / "1") == rows(tmp_path / "2")
    assert Counter(heard.ended) == Counter({("sft", task, None): 2 for task in TASKS})


def test_a_worker_that_is_killed_changes_nothing_and_a_failure_is_told_once(
    runs: Path,
    small_zoo: Path,
    alone: tuple[Path, Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers: dict[int, LocalWorker] = {}

    def started(number: int, *args: Any, **more: Any) -> LocalWorker:
        workers[number] = LocalWorker(number, *args, **more)
        return workers[number]

    def kill(engine: int, what: str, done: int, total: int) -> None:
        if 0 < done < total:
            heard.on_step = lambda *step: None
            os.kill(workers[engine].pid, signal.SIGKILL)

    monkeypatch.setattr(prefbench.parallel.local, "LocalWorker", started)
    heard = Heard()
    heard.on_step = kill
    outcome = measure(runs, tmp_path / "results", small_zoo, TWO, listener=heard.listener)
    (notice,) = heard.notices
    assert "the process of engine" in notice
    assert "ended by signal SIGKILL" in notice
    results, whole = alone
    assert len(whole.measured) == 4
    assert outcome == whole
    assert set(outcome.failed) == {"ipo × demo_dialogues", "ipo × demo_everyday"}
    assert Counter((name, task) for name, task, _ in heard.ended) == Counter(
        {(name, task): 1 for name in ("sft", "dpo", "ipo") for task in TASKS}
    )
    told = {f"{name} × {task}": why for name, task, why in heard.ended if why}
    assert told == outcome.failed
    assert rows(tmp_path / "results") == rows(results)
    tables = [render(collect(folder), "json") for folder in (tmp_path / "results", results)]
    assert tables[0] == tables[1]
    command = Store(tmp_path / "results").manifest(outcome.measured[0])
    assert command is not None
    assert command["command"] == sys.argv
    assert list((tmp_path / "results").rglob("journal.jsonl")) == []
    assert workers_of(os.getpid()) == []
    # The same command again has nothing to do but what failed.
    again = measure(runs, tmp_path / "results", small_zoo, TWO, tasks=["demo_dialogues"])
    assert len(again.done) == 2
    assert set(again.failed) == {"ipo × demo_dialogues"}


def test_a_cell_over_which_two_workers_die_fails_and_the_others_are_measured(
    runs: Path, small_zoo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "deadly.py").write_text(
        "import os, signal\n\n\ndef die(docs):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    everyday = (Path(__file__).parents[2] / "tasks" / "_hellaswag.yaml").read_text()
    (folder / "_base.yaml").write_text(everyday)
    (folder / "deadly.yaml").write_text(
        "include: _base.yaml\ntask: deadly\nnum_fewshot: 0\n"
        "dataset_path: prefbench/demo-everyday\ndataset_kwargs: null\n"
        "process_docs: !function deadly.die\n"
        "metadata:\n  version: 1.0\n  prefbench: {metrics: [acc_norm]}\n"
    )
    outcome = measure(
        runs / "sft",
        tmp_path / "results",
        small_zoo,
        TWO,
        tasks=["deadly", "demo_everyday"],
        task_folders=[folder],
    )
    (reason,) = outcome.failed.values()
    assert list(outcome.failed) == ["sft × deadly"]
    assert reason.startswith("2 processes that measured it ended, the last one by signal SIGKILL")
    assert len(outcome.measured) == 1
    assert reason in render(collect(tmp_path / "results", plan=outcome.plan), "json")


def test_where_no_worker_stays_alive_every_cell_says_why(
    runs: Path, small_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; print('no room', file=sys.stderr); sys.exit(3)"
    monkeypatch.setattr(prefbench.parallel.local, "PROGRAM", program)
    outcome = measure(runs / "sft", tmp_path / "results", small_zoo, TWO)
    assert outcome.measured == ()
    assert len(outcome.failed) == 2
    for reason in outcome.failed.values():
        assert "stays alive: with code 3, its last words: no room; its log: " in reason


def test_a_worker_that_cannot_write_ends_the_run(
    runs: Path, small_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import json; print(json.dumps({'event': 'error', 'kind': 'StoreError', 'text': 'full'}));"
        "input()"
    )
    monkeypatch.setattr(prefbench.parallel.local, "PROGRAM", program)
    with pytest.raises(StoreError, match="full"):
        measure(runs / "sft", tmp_path / "results", small_zoo, TWO)
    assert workers_of(os.getpid()) == []


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_run(
    runs: Path, small_zoo: Path, tmp_path: Path, sign: signal.Signals
) -> None:
    command = [
        sys.executable, "-m", "prefbench", "run", str(runs / "sft"),
        "--task", TASKS[0], "--task", TASKS[1],
        "--mirror", str(small_zoo / "data"), "--results", str(tmp_path / "results"),
        "--engine", "hf", "--device", "cpu", "--data-parallel-size", "2", "--batch-size", "1",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "2 cells, 2 to be measured\n"
        workers: list[psutil.Process] = []
        until = time.monotonic() + 300
        while time.monotonic() < until and len(workers) < 2:
            workers = workers_of(running.pid)
            time.sleep(0.05)
        if sign == signal.SIGINT:  # while they measure
            while time.monotonic() < until and not list(tmp_path.rglob("journal.jsonl")):
                time.sleep(0.05)
        running.send_signal(sign)
        rest = running.stderr.read()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    if sign == signal.SIGINT:
        assert running.returncode == 130
        assert rest == "stopped; the same command goes on from here\n"
        assert list((tmp_path / "results" / "logs").iterdir()) == []


def test_how_many_engines_there_are_changes_no_cell(runs: Path, small_zoo: Path) -> None:
    found = find(runs, ALONE, final_only=False)
    planned = plan_tasks(TASKS, limit=24, mirrors=[small_zoo / "data"])
    one, two = ([c.cell for c in plan_cells(found, planned, s)] for s in (ALONE, TWO))
    assert one == two


def test_too_few_gpus_are_told_before_anything_is_measured(
    runs: Path, small_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    settings = Settings(engine="hf", data_parallel_size=2, tensor_parallel_size=2)
    with pytest.raises(InputError, match="2 engines × 2 GPUs need 4, none is visible"):
        measure(runs, tmp_path / "results", small_zoo, settings)
    with pytest.raises(InputError, match="data_parallel_size must be at least 1"):
        Settings(data_parallel_size=0)


def test_a_job_reads_as_it_was_written(runs: Path, tmp_path: Path) -> None:
    job = Job(
        checkpoints=tuple(find(runs, TWO, final_only=False)),
        tasks=TASKS,
        results=tmp_path,
        settings=TWO,
        mirrors=(Path("data"),),
        task_folders=(Path("a"), Path("b")),
        command=("prefbench", "run", "ünter"),
    )
    assert "\n" not in job.as_json()
    assert Job.from_json(job.as_json()) == job
