"""Krippendorff's α: his own example, evalica, closed form, what is undefined."""

from __future__ import annotations

import evalica
import numpy as np
import pandas as pd
import pytest

from prefbench.errors import InputError
from prefbench.stats.agreement import Level, krippendorff_alpha
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import Estimate

_ = np.nan
# Krippendorff 2011, section D: four observers, twelve units.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
).T


def alpha(ratings: Array, level: Level = "nominal", **settings: object) -> Estimate:
    draws = Resampling(np.arange(len(ratings)), n_resamples=500, seed=0)
    return krippendorff_alpha(ratings, level=level, **{"resampling": draws, **settings})  # type: ignore[arg-type]


def judged(n: int, n_raters: int, *, noise: float, seed: int = 0) -> Array:
    """Verdicts 0, ½ and 1 that agree but for some noise, a tenth of them missing."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 0.5, 1], size=(n, 1))
    random = rng.choice([0, 0.5, 1], size=(n, n_raters))
    ratings = np.where(rng.random((n, n_raters)) < noise, random, truth)
    ratings[rng.random((n, n_raters)) < 0.1] = np.nan
    return ratings


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("interval", 0.849)])
def test_the_published_example(level: Level, value: float) -> None:
    found = alpha(PUBLISHED, level)
    assert found.value == pytest.approx(value, abs=0.0005)
    assert (found.n, found.n_missing) == (11, 1)


@pytest.mark.parametrize("level", ["nominal", "interval"])
@pytest.mark.parametrize("noise", [0.1, 0.5, 1.0])
def test_agrees_with_evalica(level: Level, noise: float) -> None:
    ratings = judged(80, 3, noise=noise)
    theirs = evalica.alpha(pd.DataFrame(ratings.T), distance=level).alpha
    found = alpha(ratings, level)
    assert found.value == pytest.approx(theirs, abs=1e-12)
    assert found.low < found.value < found.high


def test_two_raters_and_two_values_in_closed_form() -> None:
    # 10 units, 4 disagree; 12 ratings are 1 and 8 are 0. Krippendorff 2011, section A: 1 − 19·4/96.
    ratings = np.array([[1, 1]] * 4 + [[0, 0]] * 2 + [[1, 0]] * 4)
    expected = 1 - 19 * 4 / (12 * 8)
    for level in ("nominal", "interval"):
        assert alpha(ratings, level).value == pytest.approx(expected)  # type: ignore[arg-type]


def test_levels_and_invariances() -> None:
    ratings = judged(80, 3, noise=0.4)
    assert alpha(3 * ratings + 1e6, "interval").value == pytest.approx(
        alpha(ratings, "interval").value, abs=1e-9
    )
    assert alpha(ratings[:, ::-1])[:3] == alpha(ratings)[:3]
    # Which value is which is nothing to a nominal level, and much to an interval.
    swapped = np.where(ratings == 0.5, 1, np.where(ratings == 1, 0.5, ratings))
    assert alpha(swapped)[:3] == alpha(ratings)[:3]
    assert alpha(swapped, "interval").value != pytest.approx(alpha(ratings, "interval").value)


def test_agreement_by_chance_is_none_and_all_agreement_is_one() -> None:
    chance = alpha(judged(3000, 2, noise=1.0))
    assert chance.low < 0 < chance.high
    assert chance.value == pytest.approx(0, abs=0.04)
    same = np.repeat(np.arange(40) % 3, 2).reshape(40, 2)
    assert alpha(same)[:3] == (1, 1, 1)


@pytest.mark.parametrize("level", ["nominal", "interval"])
def test_what_says_nothing_of_agreement(level: Level) -> None:
    assert np.isnan(alpha(np.ones((9, 2)), level)[:3]).all()
    alone = np.array([[1, _], [_, 0], [_, _]])
    found = alpha(alone, level)
    assert np.isnan(found[:3]).all()
    assert (found.n, found.n_missing) == (0, 3)
    assert np.isnan(alpha(np.full((4, 2), np.nan), level).value)


def test_messages() -> None:
    with pytest.raises(InputError, match=r"must be \(n_items, n_raters\), not \(3,\)"):
        alpha(np.ones(3))
    with pytest.raises(InputError, match="level must be nominal or interval, not 'ratio'"):
        alpha(np.ones((3, 2)), "ratio")  # type: ignore[arg-type]
