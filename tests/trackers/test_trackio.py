"""Against trackio itself, with its database on this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from prefbench.errors import InputError
from prefbench.trackers.base import Place
from prefbench.trackers.pushing import push
from prefbench.trackers.wandb_api import ELSEWHERE, TrackioTracker
from tests.trackers.boards import curves, expected

# Two of its servers beside each other on a busy machine answer so late that it sends again.
pytestmark = pytest.mark.xdist_group("trackio")

HAS_TRACKIO = importlib.util.find_spec("trackio") is not None
with_trackio = pytest.mark.skipif(
    not HAS_TRACKIO,
    reason="trackio needs pillow below 13, which constraints.txt pins: pip install trackio, in an "
    "environment of its own",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: trackio looks where to write when it is imported."""
    return tmp_path_factory.mktemp("trackio")


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


@with_trackio
def test_trackio_has_what_was_pushed(folder: Path, tmp_path: Path) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    tracker = TrackioTracker(Place(folder, "all"))
    told = push(curves(), tracker, tmp_path)
    for one, curve in zip(told, curves(), strict=True):
        assert history("all", one.name) == expected(curve)
    config = SQLiteStorage.get_run_config("all", "dpo")
    assert config is not None
    assert config["fingerprints"]["200"] == "bytes of dpo/checkpoint-200"


@with_trackio
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


@with_trackio
def test_a_token_in_an_address_is_not_written_down(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TRACKIO_SERVER_URL", "https://t.example.org/x?write_token=made-up")
    tracker = TrackioTracker(Place(folder))
    assert "t.example.org/x" in tracker.destination
    assert "made-up" not in tracker.destination + tracker.look
    assert not tracker.is_local
    assert TrackioTracker(Place(folder, offline=True)).is_local


@with_trackio
def test_what_trackio_refuses_is_told(folder: Path) -> None:
    with pytest.raises(InputError, match=r"trackio refuses: .*too long"):
        TrackioTracker(Place(folder, "long" * 99)).write(curves()[0])


@pytest.mark.skipif(HAS_TRACKIO, reason="trackio is here")
def test_without_trackio_the_command_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'pip install "prefbench\[trackio\]"'):
        TrackioTracker(Place(tmp_path))
