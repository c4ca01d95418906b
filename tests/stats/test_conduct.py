"""How a judge behaves, against numbers by hand and under exchange of the two texts."""

from __future__ import annotations

import numpy as np
import pytest

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Resampling
from prefbench.stats.conduct import (
    accuracy,
    agreement,
    changed,
    length_correlation,
    longer_preferred,
    share,
    sides,
)
from prefbench.stats.estimates import wilson_interval

NAN = np.nan


def draws(n: int) -> Resampling:
    return Resampling(np.arange(n), n_resamples=500, seed=0)


def test_a_share_counts_what_arises_and_what_is_missing() -> None:
    found = share([1, 0, 0, NAN, 0], [2, 1, 1, 1, 0], resampling=draws(5))
    assert found.value == 1 / 4
    assert (found.n, found.n_missing) == (4, 1)
    assert found.low <= found.value <= found.high


def test_a_share_of_one_has_wilsons_interval_over_clusters() -> None:
    clusters = Resampling(["a", "a", "b", "c"], n_resamples=100, seed=0)
    found = share(np.ones(4), np.ones(4), resampling=clusters)
    assert (found.value, found.method) == (1, "wilson")
    assert (found.low, found.high) == wilson_interval(3, 3, 0.95)


def test_a_share_of_nothing_is_undefined() -> None:
    found = share([0.0, 0.0], [0.0, 0.0], resampling=draws(2))
    assert np.isnan(found.value)
    assert found.n == found.n_missing == 0
    assert share([NAN, NAN], [1.0, 1.0], resampling=draws(2)).n_missing == 2


def test_sides_and_changes() -> None:
    assert np.array_equal(sides([1, 0.5, 0.2, NAN]), [1, 0, -1, NAN], equal_nan=True)
    before, after = [1, 0.9, 0.5, 0, NAN, NAN, 0.6], [1, 0.6, 0, 1, NAN, 0.5, NAN]
    assert changed(before, after).tolist() == [0, 0, 1, 1, 0, 1, 1]


PREFERENCE = np.array([1, 0, 0, 1, 0.5, NAN, 1.0])
LENGTHS = np.array([[9, 1], [2, 8], [5, 3], [4, 4], [9, 2], [3, 1], [1, 3]], dtype=float)


def test_longer_preferred_by_hand() -> None:
    """Of the seven: two to the longer, two to the shorter, one of equal length, a tie, one lost."""
    found = longer_preferred(PREFERENCE, *LENGTHS.T, resampling=draws(7))
    assert found.value == 0.5
    assert (found.n, found.n_missing) == (4, 1)


def test_length_correlation_by_hand() -> None:
    found = length_correlation([1, 0, 1], [3, 1, 2], [1, 3, 2], resampling=draws(3))
    # x = 1/2, -1/2, 0 and y = 1/2, -1/2, 1/2: 1/2 over the root of 1/2 times 3/4.
    assert found.value == pytest.approx(0.5 / np.sqrt(0.5 * 0.75))
    only_length = length_correlation([1, 0], [2, 1], [1, 2], resampling=draws(2))
    assert only_length.value == pytest.approx(1)
    assert np.isnan(length_correlation([1, 0], [2, 2], [2, 2], resampling=draws(2)).value)


def test_accuracy_by_hand() -> None:
    judge, human = [1, 0.9, 0, 0.5, NAN, 1], [1, 0, 0.1, 1, 1, 0.5]
    found = accuracy(judge, human, resampling=draws(6))
    assert found.value == pytest.approx(2 / 3)
    assert (found.n, found.n_missing) == (3, 1)


def test_agreement_by_hand() -> None:
    # Seen from both sides: 1 1, 0 0, 1 0, 0 1. Observed squared differences 4 of 8 ratings'
    # ordered pairs; expected over all 8·7 ordered pairs of four 1 and four 0: 32.
    found = agreement([1, 1], [1, 0], resampling=draws(2))
    assert found.value == pytest.approx(1 - (4 / 8) / (32 / 56))
    assert found.n == 2
    assert agreement([1, 1, 0], [1, 1, 0], resampling=draws(3)).value == pytest.approx(1)


def test_agreement_where_people_always_prefer_the_first() -> None:
    """As in data of chosen and rejected: a judge by coin agrees as by chance, α is about 0."""
    rng = np.random.default_rng(0)
    judge = rng.integers(0, 2, 2000).astype(float)
    assert abs(agreement(judge, np.ones(2000), resampling=draws(2000)).value) < 0.05


def test_nothing_hangs_on_which_text_is_the_first() -> None:
    rng = np.random.default_rng(1)
    judge, human = rng.random(40).round(1), rng.integers(0, 3, 40) / 2
    first, second = rng.integers(1, 99, (2, 40))
    judge[3] = NAN
    turn = rng.integers(0, 2, 40).astype(bool)
    others = [np.where(turn, 1 - one, one) for one in (judge, human)]
    lengths = np.where(turn, second, first), np.where(turn, first, second)
    settings = {"resampling": draws(40)}
    pairs = [
        (accuracy(judge, human, **settings), accuracy(*others, **settings)),
        (agreement(judge, human, **settings), agreement(*others, **settings)),
        (
            longer_preferred(judge, first, second, **settings),
            longer_preferred(others[0], *lengths, **settings),
        ),
        (
            length_correlation(judge, first, second, **settings),
            length_correlation(others[0], *lengths, **settings),
        ),
    ]
    for one, other in pairs:
        assert one[:3] == pytest.approx(other[:3], abs=1e-9)
        assert (one.n, one.n_missing) == (other.n, other.n_missing)


def test_a_table_where_a_row_of_numbers_belongs() -> None:
    with pytest.raises(InputError, match="one number per pair"):
        share(np.ones((2, 2)), np.ones(2), resampling=draws(2))
