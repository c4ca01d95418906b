from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from prefbench.report.collect import collect, gather
from prefbench.report.tables import render
from prefbench.runner import run
from prefbench.watch.states import TRIES
from prefbench.watch.status import read_status
from tests.watch.doomed import make_deadly
from tests.watch.training import KEPT, N_STEPS
from tests.watch.watchers import SETTINGS, TASKS

TOP = Path(__file__).parents[2]


@pytest.fixture
def runs(small_zoo: Path, tmp_path: Path) -> Path:
    """The opponent, trained before; everything else comes."""
    shutil.copytree(
        small_zoo / "checkpoints" / "sft",
        tmp_path / "runs" / "sft",
        ignore=shutil.ignore_patterns("checkpoint-*"),
    )
    return tmp_path / "runs"


def python(module: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=TOP,
    )


def test_a_watch_killed_beside_training_ends_with_the_table_of_one_run(
    runs: Path, small_zoo: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    # It imports longer than training begins.
    watching = python("tests.watch.watchers", runs, small_zoo / "data", results, 1, 2.5)
    while not (results / "watch" / "events.jsonl").exists() and watching.poll() is None:
        time.sleep(0.05)
    source = small_zoo / "checkpoints" / "dpo"
    training = python("tests.watch.training", source, runs / "dpo", 1.0)
    said, _ = watching.communicate(timeout=600)
    training.communicate()
    assert training.returncode == 0
    assert watching.returncode == 0, said
    assert int(said.split()[-1]) >= 3

    status = read_status(results)
    assert status.watchers == ()
    states = {row.name: row.state for row in status.rows}
    here = {"sft", *(f"dpo/checkpoint-{10 * (N_STEPS - i)}" for i in range(KEPT))}
    assert {name for name, state in states.items() if state == "judged"} >= here
    assert set(states.values()) <= {"judged", "measured", "pruned"}
    assert not list(results.rglob("failure.json"))
    assert not [row for row in status.rows if row.name in here and row.reason]

    again = run(runs, tasks=TASKS, results=results, settings=SETTINGS, mirrors=[small_zoo / "data"])
    assert again.measured == ()
    alone = tmp_path / "alone"
    whole = run(runs, tasks=TASKS, results=alone, settings=SETTINGS, mirrors=[small_zoo / "data"])
    assert not whole.failed
    tables = [
        render(collect(results, plan=again.plan), "json"),
        render(collect(alone, plan=whole.plan), "json"),
    ]
    assert tables[0] == tables[1]
    for cell in (*whole.measured, *whole.done):
        kept, fresh = (path / "cells" / cell / "records.parquet" for path in (results, alone))
        assert kept.read_bytes() == fresh.read_bytes()


def test_two_watchers_measure_no_cell_twice(runs: Path, small_zoo: Path, tmp_path: Path) -> None:
    for name in ("dpo", "ipo", "slic"):
        shutil.copytree(
            small_zoo / "checkpoints" / name,
            runs / name,
            ignore=shutil.ignore_patterns("checkpoint-*"),
        )
    (runs / "trained").touch()
    results = tmp_path / "results"
    watching = python("tests.watch.watchers", runs, small_zoo / "data", results, 2, 0)
    said, _ = watching.communicate(timeout=600)
    assert watching.returncode == 0, said
    measured = re.findall(r"^(\d+) (\S+ × \S+): measured$", said, flags=re.MULTILINE)
    assert len({process for process, _ in measured}) == 2  # both had their part
    # Checkpoints of the same bytes share cells, and either's name may be told.
    n_cells = len(list(results.glob("cells/*/answers.parquet")))
    assert Counter(title for _, title in measured).most_common(1)[0][1] == 1
    assert len(measured) == n_cells
    assert {row.state for row in read_status(results).rows} == {"judged"}


def test_what_kills_its_process_is_given_up_and_the_others_are_measured_meanwhile(
    runs: Path, small_zoo: Path, tmp_path: Path
) -> None:
    make_deadly(small_zoo / "checkpoints" / "dpo", runs / "dpo")
    (runs / "trained").touch()
    results = tmp_path / "results"
    watching = python("tests.watch.doomed", runs, small_zoo / "data", results)
    said, _ = watching.communicate(timeout=600)
    assert re.findall(r"^ended (\S+)$", said, flags=re.MULTILINE) == ["-9"] * TRIES + ["0"], said
    rows = {row.name: row for row in read_status(results).rows}
    assert (rows["sft"].state, rows["dpo"].state) == ("judged", "failed")
    assert rows["dpo"].reason == "5 processes that measured it ended before it was done"
    turns = re.findall(r"^\d+ (\S+): running$", said, flags=re.MULTILINE)
    assert turns == ["dpo", "sft"] + ["dpo"] * (TRIES - 1)
    assert rows["dpo"].reason in gather(results).reasons.values()  # the table tells it, too


def test_a_full_disk_is_waited_for(runs: Path, small_zoo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.watch.cramped", runs, small_zoo / "data"]
    found = subprocess.run(
        ["unshare", "-rm", *command, tmp_path / "results"],
        capture_output=True,
        text=True,
        cwd=TOP,
        timeout=600,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count("waits until it can go on: ") == 1
    assert "No space left on device" in found.stdout
    assert "\ngoes on\n" in found.stdout
    assert found.stdout.endswith("['measured'] 0\n")


def test_sigterm_stops_after_the_batch_in_flight(
    runs: Path, small_zoo: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    command = (
        runs, "--task", "demo_dialogues", "--mirror", small_zoo / "data", "--results", results,
        "--engine", "hf", "--batch-size", 1, "--quiet", 0.1, "--interval", 0.2,
    )  # fmt: skip
    watching = python("prefbench", "watch", *command)
    until = time.monotonic() + 300
    while time.monotonic() < until:
        journals = list(results.rglob("journal.jsonl"))
        if journals and len(journals[0].read_bytes().splitlines()) > 3:
            break
        time.sleep(0.02)
    status = read_status(results)
    assert len(status.watchers) == 1
    assert {row.state for row in status.rows} == {"running"}
    watching.send_signal(signal.SIGTERM)
    said, _ = watching.communicate(timeout=300)
    assert watching.returncode == 0
    assert "stopped; the same command goes on from here" in said
    assert not list(results.rglob("failure.json"))
    (journal,) = results.rglob("journal.jsonl")
    lines = journal.read_text().splitlines()
    assert [json.loads(line)["batch"] for line in lines[1:]] == list(range(len(lines) - 1))

    shown = python("prefbench", "status", results, "--json")
    told = json.loads(shown.communicate()[0])
    assert told["watchers"] == []
    assert [row["state"] for row in told["rows"]] == ["ready"]
