from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prefbench.errors import InputError
from prefbench.trackers.base import Place
from prefbench.trackers.event_files import ABOUT, TensorboardTracker
from tests.trackers.boards import curves, expected


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard's own reader finds, points in the order of their steps."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {
        tag: sorted((event.step, event.value) for event in found.Scalars(tag))
        for tag in found.Tags()["scalars"]
    }


@pytest.fixture
def tracker(tmp_path: Path) -> TensorboardTracker:
    return TensorboardTracker(Place(tmp_path / "events"))


def test_tensorboard_reads_what_was_pushed(tracker: TensorboardTracker) -> None:
    for curve in curves():
        tracker.write(curve)
        found = read(tracker.folder_of(curve))
        assert found.keys() == expected(curve).keys()
        for name, points in expected(curve).items():
            # TensorBoard keeps 32 bits.
            assert found[name] == [(step, float(np.float32(value))) for step, value in points]


def test_points_are_added_to_a_curve(tracker: TensorboardTracker) -> None:
    dpo, *_ = curves()
    late = dataclasses.replace(dpo, points=dpo.points[1:])
    early = dataclasses.replace(dpo, points=dpo.points[:1])
    tracker.write(late)
    tracker.write(early)
    found = read(tracker.folder_of(dpo))
    assert [step for step, _ in found["quiz/exact_match,strict"]] == [100, 200, 300]


def test_what_is_known_of_a_curve_stands_beside_it(tracker: TensorboardTracker) -> None:
    dpo, *_ = curves()
    tracker.write(dpo)
    found = EventAccumulator(str(tracker.folder_of(dpo)))
    found.Reload()
    (event,) = found.Tensors(ABOUT)
    (text,) = event.tensor_proto.string_val
    assert json.loads(text.decode().strip()) == dpo.about


def test_no_name_leads_out_of_the_folder(tracker: TensorboardTracker) -> None:
    for name in ("../../evil", "..", "/etc", "a/b", ".", "dpo (2)", "\u202ex"):
        curve = dataclasses.replace(curves()[0], name=name)
        folder = tracker.folder_of(curve)
        assert folder.parent.parent == tracker.place.folder
        assert folder.name not in ("", ".", "..")
    names = ("a b", "a_b", "a/b", "long" * 99, "long" * 100)
    folders = {tracker.folder_of(dataclasses.replace(curves()[0], name=name)) for name in names}
    assert len(folders) == len(names)


def test_a_name_may_be_longer_than_a_folders(tmp_path: Path) -> None:
    tracker = TensorboardTracker(Place(tmp_path, project="方法" * 99))
    curve = dataclasses.replace(curves()[0], name="名前" * 99)
    tracker.write(curve)
    assert read(tracker.folder_of(curve))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        TensorboardTracker(Place(tmp_path / "file" / "events")).write(curves()[0])
