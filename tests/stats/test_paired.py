"""Differences on the same items in every resample."""

import numpy as np
import pytest
from scipy import stats

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Resampling
from prefbench.stats.estimates import estimate
from prefbench.stats.paired import difference, differences


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def perplexity(sums):
    return np.exp(-sums[..., 0] / sums[..., 1])


def with_ones(values):
    values = np.asarray(values, dtype=float)
    return np.stack([values, np.ones_like(values)], axis=-1)


@pytest.fixture
def checkpoints():
    """Five checkpoints on 120 items that are hard or easy for all of them, (120, 5, 2)."""
    rng = np.random.default_rng(0)
    return with_ones(rng.normal(size=(120, 1)) + 0.3 * rng.normal(size=(120, 5)))


@pytest.fixture
def resampling():
    return Resampling(np.arange(120), n_resamples=3000, seed=0)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_a_checkpoint_does_not_differ_from_itself(checkpoints, resampling, method):
    a = checkpoints[:, 0]
    found = difference(a, a, perplexity, resampling=resampling, method=method)
    assert found[:3] == (0, 0, 0)


def test_a_mean_difference_is_the_mean_of_differences(checkpoints, resampling):
    a, b = checkpoints[:, 0], checkpoints[:, 1]
    found = difference(a, b, mean, resampling=resampling)
    one = estimate(with_ones(a[:, 0] - b[:, 0]), mean, resampling=resampling)
    np.testing.assert_allclose(found[:3], one[:3], rtol=1e-10)
    normal = stats.norm.ppf(0.975) * np.std(a[:, 0] - b[:, 0]) / np.sqrt(120)
    assert (found.high - found.low) / 2 == pytest.approx(normal, rel=0.08)


def test_pairing_takes_out_what_items_share(checkpoints, resampling):
    a, b = checkpoints[:, 0], checkpoints[:, 1]
    paired = difference(a, b, mean, resampling=resampling)
    alone = estimate(a, mean, resampling=resampling)
    assert paired.high - paired.low < 0.6 * (alone.high - alone.low)


def test_turning_a_pair_round_turns_the_sign(checkpoints, resampling):
    a, b = checkpoints[:, 0], checkpoints[:, 1]
    found = difference(a, b, mean, resampling=resampling)
    turned = difference(b, a, mean, resampling=resampling)
    np.testing.assert_allclose(turned[:3], [-found.value, -found.high, -found.low], rtol=1e-12)


@pytest.mark.parametrize("missing", [False, True])
def test_many_pairs_equal_each_alone(checkpoints, resampling, missing):
    if missing:
        checkpoints[[4, 17], 1] = checkpoints[9, 3] = np.nan
    pairs = [(0, 1), (3, 2), (4, 0), (1, 3), (2, 2)]
    alone = [
        difference(checkpoints[:, a], checkpoints[:, b], mean, resampling=resampling)
        for a, b in pairs
    ]
    assert differences(checkpoints, pairs, mean, resampling=resampling) == alone
    assert differences(checkpoints, pairs[::-1], mean, resampling=resampling) == alone[::-1]
    assert [found.n_missing for found in alone] == ([2, 1, 0, 3, 0] if missing else [0] * 5)


def test_only_items_both_have_count(checkpoints, resampling):
    a, b = checkpoints[:, 0].copy(), checkpoints[:, 1].copy()
    a[0], b[1] = np.nan, np.nan
    found = difference(a, b, mean, resampling=resampling)
    fresh = Resampling(np.arange(118), n_resamples=3000, seed=0)
    assert found[:3] == difference(a[2:], b[2:], mean, resampling=fresh)[:3]
    assert (found.n, found.n_missing) == (118, 2)


def test_without_common_items_the_difference_is_nan(checkpoints, resampling):
    a, b = checkpoints[:, 0].copy(), checkpoints[:, 1].copy()
    a[:60], b[60:] = np.nan, np.nan
    found = difference(a, b, mean, resampling=resampling)
    assert np.isnan(found[:3]).all()
    assert found[3:6] == (0, 120, "none")


def test_coverage_of_a_paired_difference():
    rng = np.random.default_rng(1)
    n, n_simulated = 120, 800
    easy = rng.random((n, n_simulated))
    values = [rng.random((n, n_simulated)) < easy ** (1 / power) for power in (1.5, 1.0)]
    truth = 1.5 / 2.5 - 1 / 2
    columns = with_ones(np.concatenate(values, axis=1))
    pairs = [(i, i + n_simulated) for i in range(n_simulated)]
    draws = Resampling(np.arange(n), n_resamples=2000, seed=0)
    found = differences(columns, pairs, mean, resampling=draws)
    covered = np.mean([low <= truth <= high for _, low, high, *_ in found])
    assert covered == pytest.approx(0.95, abs=0.025)


def test_no_pairs_no_differences(checkpoints, resampling):
    assert differences(checkpoints, [], mean, resampling=resampling) == []


def test_message(checkpoints, resampling):
    with pytest.raises(InputError, match=r"\(120, 2\) and b \(119, 2\): give both every item"):
        difference(checkpoints[:, 0], checkpoints[1:, 1], mean, resampling=resampling)


def test_a_perplexity_of_heavy_tails_is_told_apart_in_logarithms():
    """The counted share is the same; the fitted tail is no longer stretched by the exponential."""
    rng = np.random.default_rng(5)
    spread = rng.normal(2.0, 2.5, 200)
    columns = np.stack(
        [np.stack([-(spread + shift), np.ones(200)], axis=1) for shift in (0.0, 0.35)], axis=1
    )
    columns[:, 1, 0] += rng.normal(0, 0.6, 200)

    def perplexity(sums):
        return np.exp(-sums[..., 0] / sums[..., 1])

    draws = Resampling(np.arange(200), n_resamples=2000, seed=0)
    plain, logs = (
        differences(columns, [(0, 1)], perplexity, resampling=draws, in_logs=in_logs)[0]
        for in_logs in (False, True)
    )
    assert plain[:6] == logs[:6]
    assert logs.p < plain.p / 10


def test_logarithms_change_no_p_value_that_is_counted():
    rng = np.random.default_rng(6)
    columns = np.stack([-rng.gamma(2, 1, (80, 2)), np.ones((80, 2))], axis=-1)
    draws = Resampling(np.arange(80), n_resamples=2000, seed=0)

    def perplexity(sums):
        return np.exp(-sums[..., 0] / sums[..., 1])

    plain, logs = (
        differences(columns, [(0, 1)], perplexity, resampling=draws, in_logs=in_logs)[0]
        for in_logs in (False, True)
    )
    assert plain == logs
    assert plain.p > 0.01
