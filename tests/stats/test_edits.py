"""Edit distance and first difference: by hand, and against the textbook's recursion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefbench.stats.edits import BANDS, band_of, edit_distance, first_difference

IDS = st.lists(st.integers(0, 3) | st.integers(150_000, 150_002), max_size=9)


def textbook(first, second):
    """Levenshtein's distance, row by row."""
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (one != other))
    return row[-1]


@given(IDS, IDS)
def test_edit_distance_is_the_textbooks(first, second):
    longest = max(len(first), len(second), 1)
    assert edit_distance(first, second) == pytest.approx(textbook(first, second) / longest)
    assert edit_distance(tuple(second), tuple(first)) == edit_distance(first, second)


@pytest.mark.parametrize(
    ("first", "second", "distance", "place"),
    [
        ([], [], 0.0, 0),
        ([], [5], 1.0, 0),
        ([5, 6, 7], [5, 6, 7], 0.0, 3),
        ([5, 6, 7, 2], [5, 6, 2], 0.25, 2),
        ([5, 6], [5, 6, 7, 2], 0.5, 2),
        ([4, 5, 6, 7, 8, 9, 10, 11, 12, 2], [4, 5, 6, 7, 8, 9, 10, 11, 13, 2], 0.1, 8),
    ],
)
def test_by_hand(first, second, distance, place):
    assert edit_distance(first, second) == pytest.approx(distance, abs=1e-12)
    assert first_difference(first, second) == first_difference(second, first) == place


@given(IDS, IDS)
def test_the_first_difference_is_the_first(first, second):
    place = first_difference(first, second)
    assert first[:place] == second[:place]
    assert first[place : place + 1] != second[place : place + 1] or first == second


def test_a_band_ends_below_its_border():
    assert list(BANDS) == ["low_edit", "mid_edit", "high_edit"]
    bands = [band_of(x) for x in (0.0, 0.0999, 0.1, 0.4999, 0.5, 1.0)]
    assert bands == ["low_edit", "low_edit", "mid_edit", "mid_edit", "high_edit", "high_edit"]


def test_one_token_of_ten_is_no_low_edit():
    """The distance is a float, and 1/10 must not fall below 0.1 for it."""
    for n in range(10, 400, 10):
        assert band_of(edit_distance([*range(n)], [*([-1] * (n // 10)), *range(n // 10, n)])) == (
            "mid_edit"
        )
