"""Against Weights & Biases itself, offline. What it writes is read by its own protocol buffers.

The framing of its file is LevelDB's log format, for which it has a reader in another language only.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb.proto import wandb_internal_pb2

from prefbench.errors import InputError
from prefbench.trackers.base import Place
from prefbench.trackers.pushing import push
from prefbench.trackers.wandb_api import STEP, WandbTracker, is_logged_in
from tests.trackers.boards import EVIL, curves, expected

BLOCK = 32768
FULL, LAST = 1, 4


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: Any) -> None:
    """Nobody is logged in, and nothing of the user's is read or written."""
    for name in (
        "WANDB_API_KEY",
        "WANDB_MODE",
        "WANDB_BASE_URL",
        "WANDB_ENTITY",
        "WANDB_DIR",
        "NETRC",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


@pytest.fixture
def tracker(tmp_path: Path) -> WandbTracker:
    return WandbTracker(Place(tmp_path / "local"))


def frames(data: bytes) -> Iterator[bytes]:
    """The records of a file: blocks of 32 KiB with pieces of CRC, length and kind."""
    at, whole = 7, b""  # after the mark `:W&B`, a number and a version
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (FULL, LAST):
            yield whole
            whole = b""


def records(folder: Path) -> dict[str, list[Any]]:
    """All records in the files of a folder, by the run's id, in the order of their files."""
    found: dict[str, list[Any]] = {}
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for frame in frames(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(frame)
            found.setdefault(file.stem.removeprefix("run-"), []).append(record)
    return found


def history(found: list[Any]) -> dict[str, list[tuple[int, float]]]:
    """Scores with the training step that they were logged with."""
    scores: dict[str, list[tuple[int, float]]] = {}
    for record in found:
        if record.WhichOneof("record_type") == "history":
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            for name, value in values.items():
                if not name.startswith("_") and name != STEP:
                    scores.setdefault(name, []).append((values[STEP], value))
    return scores


def test_wandb_has_what_was_pushed(tracker: WandbTracker, tmp_path: Path) -> None:
    assert tracker.mode == "offline"
    told = push(curves(), tracker, tmp_path)
    found = records(tracker.place.folder)
    assert found.keys() == {one.id for one in told}
    for one, curve in zip(told, curves(), strict=True):
        assert history(found[one.id]) == expected(curve)


def test_scores_are_over_the_training_step(tracker: WandbTracker, tmp_path: Path) -> None:
    (told,) = push(curves()[:1], tracker, tmp_path)
    defined = [r.metric for r in records(tracker.place.folder)[told.id] if r.HasField("metric")]
    assert STEP in {metric.name for metric in defined}
    over = {metric.name or metric.glob_name: metric.step_metric for metric in defined}
    assert over["*"] == STEP
    steps = [step for step, _ in history(records(tracker.place.folder)[told.id])[
        "quiz/exact_match,strict"
    ]]  # fmt: skip
    assert steps == sorted(steps) == [100, 200, 300]


def test_pushing_twice_doubles_nothing_and_later_scores_join_the_run(
    tracker: WandbTracker, tmp_path: Path
) -> None:
    few = curves(tasks=("quiz",))[:1]
    (first,) = push(few, tracker, tmp_path)
    push(few, tracker, tmp_path)
    assert history(records(tracker.place.folder)[first.id]) == expected(few[0])
    more = curves()[:1]
    (second,) = push(more, tracker, tmp_path)
    assert second.id == first.id
    assert history(records(tracker.place.folder)[first.id]) == expected(more[0])


def test_what_is_known_of_a_run_is_its_configuration(tracker: WandbTracker, tmp_path: Path) -> None:
    dpo = curves()[0]
    (told,) = push([dpo], tracker, tmp_path)
    (run,) = (r.run for r in records(tracker.place.folder)[told.id] if r.HasField("run"))
    assert (run.run_id, run.display_name, run.project) == (told.id, "dpo", "prefbench")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["fingerprints"] == dpo.about["fingerprints"]
    assert config["method"] == "dpo"


def test_nothing_of_this_machine_is_written(
    tracker: WandbTracker, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("sys.argv", ["prefbench", "push", "--secret-word"])
    monkeypatch.setenv("SOME_API_KEY", "secret-word")
    (told,) = push(curves()[:1], tracker, tmp_path)
    (file,) = tracker.place.folder.glob(f"wandb/offline-run-*/run-{told.id}.wandb")
    data = file.read_bytes()
    for word in ("secret-word", str(tmp_path), "github.com"):
        assert word.encode() not in data
    # A host's name may be two letters, which any number may hold: no text there is the name.
    told_texts = "".join(map(str, records(tracker.place.folder)[told.id]))
    assert "dpo" in told_texts
    assert f'"{socket.gethostname()}"' not in told_texts
    assert not list(tracker.place.folder.rglob("wandb-metadata.json"))


def test_hostile_names(tracker: WandbTracker, tmp_path: Path) -> None:
    (_, evil, _) = curves(tasks=(EVIL,))
    (told,) = push([evil], tracker, tmp_path)
    assert history(records(tracker.place.folder)[told.id]) == expected(evil)


def test_the_librarys_own_folder_counts_where_none_is_asked_for(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "theirs"))
    assert WandbTracker(Place(tmp_path / "ours", own=True)).place.folder == tmp_path / "theirs"
    assert WandbTracker(Place(tmp_path / "asked")).place.folder == tmp_path / "asked"


def test_login_is_found_without_asking(tmp_path: Path, monkeypatch: Any) -> None:
    assert not is_logged_in()
    file = tmp_path / "home" / ".netrc"
    file.write_text("machine api.wandb.ai login user password made-up\n")
    assert is_logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not is_logged_in()
    file.write_text("machine wandb.example.org login user password made-up\n")
    assert is_logged_in()
    assert WandbTracker(Place(tmp_path)).mode == "online"
    assert WandbTracker(Place(tmp_path, offline=True)).mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert WandbTracker(Place(tmp_path)).mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(InputError, match="W&B would write nothing"):
        WandbTracker(Place(tmp_path))
    monkeypatch.delenv("WANDB_MODE")
    file.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "made-up")
    assert is_logged_in()
    assert "made-up" not in WandbTracker(Place(tmp_path)).destination


@pytest.mark.parametrize("project", ["a/b", "long" * 99])
def test_what_wandb_refuses_is_told(project: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="W&B refuses: Invalid project name"):
        WandbTracker(Place(tmp_path / "new", project, offline=True)).write(curves()[0])
