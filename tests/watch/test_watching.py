from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from prefbench.cells import Settings
from prefbench.errors import InputError
from prefbench.report.collect import gather
from prefbench.report.watch import as_text
from prefbench.requests import Request, model_files, write_request
from prefbench.watch.events import Event, Events, Watcher, is_alive
from prefbench.watch.looks import Quiet, look
from prefbench.watch.memory import GIB, Memory, Probe, lacking, probe_of, read_room
from prefbench.watch.policy import Measuring, Policy
from prefbench.watch.states import TRIES
from prefbench.watch.status import read_status
from prefbench.watch.waking import Waking
from prefbench.watch.watching import watch

AT_ONCE = {"interval": 0.05, "quiet": 0.0, "once": True}


@pytest.fixture
def runs(small_zoo: Path, tmp_path: Path) -> Path:
    for name in ("sft", "dpo"):
        shutil.copytree(small_zoo / "checkpoints" / name, tmp_path / "runs" / name)
    return tmp_path / "runs"


def measure(
    runs: Path,
    small_zoo: Path,
    log: Callable[[str], None] | None = None,
    memory: Probe | None = None,
    stop_at: str = "",
    **policy: Any,
) -> tuple[dict[str, Any], list[str]]:
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
        log=log or lines.append,
        memory=memory,
        stop=lambda: bool(stop_at) and stop_at in lines,
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


def test_no_turn_begins_while_memory_lacks(runs: Path, small_zoo: Path) -> None:
    free = runs.parent / "free"
    free.write_text(str(3 * GIB))
    lines: list[str] = []

    def probe() -> Memory:
        if any("waits for" in line for line in lines):
            (row, *_) = [r for r in read_status(runs.parent / "results").rows if r.name == "sft"]
            if row.reason:
                waiting.append((row.state, row.reason))
                free.write_text(str(30 * GIB))
        return Memory("cuda:0", int(free.read_text()), 80 * GIB)

    waiting: list[tuple[str, str]] = []
    rows, _ = measure(runs, small_zoo, lines.append, probe, room=read_room("20GiB"))
    why = "waits for 20 GiB free on cuda:0, 3.0 GiB now"
    assert waiting[0] == ("ready", why)
    assert lines.count(why) == 1
    assert {row.state for row in rows.values()} == {"measured"}
    assert {row.reason for row in rows.values()} == {None}


def test_memory_that_nothing_tells_is_said_and_not_waited_for(runs: Path, small_zoo: Path) -> None:
    rows, lines = measure(runs, small_zoo, memory=lambda: None, room=read_room("20GiB"))
    assert {row.state for row in rows.values()} == {"measured"}
    said = "nothing tells how much memory is free here: it is not waited for"
    assert lines.count(said) == 1


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("20GiB", 20 * GIB),
        ("25%", 20 * GIB),
        ("512 mb", GIB // 2),
        ("1.5G", 3 * GIB // 2),
        ("7", 7),
    ],
)
def test_how_much_memory_is_waited_for(text: str, needed: int) -> None:
    assert read_room(text).needed(80 * GIB) == needed
    assert lacking(read_room(text), Memory("here", needed, 80 * GIB)) is None
    assert lacking(read_room(text), Memory("here", needed - 1, 80 * GIB))


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "101%", "1e3", "nan"])
def test_no_memory_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="min-free-memory"):
        read_room(text)


def test_the_memory_of_this_machine_is_seen() -> None:
    found = probe_of("cpu")()
    assert found is not None
    assert 0 < found.free < found.total
    assert abs(found.total - psutil.virtual_memory().total) < GIB


def test_a_change_wakes_the_watch_and_its_own_results_do_not(tmp_path: Path) -> None:
    lines: list[str] = []
    runs = tmp_path / "runs"
    own = runs / "results"
    own.mkdir(parents=True)
    n_asked = 0

    def check() -> None:
        nonlocal n_asked
        n_asked += 1
        (own / "status.json").write_text(str(n_asked))
        (runs / "all.prom").write_text(str(n_asked))
        (runs / ".all.prom.0123").write_text(str(n_asked))
        if n_asked > 20:  # by then the listening has begun
            (runs / "new").write_text(str(n_asked))

    with Waking(runs, [own, runs / "all.prom"], lines.append) as waking:
        waking.looking()
        waking.looked()
        waking.sleep(600, check)
    assert n_asked > 20
    assert not lines
    with Waking(tmp_path / "gone", [own], lines.append) as waking:
        while not lines:
            waking.sleep(0.05, lambda: None)
    assert len(lines) == 1
    assert lines[0].startswith("no wake-ups")


def test_what_training_says_is_whole_need_not_be_quiet(runs: Path, small_zoo: Path) -> None:
    one = runs / "dpo" / "checkpoint-1"
    request = Request(step=1, when="2026-01-01T00:00:00+00:00", files=model_files(one))
    write_request(one, request)
    rows, _ = measure(runs, small_zoo, quiet=1e6, once=False, stop_at="dpo/checkpoint-1: measured")
    states = {name: row.state for name, row in rows.items()}
    assert states.pop("dpo/checkpoint-1") == "measured"
    assert set(states.values()) == {"seen"}


def test_a_process_that_ended_counts_only_where_it_has_left_nothing(
    runs: Path, small_zoo: Path
) -> None:
    for name in ("dpo", "sft/checkpoint-1", "sft/checkpoint-2"):
        shutil.rmtree(runs / name)
    stop = "sft: running"
    measure(runs, small_zoo, stop_at=stop, once=False)
    path = str(runs / "sft")

    def after(**facts: Any) -> Event:
        """What is said of it after a watcher has ended that began with some progress."""
        events = Events(runs.parent / "results" / "watch")
        events.refresh()
        killed = dataclasses.replace(
            events.last[path], state="running", watcher="killed", when="later", **facts
        )
        events.append(killed)
        measure(runs, small_zoo, stop_at=stop, once=False)
        events.refresh()
        return events.last[path]

    assert after(progress=(0, 0), ended=0).ended == 1
    assert after(progress=(0, 0), ended=3).ended == 4
    assert after(progress=(), ended=4).ended == 0  # something is there that was not


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


def test_of_what_goes_or_changes_in_its_turn_no_failure_stays(runs: Path, small_zoo: Path) -> None:
    for name in ("dpo/checkpoint-2", "sft/checkpoint-1", "sft/checkpoint-2"):
        shutil.rmtree(runs / name)
    results, gone = runs.parent / "results", runs / "dpo" / "checkpoint-1"
    lines = []

    def delete(line: str) -> None:
        lines.append(line)
        if line == "dpo/checkpoint-1: running":
            shutil.rmtree(gone)
        if line == "sft: running":
            (runs / "sft" / "tokenizer.json").write_text('{"cut')

    rows = measure(runs, small_zoo, log=delete)[0]
    assert any("changed or deleted while it was measured" in line for line in lines)
    assert rows["dpo/checkpoint-1"].state == "pruned"
    assert rows["sft"].state == "incomplete"
    assert not list(results.rglob("failure.json"))
    assert "dpo/checkpoint-1" not in {one.name for one in gather(results).checkpoints}


def test_whoever_comes_after_a_killed_watcher_clears_the_failure(
    runs: Path, small_zoo: Path
) -> None:
    results = runs.parent / "results"

    class KilledError(BaseException):
        pass

    def log(line: str) -> None:
        if line == "dpo/checkpoint-1: running":
            shutil.rmtree(runs / "dpo" / "checkpoint-1")
        if "× demo_everyday: failed" in line:  # written down, and nobody has looked yet
            # As it is a term after: what is copied with its files is no holder's any more.
            gone = shutil.ignore_patterns("lease", "*.lease")
            shutil.copytree(results, runs.parent / "killed", ignore=gone)
            raise KilledError

    with pytest.raises(KilledError):
        measure(runs, small_zoo, log=log)
    shutil.rmtree(results)
    (runs.parent / "killed").rename(results)
    assert list(results.rglob("failure.json"))
    rows, _ = measure(runs, small_zoo)
    assert rows["dpo/checkpoint-1"].state == "pruned"
    assert not list(results.rglob("failure.json"))
    assert "dpo/checkpoint-1" not in {one.name for one in gather(results).checkpoints}


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
