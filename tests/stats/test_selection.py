from __future__ import annotations

import math

import numpy as np
import pytest

from prefbench.errors import InputError
from prefbench.metrics import PAIR_METRICS
from prefbench.stats.bootstrap import Refit, Resampling
from prefbench.stats.selection import Choice, choose


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def chosen(
    values: np.ndarray, *, higher: bool = True, n_resamples: int = 400, clusters: object = None
) -> Choice:
    """The best of the columns of (n_items, k) by mean."""
    n = len(values)
    return choose(
        np.stack([values, np.where(np.isnan(values), np.nan, 1.0)], axis=-1),
        mean,
        resampling=Resampling(
            np.arange(n) if clusters is None else clusters,  # type: ignore[arg-type]
            n_resamples=n_resamples,
            seed=1,
        ),
        higher_is_better=higher,
        confidence=0.9,
    )


def test_a_clear_winner_is_chosen_alone_and_hardly_corrected() -> None:
    values = np.random.default_rng(0).normal(size=(200, 4)) + np.array([0.0, 3.0, 1.0, -1.0])
    found = chosen(values)
    assert (found.best, found.alike) == (1, (1,))
    assert found.chosen.tolist() == [0, 1, 0, 0]
    assert found.naive.value == pytest.approx(values[:, 1].mean())
    assert found.corrected.value == pytest.approx(found.naive.value)
    assert found.corrected.low < found.corrected.value < found.corrected.high
    assert found.corrected.high - found.corrected.low == pytest.approx(
        found.naive.high - found.naive.low
    )
    assert chosen(-values, higher=False).best == 1
    assert chosen(-values, higher=False).corrected.value == pytest.approx(-found.corrected.value)


def test_equal_members_are_all_alike_and_the_first_is_chosen() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=(50, 1)), 3, axis=1)
    found = chosen(values)
    assert (found.best, found.alike) == (0, (0, 1, 2))
    assert found.corrected.value == pytest.approx(found.naive.value)


def test_better_by_the_same_on_every_item_is_surely_better() -> None:
    base = np.random.default_rng(0).integers(0, 9, size=(50, 1)).astype(float)
    assert chosen(np.hstack([base, base + 1])).alike == (1,)
    assert chosen(np.hstack([base, base + 1]), higher=False).alike == (0,)


def test_one_member_alone() -> None:
    values = np.random.default_rng(0).normal(size=(30, 1))
    found = chosen(values)
    assert (found.best, found.alike, found.chosen.tolist()) == (0, (0,), [1])
    assert found.corrected.value == pytest.approx(found.naive.value)


def test_items_that_one_lacks_are_left_out_for_all() -> None:
    values = np.random.default_rng(0).normal(size=(30, 2))
    values[:5, 0] = np.nan
    found = chosen(values)
    assert (found.naive.n, found.naive.n_missing) == (25, 5)
    assert found.naive.value == pytest.approx(values[5:].mean(axis=0).max())


def test_too_little_to_correct_by() -> None:
    found = chosen(np.array([[1.0, 2.0]]))
    assert (found.best, found.alike) == (1, (0, 1))
    assert math.isnan(found.corrected.value)
    with pytest.raises(InputError, match="a member has no finite value"):
        chosen(np.full((3, 2), np.nan))
    # Of two clusters half of the resamples leave none out, and the others value by one.
    assert math.isfinite(chosen(np.array([[1.0, 2.0], [3.0, 2.5]])).corrected.value)


def test_what_is_fitted_is_chosen_like_what_is_summed() -> None:
    values = np.random.default_rng(3).normal(size=(40, 3))
    columns = np.stack([values, np.ones_like(values)], axis=-1)
    clusters = np.repeat(np.arange(20), 2)

    def fit(one: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return (counts @ one[:, 0]) / counts.sum(axis=1)

    results = [
        choose(
            columns,
            statistic,
            resampling=Resampling(clusters, n_resamples=300, seed=2),
            higher_is_better=True,
        )
        for statistic in (mean, Refit(fit))
    ]
    assert results[0].alike == results[1].alike
    assert results[0].corrected.value == pytest.approx(results[1].corrected.value)


# --- rates, by simulation


def simulated(
    means: list[float], n_items: int, repetitions: int, seed: int
) -> list[tuple[Choice, np.ndarray]]:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(repetitions, n_items, 1))
    noise = rng.normal(size=(repetitions, n_items, len(means)))
    return [(chosen(one, n_resamples=200), one) for one in shared + noise + np.array(means)]


def test_where_all_are_equal_the_corrected_value_is_unbiased_and_the_best_one_is_not() -> None:
    """Eight steps of 60 items with mean 0: the best looks 0.18 better than it is."""
    found = [one for one, _ in simulated([0.0] * 8, 60, 400, seed=5)]
    naive = np.array([one.naive.value for one in found])
    corrected = np.array([one.corrected.value for one in found])
    error = corrected.std() / math.sqrt(len(found))
    assert naive.mean() > 0.15
    assert abs(corrected.mean()) < 3 * error < 0.03
    covered = [one.corrected.low <= 0 <= one.corrected.high for one in found]
    assert np.mean(covered) > 0.9 - 3 * math.sqrt(0.09 / len(found))


def test_where_they_differ_the_corrected_value_leans_towards_too_little_by_less() -> None:
    means = [0.0, 0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 0.0]
    found = [one for one, _ in simulated(means, 60, 300, seed=6)]
    truth = np.array([means[one.best] for one in found])
    naive = np.mean([one.naive.value for one in found] - truth)
    corrected = np.mean([one.corrected.value for one in found] - truth)
    assert naive > 0.08
    assert -0.06 < corrected < 0.03
    covered = [
        one.corrected.low <= true <= one.corrected.high
        for one, true in zip(found, truth, strict=True)
    ]
    assert np.mean(covered) > 0.9 - 3 * math.sqrt(0.09 / len(found))


@pytest.mark.parametrize(
    ("means", "n_items"), [([0.0] * 8, 60), ([0.0, 0.0, -0.3, -0.6], 60), ([0.1, 0.0, 0.0], 12)]
)
def test_the_best_is_in_the_set_as_often_as_is_said(means: list[float], n_items: int) -> None:
    found = [one for one, _ in simulated(means, n_items, 400, seed=7)]
    held = np.mean([0 in one.alike for one in found])
    assert held > 0.9 - 3 * math.sqrt(0.09 / len(found))
    assert held < 1  # the set can leave it out


def test_perplexities_are_chosen_by_the_lowest() -> None:
    rng = np.random.default_rng(8)
    tokens = rng.integers(5, 20, size=(100, 1)).astype(float)
    per_token = rng.normal(size=(100, 1)) - np.array([[1.0, 0.5, 0.9]])
    columns = np.stack([per_token * tokens, np.repeat(tokens, 3, axis=1)], axis=-1)
    found = choose(
        columns,
        PAIR_METRICS["perplexity"].statistic,
        resampling=Resampling(np.arange(100), n_resamples=300, seed=1),
        higher_is_better=False,
    )
    assert (found.best, found.alike) == (1, (1,))
    assert found.corrected.value == pytest.approx(found.naive.value)
