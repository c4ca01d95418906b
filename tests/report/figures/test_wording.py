from __future__ import annotations

import numpy as np
import pytest

from prefbench.report.figures.labels import Box, place
from prefbench.report.figures.sheet import number, ticks_of_log
from prefbench.report.figures.wording import fitted, lines_of, names_told_apart, said, width_of


def test_hostile_text_is_plain() -> None:
    assert said("a\x1b[31m\u202eb\nc\t $x$ 日") == "a [31m b c $x$ \ufffd"


def test_names_stay_short_and_apart() -> None:
    long = "runs/" + "x" * 100
    names = names_told_apart([f"{long}/one", f"{long}/two", "sft", "日", "本", "sft"])
    assert names == [
        "runs/xxxxxx…xxxxxxxx/one", "runs/xxxxxx…xxxxxxxx/two", "sft", "\ufffd #1", "\ufffd #2",
        "sft",
    ]  # fmt: skip


def test_text_is_cut_to_the_room_there_is() -> None:
    name = "a_rather_long_name_of_a_task"
    assert fitted(name, 9) == name
    assert width_of(fitted(name, 0.8)) <= 0.8
    lines = lines_of(name, 0.9)
    assert len(lines) == 2
    assert all(width_of(line) <= 0.9 for line in lines)
    assert "".join(lines_of(name, 1.2)) == name
    assert lines_of("nothing_to/do", 0.0)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1.3, 2.1, [1.4, 1.6, 1.8, 2.0]),
        (2.5, 9.3, [3, 4, 5, 6, 8]),
        (1.5, 60, [2, 5, 10, 20, 50]),
        (1, 2e6, [1, 100, 1e4, 1e6]),
        (5, 5.002, [5, 5.0005, 5.001, 5.0015, 5.002]),
        (0, 5, []),
        (3, 3, []),
        (3, np.inf, []),
    ],
)
def test_few_round_numbers_stand_at_a_log_axis(low: float, high: float, ticks: list[float]) -> None:
    assert ticks_of_log(low, high) == pytest.approx(ticks)


def test_numbers_have_no_more_digits_than_they_need() -> None:
    assert [number(v) for v in (-0.0, -1.5, 20.0, 0.25)] == ["0", "−1.5", "20", "0.25"]


@pytest.mark.parametrize("seed", range(5))
def test_names_touch_neither_each_other_nor_a_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = Box(0, 0, 220, 160)
    points = rng.uniform((30, 30), (190, 130), (14, 2))
    sizes = [(float(w), 8.0) for w in rng.uniform(15, 45, 14)]
    boxes = place(points, sizes, frame)
    placed = [box for box in boxes if box is not None]
    assert len(placed) == 14
    for i, box in enumerate(placed):
        assert not any(box.overlaps(other) for other in placed[:i])
        assert frame.left <= box.left < box.right <= frame.right
        for x, y in points:
            assert not (box.left < x < box.right and box.bottom < y < box.top)
    assert boxes == place(points, sizes, frame)


def test_a_name_without_room_has_no_place() -> None:
    points = np.array([[10.0, 10.0], [30.0, 10.0]])
    boxes = place(points, [(500.0, 8.0), (8.0, 8.0)], Box(0, 0, 60, 40))
    assert boxes[0] is None
    assert boxes[1] is not None
