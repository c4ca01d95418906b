"""Against MLflow itself, with a database in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from prefbench.errors import InputError
from prefbench.trackers.base import Place
from prefbench.trackers.mlflow_api import TAG, MlflowTracker
from prefbench.trackers.pushing import push
from tests.trackers.boards import EVIL, curves, expected

pytestmark = [
    pytest.mark.filterwarnings(
        # MLflow's own tables say so of themselves.
        r"ignore:The ``noload`` loader strategy is deprecated"
    ),
]


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch: Any) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the database is: making its tables takes MLflow seconds."""
    return tmp_path_factory.mktemp("mlflow")


def history(tracker: MlflowTracker, run: str) -> dict[str, list[tuple[int, float]]]:
    """What MLflow's own client gives of all scores of a curve."""
    client = tracker._client()
    experiment = client.get_experiment_by_name(tracker.place.project)
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{run}'")
    return {
        name: sorted((m.step, m.value) for m in client.get_metric_history(found.info.run_id, name))
        for name in found.data.metrics
    }


def tags(tracker: MlflowTracker, run: str) -> dict[str, str]:
    client = tracker._client()
    experiment = client.get_experiment_by_name(tracker.place.project)
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{run}'")
    assert found.info.status == "FINISHED"
    return dict(found.data.tags)


def test_mlflow_has_what_was_pushed(folder: Path, tmp_path: Path) -> None:
    tracker = MlflowTracker(Place(folder, "all"))
    told = push(curves(), tracker, tmp_path)
    assert (folder / "mlflow.db").is_file()
    for one, curve in zip(told, curves(), strict=True):
        written = {name.replace(",", "_"): at for name, at in expected(curve).items()}
        assert history(tracker, one.id) == written


def test_pushing_twice_doubles_nothing_and_later_scores_join_the_run(
    folder: Path, tmp_path: Path
) -> None:
    tracker = MlflowTracker(Place(folder, "twice"))
    few, more = curves(tasks=("quiz",))[:1], curves()[:1]
    (first,) = push(few, tracker, tmp_path)
    push(few, tracker, tmp_path)
    before = history(tracker, first.id)
    assert {len(points) for points in before.values()} == {3}
    (second,) = push(more, tracker, tmp_path)
    assert second.id == first.id
    after = history(tracker, first.id)
    assert len(after) == 2 * len(before) == 8
    assert {len(points) for points in after.values()} == {3}


def test_what_is_known_of_a_run_is_in_its_tags(folder: Path, tmp_path: Path) -> None:
    tracker = MlflowTracker(Place(folder, "tags"))
    dpo = curves()[0]
    (told,) = push([dpo], tracker, tmp_path)
    found = tags(tracker, told.id)
    assert found["prefbench.fingerprints.200"] == "bytes of dpo/checkpoint-200"
    assert found["prefbench.method"] == "dpo"
    assert found["mlflow.runName"] == "dpo"
    assert not any("user" in name or "source" in name for name in found)


def test_hostile_names(folder: Path, tmp_path: Path) -> None:
    tracker = MlflowTracker(Place(folder, "evil"))
    (_, evil, _) = curves(tasks=(EVIL,))
    (told,) = push([evil], tracker, tmp_path)
    assert len(history(tracker, told.id)) == 4


def test_names_that_mlflow_cannot_tell_apart_are_refused(folder: Path, tmp_path: Path) -> None:
    tracker = MlflowTracker(Place(folder, "alike"))
    with pytest.raises(InputError, match="alike"):
        push(curves(tasks=("a,b", "a_b")), tracker, tmp_path)


def test_what_mlflow_refuses_is_told_without_the_password(tmp_path: Path) -> None:
    place = Place(tmp_path, uri="nonsense://user:made-up@127.0.0.1:1")
    with pytest.raises(InputError, match="MLflow refuses") as refused:
        push(curves(), MlflowTracker(place), tmp_path)
    assert "made-up" not in MlflowTracker(place).destination
    assert "made-up" not in str(refused.value)


def test_a_missing_driver_of_a_database_is_told_without_the_password(tmp_path: Path) -> None:
    place = Place(tmp_path, uri="mssql://user:made%2Dup@127.0.0.1:1/x")
    with pytest.raises(InputError, match="MLflow refuses") as refused:
        push(curves(), MlflowTracker(place), tmp_path)
    assert "made-up" not in str(refused.value)
    assert "made%2Dup" not in str(refused.value)


def test_without_mlflow_the_command_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r'pip install "prefbench\[mlflow\]"'):
        MlflowTracker(Place(tmp_path))
