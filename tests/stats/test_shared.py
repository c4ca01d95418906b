from __future__ import annotations

import numpy as np
import pytest

from prefbench.stats.bootstrap import Array, Refit, Resampling
from prefbench.stats.estimates import Method, estimates
from prefbench.stats.paired import differences
from prefbench.stats.shared import Wanted, estimate_all

N_ITEMS, N_CHECKPOINTS = 50, 3


def ratio(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / sums[..., 1])


def exp_ratio(sums: Array) -> Array:
    return np.asarray(np.exp(-sums[..., 0] / sums[..., 1]))


def mean_of_logs(columns: Array, counts: Array) -> Array:
    return np.asarray((counts @ np.log1p(columns[:, 1])) / counts.sum(axis=1))


def table(rng: np.random.Generator) -> Array:
    """Columns: a share, a count of ones, a log-prob, its tokens."""
    shape = (N_ITEMS, N_CHECKPOINTS)
    tokens = rng.integers(1, 30, shape).astype(float)
    share = (rng.random(shape) < 0.6).astype(float)
    return np.stack([share, np.ones(shape), -tokens * rng.random(shape), tokens], axis=-1)


WANTED = [
    Wanted((0, 1), ratio, True),
    Wanted((2, 3), exp_ratio),
    Wanted((2, 1), ratio),
    Wanted((2, 3), Refit(mean_of_logs)),
]


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("missing", ["none", "alike", "different"])
def test_equal_to_each_statistic_alone(method: Method, missing: str) -> None:
    numbers = table(np.random.default_rng(0))
    if missing == "alike":
        numbers[4:9, :, 2] = np.nan
    elif missing == "different":
        numbers[4:9, 1, 2] = np.nan
    resampling = Resampling(np.arange(N_ITEMS) // 2, n_resamples=500, seed=1)
    found = estimate_all(numbers, WANTED, resampling=resampling, baseline=1, method=method)
    for want, one in zip(WANTED, found, strict=True):
        columns = numbers[..., list(want.columns)]
        assert one.estimates == estimates(
            columns,
            want.statistic,
            resampling=resampling,
            method=method,
            proportion=want.proportion,
        )
        gaps = differences(
            columns, [(0, 1), (2, 1)], want.statistic, resampling=resampling, method=method
        )
        assert one.differences == [gaps[0], None, gaps[1]]


def test_what_is_only_fitted_needs_no_sums() -> None:
    resampling = Resampling(np.arange(N_ITEMS), n_resamples=100, seed=1)
    numbers = table(np.random.default_rng(0))
    (found,) = estimate_all(numbers, WANTED[3:], resampling=resampling, baseline=0)
    one = found.estimates[1]
    assert one.value == pytest.approx(np.log1p(numbers[:, 1, 3]).mean())
    assert one.low < one.value < one.high
    # The same draws as for sums, so that a fitted metric's differences are paired as theirs are.
    summed = np.stack([np.log1p(numbers[..., 3]), numbers[..., 1]], axis=-1)
    expected = estimate_all(summed, [Wanted((0, 1), ratio)], resampling=resampling, baseline=0)
    for ours, theirs in zip(found.differences[1:], expected[0].differences[1:], strict=True):
        assert ours is not None
        assert theirs is not None
        np.testing.assert_allclose(ours[:3], theirs[:3], rtol=1e-9)


def test_without_a_baseline_there_are_no_differences() -> None:
    resampling = Resampling(np.arange(N_ITEMS), n_resamples=100, seed=1)
    (found,) = estimate_all(table(np.random.default_rng(0)), WANTED[:1], resampling=resampling)
    assert found.differences == [None] * N_CHECKPOINTS


def test_no_checkpoints_no_numbers() -> None:
    resampling = Resampling(np.zeros(0), n_resamples=100, seed=1)
    found = estimate_all(np.zeros((0, 0, 4)), WANTED, resampling=resampling)
    assert [(one.estimates, one.differences) for one in found] == [([], [])] * len(WANTED)


def test_a_fit_that_ends_at_1_has_a_difference_but_no_interval_of_it() -> None:
    """Its draws may all end there, which would make any difference sure."""
    columns = np.random.default_rng(0).random((N_ITEMS, 3, 1))
    columns[:, 1] = 1.0
    resampling = Resampling(np.arange(N_ITEMS), n_resamples=100, seed=1)

    def mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return counts @ values[:, 0] / counts.sum(axis=1)

    wanted = [Wanted((0,), Refit(mean), proportion=True)]
    (found,) = estimate_all(columns, wanted, resampling=resampling, baseline=0)
    ended, other = found.differences[1:]
    assert ended is not None
    assert ended.value == pytest.approx(1 - columns[:, 0].mean())
    assert np.isnan([ended.low, ended.high]).all()
    assert other is not None
    assert other.low < other.value < other.high
    (found,) = estimate_all(columns, wanted, resampling=resampling, baseline=1)
    assert all(gap is None or np.isnan(gap.low) for gap in found.differences)
