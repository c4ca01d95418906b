"""Broken tasks, data and policies, from the command line: see `broken_tasks.py`."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.reliability.broken_tasks import FAILED, MEASURED, POLICIES, REFUSED, Kind, make_tasks
from tests.reliability.commands import Commands, Done

GOOD = "demo_everyday"


def measure(commands: Commands, zoo: Path, folder: Path, *tasks: str) -> Done:
    chosen = [word for task in (*tasks, GOOD) for word in ("--task", task)]
    return commands.run(
        "run", zoo / "checkpoints" / "sft", "--final", *chosen, "--limit", 4, "--engine", "hf",
        "--task-folder", folder / "tasks", "--mirror", folder / "data", "--mirror", zoo / "data",
        "--results", folder / "results", "--format", "csv",
    )  # fmt: skip


def rows(done: Done) -> dict[str, int]:
    """How many items the table has of each task."""
    return {row["task"]: int(row["n"] or 0) for row in csv.DictReader(io.StringIO(done.out))}


@pytest.mark.parametrize("one", REFUSED, ids=lambda one: one.name)
def test_a_command_with_a_task_that_cannot_be_read_is_refused(
    commands: Commands, small_zoo: Path, tmp_path: Path, one: Kind
) -> None:
    make_tasks([one], tmp_path)
    done = measure(commands, small_zoo, tmp_path, one.name)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert one.said in done.err
    assert "Traceback" not in done.err
    assert not done.out


@pytest.fixture(scope="module")
def measured(commands: Commands, small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("tasks")
    make_tasks([*FAILED, *MEASURED], folder)
    return measure(commands, small_zoo, folder, *(one.name for one in (*FAILED, *MEASURED)))


def test_the_rest_is_measured(measured: Done) -> None:
    assert measured.code == 1
    assert rows(measured)[GOOD] == 4
    assert "Traceback" not in measured.err


@pytest.mark.parametrize("one", FAILED, ids=lambda one: one.name)
def test_a_task_that_cannot_be_asked_fails_with_its_reason(measured: Done, one: Kind) -> None:
    (said,) = (
        line for line in measured.err.splitlines()
        if line.startswith("not measured: ") and f" × {one.name}: " in line
    )  # fmt: skip
    assert one.said in said
    assert rows(measured)[one.name] == 0


@pytest.mark.parametrize("one", MEASURED, ids=lambda one: one.name)
def test_data_that_only_look_bad_are_measured(measured: Done, one: Kind) -> None:
    assert rows(measured)[one.name] == 4


@pytest.mark.parametrize("name", POLICIES)
def test_a_broken_policy_passes_nobody(
    commands: Commands, small_zoo: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp("policy")
    make_tasks([], folder)
    assert measure(commands, small_zoo, folder).code == 0
    content, said = POLICIES[name]
    (folder / "policy.yaml").write_text(content)
    done = commands.run("gate", folder / "results", "--policy", folder / "policy.yaml")
    assert done.code == 3
    assert said in done.err
    assert "Traceback" not in done.err
