"""Against trackio itself, with its database on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefbench.errors import InputError
from prefbench.trackers.base import Place
from prefbench.trackers.pushing import push
from prefbench.trackers.wandb_api import ELSEWHERE, TrackioTracker
from tests.trackers.boards import curves, expected


def forget() -> None:
    """Trackio looks where to write when it is imported, which trainers of other tests do, too."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    forget()
    yield tmp_path / "trackio"
    forget()


@pytest.fixture(autouse=True)
def nowhere_else(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ELSEWHERE:
        monkeypatch.delenv(name, raising=False)


def history(project: str, run: str) -> dict[str, list[tuple[int, float]]]:
    """What trackio's own reader gives of all scores of a run."""
    from trackio.sqlite_storage import SQLiteStorage

    found: dict[str, list[tuple[int, float]]] = {}
    for row in SQLiteStorage.get_logs(project, run):
        for name, value in row.items():
            if name not in ("step", "timestamp"):
                found.setdefault(name, []).append((row["step"], value))
    return {name: sorted(points) for name, points in found.items()}


def test_trackio_has_what_was_pushed(folder: Path, tmp_path: Path) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    tracker = TrackioTracker(Place(folder, "all"))
    told = push(curves(), tracker, tmp_path)
    for one, curve in zip(told, curves(), strict=True):
        assert history("all", one.name) == expected(curve)
    config = SQLiteStorage.get_run_config("all", "dpo")
    assert config is not None
    assert config["fingerprints"]["200"] == "bytes of dpo/checkpoint-200"


def test_pushing_twice_doubles_nothing_and_later_scores_join_the_run(
    folder: Path, tmp_path: Path
) -> None:
    tracker = TrackioTracker(Place(folder, "twice"))
    few, more = curves(tasks=("quiz",))[:1], curves()[:1]
    push(few, tracker, tmp_path)
    push(few, tracker, tmp_path)
    assert history("twice", "dpo") == expected(few[0])
    push(more, tracker, tmp_path)
    assert history("twice", "dpo") == expected(more[0])


def test_imported_elsewhere_it_is_refused(folder: Path, tmp_path: Path) -> None:
    TrackioTracker(Place(folder))
    with pytest.raises(InputError, match=f"imported before, and keeps its runs in {folder}"):
        TrackioTracker(Place(tmp_path / "other"))


def test_a_token_in_an_address_is_not_written_down(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TRACKIO_SERVER_URL", "https://t.example.org/x?write_token=made-up")
    tracker = TrackioTracker(Place(folder))
    assert "t.example.org/x" in tracker.destination
    assert "made-up" not in tracker.destination + tracker.look
    assert not tracker.is_local
    assert TrackioTracker(Place(folder, offline=True)).is_local


def test_what_trackio_only_warns_of_is_not_counted_as_sent(folder: Path, tmp_path: Path) -> None:
    tracker = TrackioTracker(Place(folder, "torn"))
    few, more = curves(tasks=("quiz",))[:1], curves()[:1]
    push(few, tracker, tmp_path)
    (database,) = folder.glob("torn*.db")
    kept = database.read_bytes()
    database.write_bytes(b"no database" * 99)
    with pytest.raises(InputError, match=r"trackio refuses: .*not a database"):
        push(more, tracker, tmp_path)
    database.write_bytes(kept)
    push(more, tracker, tmp_path)
    assert history("torn", "dpo") == expected(more[0])


def test_what_trackio_refuses_is_told(folder: Path) -> None:
    with pytest.raises(InputError, match=r"trackio refuses: .*too long"):
        TrackioTracker(Place(folder, "long" * 99)).write(curves()[0])


def test_what_is_kept_for_later_must_be_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network file system, where trackio writes no database."""
    monkeypatch.setenv("TRACKIO_STORAGE_MODE", "jsonl")
    tracker = TrackioTracker(Place(folder, "later"))
    folder.mkdir()
    (folder / "inbox").write_text("in the way")
    with pytest.raises(InputError, match=r"trackio refuses: .*could not be persisted"):
        push(curves()[:1], tracker, tmp_path)
    (folder / "inbox").unlink()
    push(curves()[:1], tracker, tmp_path)
    assert list((folder / "inbox").rglob("*.jsonl"))


def test_without_trackio_the_command_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(InputError, match=r'pip install "prefbench\[trackio\]"'):
        TrackioTracker(Place(tmp_path))
