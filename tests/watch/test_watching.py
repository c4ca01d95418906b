from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prefbench.cells import Settings
from prefbench.errors import InputError
from prefbench.report.watch import as_text
from prefbench.watch.events import Event, Events, Watcher, is_alive
from prefbench.watch.looks import Quiet, look
from prefbench.watch.status import read_status
from prefbench.watch.watching import TRIES, Measuring, Policy, watch

AT_ONCE = {"interval": 0.05, "quiet": 0.0, "once": True}


@pytest.fixture
def runs(small_zoo: Path, tmp_path: Path) -> Path:
    for name in ("sft", "dpo"):
        shutil.copytree(small_zoo / "checkpoints" / name, tmp_path / "runs" / name)
    return tmp_path / "runs"


def measure(runs: Path, small_zoo: Path, **policy: Any) -> tuple[dict[str, Any], list[str]]:
    lines: list[str] = []
    rows = watch(
        runs,
        Measuring(
            ["demo_everyday"],
            runs.parent / "results",
            Settings(engine="hf", limit=2),
            mirrors=[small_zoo / "data"],
        ),
        Policy(**{**AT_ONCE, **policy}),
        log=lines.append,
    )
    return {row.name: row for row in rows}, lines


def test_files_are_quiet_once_they_have_not_changed_for_long_enough(tmp_path: Path) -> None:
    clock = [100.0]
    quiet = Quiet(30, lambda: clock[0])
    (tmp_path / "model.safetensors").write_bytes(b"half")

    def left() -> float:
        seen = look(tmp_path)
        assert seen is not None
        return quiet.left(tmp_path, seen.stamp)

    assert left() == 30
    clock[0] += 29
    assert left() == 1
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.write(b" and half")
    assert left() == 30
    clock[0] += 30
    assert left() == 0
    (tmp_path / "tokenizer.json").touch()
    assert left() == 30
    assert look(tmp_path / "gone") is None


def test_a_torn_line_loses_only_itself(tmp_path: Path) -> None:
    def event(state: Any, path: str) -> Event:
        return Event("2026-01-01T00:00:00+00:00", "w", path, path, state)

    events = Events(tmp_path)
    events.append(event("seen", "a"))
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"when": "2026-01-01", "watc')
    beside = Events(tmp_path)
    beside.refresh()
    assert list(beside.last) == ["a"]
    beside.append(event("ready", "b"))
    events.refresh()
    assert {path: one.state for path, one in events.last.items()} == {"a": "seen", "b": "ready"}


def test_a_watcher_lives_as_long_as_it_holds_its_lock(tmp_path: Path) -> None:
    with Watcher(tmp_path) as watcher:
        assert is_alive(tmp_path, watcher.name)
    assert not is_alive(tmp_path, watcher.name)
    (tmp_path / "killed.lock").touch()
    assert not is_alive(tmp_path, "killed")
    assert not is_alive(tmp_path, "../killed")


def test_whose_turn_it_is_and_who_has_none(runs: Path, small_zoo: Path) -> None:
    (runs / "dpo" / "checkpoint-2" / "tokenizer.json").write_text('{"cut')
    rows, lines = measure(runs, small_zoo, every=2, order="oldest")
    turns = [line.split(":")[0] for line in lines if line.endswith(": running")]
    age = {name: look(runs / name) for name in turns}
    assert turns == sorted(turns, key=lambda name: age[name].newest if age[name] else 0)
    states = {name: row.state for name, row in rows.items()}
    assert states["dpo/checkpoint-1"] == states["sft/checkpoint-1"] == "skipped"
    assert rows["dpo/checkpoint-1"].reason == "step 1 is no multiple of 2"
    assert states["dpo/checkpoint-2"] == "incomplete"
    assert states["sft"] == states["sft/checkpoint-2"] == states["dpo"] == "measured"

    again, lines = measure(runs, small_zoo, every=2)
    assert not [line for line in lines if line.endswith("running")]
    assert {name: row.state for name, row in again.items()} == states
    shown = as_text(read_status(runs.parent / "results"))
    assert "    step 1 is no multiple of 2\n" in shown
    assert "3 measured" in shown
    assert "no watcher runs" in shown


def test_what_fails_is_tried_a_few_times_and_again_when_it_changes(
    runs: Path, small_zoo: Path
) -> None:
    shutil.rmtree(runs / "dpo" / "checkpoint-2")
    config = runs / "dpo" / "checkpoint-1" / "config.json"
    whole = config.read_text()
    config.write_text(json.dumps({**json.loads(whole), "hidden_size": 32}))
    rows, _ = measure(runs, small_zoo)
    failed = rows["dpo/checkpoint-1"]
    assert (failed.state, failed.tries) == ("failed", 1)  # the others did not wait for it
    assert failed.reason
    assert {row.state for row in rows.values() if row is not failed} == {"measured"}
    rows, lines = measure(runs, small_zoo)
    assert rows["dpo/checkpoint-1"].tries == 1  # its pause is not over
    for _ in range(TRIES + 1):
        rows, lines = measure(runs, small_zoo, pause=0.0)
    assert rows["dpo/checkpoint-1"].tries == TRIES
    assert not [line for line in lines if line.endswith("running")]
    config.write_text(whole)
    rows, _ = measure(runs, small_zoo)
    assert rows["dpo/checkpoint-1"].state == "measured"


def test_what_is_deleted_is_pruned_and_what_was_measured_stays(runs: Path, small_zoo: Path) -> None:
    (runs / "dpo" / "checkpoint-1" / "config.json").unlink()
    measure(runs, small_zoo)
    for name in ("checkpoint-1", "checkpoint-2"):
        shutil.rmtree(runs / "dpo" / name)
    rows, _ = measure(runs, small_zoo)
    one, two = rows["dpo/checkpoint-1"], rows["dpo/checkpoint-2"]
    assert (one.state, one.reason) == ("pruned", "deleted before it was measured")
    assert (two.state, two.reason) == ("measured", "deleted since")
    again, _ = measure(runs, small_zoo)
    assert again == rows


def test_a_directory_that_is_not_there_is_refused_and_an_empty_one_is_not(
    small_zoo: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is not a directory"):
        measure(tmp_path / "runs", small_zoo)
    (tmp_path / "runs").mkdir()
    assert measure(tmp_path / "runs", small_zoo)[0] == {}
    assert "no checkpoints yet" in as_text(read_status(tmp_path / "results"))
    with pytest.raises(InputError, match="prefbench watch"):
        read_status(tmp_path)


@pytest.mark.parametrize("wrong", [{"interval": 0.0}, {"quiet": -1.0}, {"every": 0}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Policy(**wrong)
