"""What is killed, starved of room and shifted in time: a run, a judging run and a watch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.judged import make_place, rule
from tests.misbehaving import Misbehaving, wired
from tests.reliability.killing import Job

CONCURRENCY = 8
LATENCY = 0.1
ENGINE = ("--engine", "hf")


def run_job(zoo: Path, *, limit: int = 24) -> Job:
    """Two checkpoints on three tasks, in batches of two."""
    runs = [zoo / "checkpoints" / name for name in ("sft", "dpo")]
    tasks = ("--task", "demo_facts", "--task", "demo_dialogues", "--task", "demo_everyday")
    how = ("--final", "--limit", limit, "--batch-size", 2, "--format", "csv", *ENGINE)
    return Job(
        "run",
        lambda results: (
            "run", *runs, *tasks, *how, "--mirror", zoo / "data", "--results", results
        ),
    )  # fmt: skip


def watch_job(zoo: Path, runs: Path, *, limit: int = 6) -> Job:
    """Checkpoints that are there, on three tasks, one of them judged by a reward model."""
    tasks = ("--task", "demo_dialogues", "--task", "demo_everyday", "--task", "demo_winrate")
    how = ("--once", "--quiet", 0, "--interval", 0.2, "--limit", limit, "--batch-size", 2, *ENGINE)
    return Job(
        "watch",
        lambda results: (
            "watch",
            runs,
            *tasks,
            *how,
            "--mirror",
            zoo / "data",
            "--results",
            results,
        ),
    )


def watched(zoo: Path, folder: Path, names: tuple[str, ...]) -> Path:
    """Finals of a zoo, to be watched."""
    for name in names:
        left_out = shutil.ignore_patterns("checkpoint-*")
        shutil.copytree(zoo / "checkpoints" / name, folder / name, ignore=left_out)
    return folder


@contextmanager
def judge_job(zoo: Path, folder: Path) -> Iterator[Job]:
    """Answers that are there, judged by a real server on this machine that counts requests."""
    place = make_place(zoo, folder)
    server = Misbehaving(rule, latency=LATENCY)
    with wired(server.answer) as (url, _):
        place.judge("local", url, endpoint={"concurrency": CONCURRENCY})
        places = ("--task-folder", place.tasks, "--judge-folder", place.judges)
        how = ("--final", "--limit", 8, "--judge", "local", "--format", "csv", *ENGINE)
        yield Job(
            "judge",
            lambda results: (
                "run", place.runs, "--task", "drawn", *places, *how,
                "--mirror", place.data, "--results", results,
            ),
            prepare=lambda results: _copy(place.results, results),
            n_asked=lambda: len(server.bodies),
            longest=0.2,
            since="sqlite3.connect",  # answers are there
            by_steps=0.2,
        )  # fmt: skip


def _copy(answers: Path, results: Path) -> None:
    shutil.copytree(answers, results)
