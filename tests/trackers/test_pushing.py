from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from prefbench.cells import Settings
from prefbench.errors import InputError, StoreError
from prefbench.report.collect import collect
from prefbench.report.push import EXAMPLES, lines_of
from prefbench.report.push import push as verb
from prefbench.runner import run
from prefbench.trackers import TRACKERS
from prefbench.trackers.base import Place, need
from prefbench.trackers.curves import Curve
from prefbench.trackers.event_files import TensorboardTracker
from prefbench.trackers.pushing import Pushed, push
from tests.trackers.boards import ROWS, curves, expected
from tests.trackers.test_tensorboard import read

NAME = "quiz/exact_match,strict"
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command(epilog=EXAMPLES)(verb)


@pytest.fixture
def tracker(tmp_path: Path) -> TensorboardTracker:
    return TensorboardTracker(Place(tmp_path / "events"))


def summed(pushed: list[Pushed]) -> int:
    return sum(one.n_points for one in pushed)


def steps(tracker: TensorboardTracker, curve: Curve, name: str = NAME) -> list[int]:
    return [step for step, _ in read(tracker.folder_of(curve)).get(name, [])]


def test_pushing_twice_doubles_no_point(tracker: TensorboardTracker, tmp_path: Path) -> None:
    first = push(curves(), tracker, tmp_path)
    assert summed(first) == 5
    again = push(curves(), tracker, tmp_path)
    assert summed(again) == 0
    assert [one.id for one in again] == [one.id for one in first]
    assert len({one.id for one in first}) == 3
    for curve in curves():
        assert {name: len(points) for name, points in expected(curve).items()} == {
            name: len(points) for name, points in read(tracker.folder_of(curve)).items()
        }


def test_only_what_is_new_is_added(tracker: TensorboardTracker, tmp_path: Path) -> None:
    dpo = curves(rows=ROWS[:1], tasks=("quiz",))[0]
    push([dpo], tracker, tmp_path)
    more = curves(rows=ROWS[:3])[0]  # an earlier and a later step, and another task
    (told,) = push([more], tracker, tmp_path)
    assert (told.n_points, told.n_known) == (3, 4)
    assert steps(tracker, more) == [100, 200, 300]
    assert steps(tracker, more, "puzzle/exact_match,strict") == [100, 200, 300]
    (told,) = push([more], tracker, tmp_path)
    assert (told.n_points, told.n_known) == (0, 24)


def test_a_changed_score_is_told_and_goes_to_a_new_run_when_asked(
    tracker: TensorboardTracker, tmp_path: Path
) -> None:
    dpo, *_ = curves()
    push([dpo], tracker, tmp_path)
    point = dpo.points[0]
    moved = dataclasses.replace(point, scores={**point.scores, NAME: 0.9})
    other = dataclasses.replace(dpo, points=(moved, *dpo.points[1:]))
    (told,) = push([other], tracker, tmp_path)
    assert told.n_points == 0
    assert told.changed == (f"{NAME} at step 100",)
    assert "--anew" in lines_of([told])[1]
    (new,) = push([other], tracker, tmp_path, anew=True)
    assert (new.name, new.n_points) == ("dpo (2)", 3)
    assert new.id != told.id
    second = dataclasses.replace(dpo, name="dpo (2)")
    assert read(tracker.folder_of(second))[NAME][0] == (100, pytest.approx(0.9))
    assert steps(tracker, dpo) == [100, 200, 300]
    (later,) = push([other], tracker, tmp_path)  # the new run is the one that counts now
    assert (later.id, later.n_points, later.changed) == (new.id, 0, ())


def test_another_place_is_another_matter(tracker: TensorboardTracker, tmp_path: Path) -> None:
    push(curves(), tracker, tmp_path)
    for place in (Place(tmp_path / "other"), Place(tmp_path / "events", "another")):
        assert summed(push(curves(), TensorboardTracker(place), tmp_path)) == 5


def test_what_was_deleted_is_pushed_again(tracker: TensorboardTracker, tmp_path: Path) -> None:
    push(curves(), tracker, tmp_path)
    shutil.rmtree(tmp_path / "events")
    assert summed(push(curves(), tracker, tmp_path)) == 5


def test_results_can_be_moved(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    first = push(curves(), TensorboardTracker(Place(results / "t", own=True)), results)
    moved = results.rename(tmp_path / "moved")
    again = push(curves(), TensorboardTracker(Place(moved / "t", own=True)), moved)
    assert summed(again) == 0
    assert [one.id for one in again] == [one.id for one in first]


def test_what_was_sent_before_a_failure_is_recorded(
    tracker: TensorboardTracker, tmp_path: Path
) -> None:
    (tmp_path / "events" / "prefbench").mkdir(parents=True)
    first, second, third = curves()
    blocked = tracker.folder_of(second)
    blocked.write_text("a file where the folder belongs")
    with pytest.raises(InputError, match="cannot be written"):
        push([first, second, third], tracker, tmp_path)
    blocked.unlink()
    assert [one.n_points for one in push([first, second, third], tracker, tmp_path)] == [0, 1, 1]


def test_a_record_that_cannot_be_read_is_no_reason_to_push_again(
    tracker: TensorboardTracker, tmp_path: Path
) -> None:
    (tmp_path / "pushed.json").write_text("{")
    with pytest.raises(StoreError, match="it says what was pushed"):
        push(curves(), tracker, tmp_path)
    assert not (tmp_path / "events").exists()


def test_a_missing_library_is_told_with_the_command() -> None:
    with pytest.raises(
        InputError, match=r'nowhere is not installed: pip install "prefbench\[me\]"'
    ):
        need("nowhere", "me")


def test_every_tracker_is_in_the_verb() -> None:
    from prefbench.report.push import To

    assert [str(one) for one in To] == list(TRACKERS)


# --- the verb


@pytest.fixture(scope="module")
def results(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the zoo with all its checkpoints, on a small task."""
    folder = tmp_path_factory.mktemp("push") / "results"
    outcome = run(
        small_zoo / "checkpoints" / "dpo",
        tasks=["demo_everyday"],
        results=folder,
        settings=Settings(limit=8, engine="hf"),
        mirrors=[small_zoo / "data"],
    )
    assert not outcome.failed
    return folder


def test_the_verb(results: Path) -> None:
    def call(*words: str) -> str:
        found = CliRunner().invoke(
            app, [str(results), "--to", "tensorboard", *words], catch_exceptions=False
        )
        assert found.exit_code == 0
        return found.stdout

    shown = call()
    folder = results / "trackers" / "tensorboard"
    assert f"tensorboard --logdir {folder}" in shown
    found = read(folder / "prefbench" / "dpo")
    board = collect(results)
    by_step = {row.step: row for row in board.rows}
    (column,) = (column for column in board.columns if column.shown)
    points = found[f"demo_everyday, first 8 items/{column.metric.name}"]
    assert [step for step, _ in points] == sorted(step for step in by_step if step is not None)
    for step, value in points:
        entry = board.entry(by_step[step], column)
        assert entry is not None
        assert value == pytest.approx(entry.score.estimate.value)
    assert "nothing new" in call()
    n = len(points)
    assert f"{n} step" in call("--anew")
    record = json.loads((results / "pushed.json").read_text())
    assert list(record) == ["tensorboard beside the results prefbench"]
    assert "scores were there" in call("--all")  # and what the tasks do not show by themselves
    (second,) = (one for one in (folder / "prefbench").iterdir() if one.name != "dpo")
    assert "demo_everyday, first 8 items/acc" in read(second)
    assert "demo_everyday, first 8 items/acc" not in read(folder / "prefbench" / "dpo")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--project", "a\nb"), "a project has a name in one line"),
        (("--tracking-uri", "http://x"), "--tracking-uri is MLflow's; tensorboard has none"),
        (("--task", "nothing"), "none of nothing was run here"),
    ],
)
def test_the_verb_refuses(words: tuple[str, ...], said: str, results: Path) -> None:
    with pytest.raises(InputError, match=said):
        CliRunner().invoke(
            app, [str(results), "--to", "tensorboard", *words], catch_exceptions=False
        )
