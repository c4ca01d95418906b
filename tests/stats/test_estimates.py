"""From columns of per-item numbers to a value with its interval."""

import warnings

import numpy as np
import pytest
from scipy import stats

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Resampling
from prefbench.stats.estimates import estimate, estimates, wilson_interval
from prefbench.stats.shared import Wanted, estimate_all


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def perplexity(sums):
    return np.exp(-sums[..., 0] / sums[..., 1])


def agility(sums):
    """CE⁻ − CE⁺ from rejected and chosen log-probs and their token counts."""
    rejected, n_rejected, chosen, n_chosen = np.moveaxis(sums, -1, 0)
    return chosen / n_chosen - rejected / n_rejected


def with_ones(values):
    values = np.asarray(values, dtype=float)
    return np.stack([values, np.ones_like(values)], axis=-1)


def items(n, **settings):
    return Resampling(np.arange(n), **{"n_resamples": 2000, "seed": 0, **settings})


def test_value_and_interval_of_a_mean():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    found = estimate(with_ones(values), mean, resampling=items(400, n_resamples=10_000))
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    half = stats.norm.ppf(0.975) * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.03 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03 * half)
    assert (found.n, found.n_missing, found.method) == (400, 0, "percentile")


def test_confidence_widens_the_interval():
    columns = with_ones(np.random.default_rng(0).normal(size=100))
    narrow, wide = (
        estimate(columns, mean, resampling=items(100), confidence=level) for level in (0.5, 0.99)
    )
    assert wide.low < narrow.low < narrow.high < wide.high


def test_many_checkpoints_equal_each_alone():
    rng = np.random.default_rng(0)
    columns = with_ones(rng.normal(size=(90, 6)))
    columns[3, 2] = columns[3, 4] = columns[7, 5] = np.nan
    resampling = items(90)
    alone = [estimate(columns[:, c], mean, resampling=resampling) for c in range(6)]
    assert estimates(columns, mean, resampling=resampling) == alone
    assert estimates(columns[:, ::-1], mean, resampling=resampling) == alone[::-1]
    assert [found.n_missing for found in alone] == [0, 0, 1, 0, 1, 1]


def test_missing_items_are_left_out_and_counted():
    values = np.array([1.0, np.nan, 0.0, 1.0, np.nan])
    found = estimate(with_ones(values), mean, resampling=items(5), n_missing=10)
    assert found.value == pytest.approx(2 / 3)
    assert (found.n, found.n_missing) == (3, 12)
    assert found[:3] == estimate(with_ones([1, 0, 1]), mean, resampling=items(3))[:3]


def test_clusters_widen_the_interval_of_repeated_items():
    values = np.random.default_rng(0).integers(0, 2, 50)
    repeated = with_ones(np.repeat(values, 4))
    clustered = Resampling(np.repeat(np.arange(50), 4), n_resamples=2000, seed=0)
    once = estimate(with_ones(values), mean, resampling=items(50))
    assert estimate(repeated, mean, resampling=clustered)[:3] == once[:3]
    as_rows = estimate(repeated, mean, resampling=items(200))
    assert (as_rows.high - as_rows.low) < 0.6 * (once.high - once.low)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_proportion_at_its_end_has_wilsons_interval_over_clusters(value):
    clustered = Resampling(np.repeat(np.arange(20), 5), n_resamples=100, seed=0)
    found = estimate(with_ones(np.full(100, value)), mean, resampling=clustered, proportion=True)
    assert found[:6] == (value, *wilson_interval(20 * value, 20, 0.95), 100, 0, "wilson")
    assert found.low < found.high


def test_a_mean_without_spread_has_no_width():
    found = estimate(with_ones(np.full(30, 0.1)), mean, resampling=items(30))
    assert found.low == found.value == found.high == pytest.approx(0.1)
    assert found.method == "percentile"


def test_only_ties_are_a_share_without_spread():
    found = estimate(with_ones(np.full(30, 0.5)), mean, resampling=items(30), proportion=True)
    assert found[:3] == (0.5, 0.5, 0.5)


def test_one_cluster_has_a_value_and_no_interval():
    one = Resampling(np.zeros(6), n_resamples=10, seed=0)
    found = estimate(with_ones([0, 0, 1, 1, 1, 1]), mean, resampling=one, method="bca")
    assert found.value == pytest.approx(4 / 6)
    assert np.isnan(found[1:3]).all()
    assert (found.n, found.method) == (6, "none")


@pytest.mark.parametrize("n", [0, 3])
def test_without_items_the_value_is_nan(n):
    found = estimate(with_ones(np.full(n, np.nan)), mean, resampling=items(n), proportion=True)
    assert np.isnan(found[:3]).all()
    assert found[3:6] == (0, n, "none")


def test_values_near_the_largest_float_have_an_interval_and_give_no_warning():
    columns = with_ones(-np.random.default_rng(0).gamma(4.0, 100.0, 50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = estimate(columns, perplexity, resampling=items(50))
    assert np.isfinite(found.low)
    assert found.se > 1e154  # or infinite: its square fits no float


def test_a_statistic_undefined_in_some_resamples_has_no_interval():
    columns = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    found = estimate(columns, mean, resampling=items(3))
    assert found.value == 1
    assert np.isnan(found[1:3]).all()
    assert found.method == "none"


def test_bca_is_used_and_says_where_it_is_not():
    columns = with_ones(np.random.default_rng(0).exponential(size=40))
    found = estimate(columns, mean, resampling=items(40), method="bca")
    plain = estimate(columns, mean, resampling=items(40))
    assert found.method == "bca"
    assert found.low > plain.low
    assert found.high > plain.high
    flat = estimate(with_ones(np.ones(40)), mean, resampling=items(40), method="bca")
    assert flat[1:3] == (1, 1)
    assert flat.method == "percentile, bca undefined"


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 10), (150, 400), (1, 1)])
def test_wilson_agrees_with_scipy(successes, n):
    theirs = stats.binomtest(successes, n).proportion_ci(0.9, method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, n, 0.9), theirs, atol=1e-12)


def test_wilson_without_trials_is_nan():
    assert np.isnan(wilson_interval(0, 0, 0.95)).all()


def test_messages():
    columns = with_ones([0, 1])
    with pytest.raises(InputError, match="confidence must lie between 0 and 1, not 95"):
        estimate(columns, mean, resampling=items(2), confidence=95)
    with pytest.raises(InputError, match="must be percentile or bca, not 'normal'"):
        estimate(columns, mean, resampling=items(2), method="normal")


# Coverage: each simulated data set is one checkpoint of the same resampling.

N_SIMULATED = 1500


def coverage(columns, statistic, truth, resampling, **settings):
    found = estimates(columns, statistic, resampling=resampling, **settings)
    return np.mean([low <= truth <= high for _, low, high, *_ in found])


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_coverage_of_an_accuracy(share, method):
    values = np.random.default_rng(1).random((100, N_SIMULATED)) < share
    covered = coverage(with_ones(values), mean, share, items(100), method=method)
    assert covered == pytest.approx(0.95, abs=0.025)


def test_coverage_of_clustered_items_needs_clusters():
    rng = np.random.default_rng(2)
    passages = rng.normal(size=(80, 1, N_SIMULATED))
    values = with_ones((passages + rng.normal(size=(80, 5, N_SIMULATED))).reshape(400, -1))
    clustered = Resampling(np.repeat(np.arange(80), 5), n_resamples=2000, seed=0)
    assert coverage(values, mean, 0.0, clustered) == pytest.approx(0.95, abs=0.025)
    assert coverage(values, mean, 0.0, items(400)) == pytest.approx(0.74, abs=0.06)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_coverage_of_a_perplexity(method):
    rng = np.random.default_rng(3)
    tokens = rng.integers(20, 200, (150, N_SIMULATED)).astype(float)
    logps = -tokens * rng.gamma(20, 0.1, tokens.shape)  # 2 nats a token
    columns = np.stack([logps, tokens], axis=-1)
    covered = coverage(columns, perplexity, np.exp(2.0), items(150), method=method)
    assert covered == pytest.approx(0.95, abs=0.025)


def test_coverage_of_an_agility():
    rng = np.random.default_rng(4)
    prompts = rng.normal(0, 0.5, (150, N_SIMULATED))  # makes both texts of a pair go together
    columns = []
    for nats in (2.5, 2.0):
        tokens = rng.integers(10, 80, prompts.shape).astype(float)
        columns += [-tokens * (nats + prompts + rng.normal(0, 0.3, prompts.shape)), tokens]
    covered = coverage(np.stack(columns, axis=-1), agility, 0.5, items(150))
    assert covered == pytest.approx(0.95, abs=0.025)


def test_a_share_of_some_items_at_an_end_is_as_wide_as_these_are_few():
    """The others count 0 in the denominator: they tell nothing of the share."""
    inside = np.repeat([1.0, 0.0], [9, 91])
    clusters = np.arange(100)
    resampling = Resampling(clusters, n_resamples=500, seed=0)
    columns = np.stack([inside, inside], axis=1)  # all nine
    with np.errstate(invalid="ignore"):
        found = estimate(columns, mean, resampling=resampling, proportion=True)
        [together] = estimate_all(
            columns[:, None], [Wanted((0, 1), mean, proportion=True)], resampling=resampling
        )
    low, high = wilson_interval(9, 9, 0.95)
    for one in (found, together.estimates[0]):
        assert (one.value, one.low, one.high, one.method) == (1.0, low, high, "wilson")
    assert low < 0.75
