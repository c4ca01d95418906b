from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from prefbench.stats.bootstrap import Replicates, Resampling, percentile_interval
from prefbench.stats.pooling import interquartile_mean, pooled, standardised, widening


def mean(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / sums[..., 1])


def with_ones(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=-1)


def replicates(values: np.ndarray, n_resamples: int = 400) -> Replicates:
    draws = Resampling(np.arange(len(values)), n_resamples=n_resamples, seed=0)
    return draws.replicate(with_ones(values), mean)


def test_a_pool_of_one_keeps_its_replicates() -> None:
    found = replicates(np.random.default_rng(0).random((30, 3)))
    alone = pooled(found, [[2], [0]], confidence=0.95, rngs=[np.random.default_rng(1)] * 2)
    for part, whole in zip(alone, found, strict=True):
        np.testing.assert_array_equal(part, whole[..., [2, 0]])


def test_seeds_that_agree_are_as_one() -> None:
    values = np.random.default_rng(0).random((30, 1)).repeat(3, axis=1)
    found = replicates(values)
    both = pooled(found, [[0, 1, 2]], confidence=0.95, rngs=[np.random.default_rng(1)])
    np.testing.assert_allclose(both.resampled[:, 0], found.resampled[:, 0])
    assert both.value == pytest.approx(values.mean())


@pytest.mark.parametrize(("n_seeds", "held"), [(2, 0.93), (3, 0.93), (5, 0.92)])
def test_intervals_over_seeds_and_items_hold_the_methods_mean(n_seeds: int, held: float) -> None:
    """A method's mean over all seeds it could have had, and all items; items alone hold less."""
    rng = np.random.default_rng(n_seeds)
    n_items, n_simulated, covered, naive = 60, 300, 0, 0
    for _ in range(n_simulated):
        difficulty = rng.normal(0, 1, (n_items, 1))
        seeds = rng.normal(0, 0.3, n_seeds)
        values = difficulty + seeds + rng.normal(0, 0.5, (n_items, n_seeds))
        found = replicates(values, 300)
        own = pooled(found, [range(n_seeds)], confidence=0.95, rngs=[rng]).resampled[:, 0]
        low, high = percentile_interval(own, confidence=0.95)
        covered += low <= 0 <= high
        low, high = percentile_interval(found.resampled.mean(axis=1), confidence=0.95)
        naive += low <= 0 <= high
    assert covered / n_simulated >= held
    assert naive < covered


def test_few_seeds_are_widened_most() -> None:
    assert widening(2, 0.95) > widening(3, 0.95) > widening(30, 0.95) > 1
    assert widening(10_000, 0.95) == pytest.approx(1, abs=1e-3)
    # √(3/2) · t(.975; 2) / z(.975)
    assert widening(3, 0.95) == pytest.approx((3 / 2) ** 0.5 * 4.302653 / 1.959964, rel=1e-6)


def test_a_task_counts_the_same_in_any_unit() -> None:
    values = np.random.default_rng(0).normal(size=(50, 3))
    one, scaled = standardised([replicates(values), replicates(100 * values)], [50, 50])
    np.testing.assert_allclose(one.value, scaled.value)
    spread = np.sqrt(values.var(axis=0).mean())
    np.testing.assert_allclose(one.value, values.mean(axis=0) / spread, rtol=0.1)


def test_a_task_without_spread_is_nan() -> None:
    (flat,) = standardised([replicates(np.ones((20, 2)))], [20])
    assert np.isnan(flat.value).all()


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20))
def test_the_interquartile_mean_lies_within(values: list[float]) -> None:
    found = float(interquartile_mean(np.array(values)))
    assert min(values) - 1e-9 <= found <= max(values) + 1e-9


@pytest.mark.parametrize("n", [4, 8, 12])
def test_where_quarters_are_whole_it_is_the_trimmed_mean(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(n, 5))
    np.testing.assert_allclose(interquartile_mean(values), trim_mean(values, 0.25))


def test_of_three_the_middle_one_counts_most() -> None:
    assert interquartile_mean(np.array([0.0, 6.0, 12.0])) == 6
    assert interquartile_mean(np.array([0.0, 0.0, 6.0])) == pytest.approx(1)
