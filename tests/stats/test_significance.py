"""p-values beside other implementations and under true nulls; what finding a difference takes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar

from prefbench.stats.bootstrap import Resampling, percentile_interval
from prefbench.stats.significance import FEW, bootstrap_p, detectable, items_needed, mcnemar


def means(values, n_resamples, seed=0):
    """Means of columns (n_items, n), with their replicates."""
    draws = Resampling(np.arange(len(values)), n_resamples=n_resamples, seed=seed)
    return values.mean(axis=0), draws.sums(values) / len(values)


def test_below_alpha_where_the_percentile_interval_leaves_out_0():
    rng = np.random.default_rng(0)
    n_resamples = 4000
    value, draws = means(rng.normal(0.15, 1, (60, 200)), n_resamples)
    p = bootstrap_p(value, draws, 60)
    for confidence in (0.95, 0.99):
        bounds = [percentile_interval(draws[:, i], confidence=confidence) for i in range(200)]
        out = np.array([low > 0 or high < 0 for low, high in bounds])
        # Quantiles lie between two replicates: one more or less does not count.
        clear = np.abs(p - (1 - confidence)) > 2 / n_resamples
        assert 10 < out.sum() < 190
        np.testing.assert_array_equal((p < 1 - confidence)[clear], out[clear])


@settings(deadline=None)
@given(
    numbers=st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    n_clusters=st.integers(2, 200),
)
def test_the_sign_of_a_difference_does_not_matter(numbers, n_clusters):
    rng = np.random.default_rng(0)
    value = np.asarray(numbers)
    draws = value + 0.3 * rng.normal(size=(500, 3))
    p = bootstrap_p(value, draws, n_clusters)
    np.testing.assert_array_equal(p, bootstrap_p(-value, -draws, n_clusters))
    assert ((p >= min(1, 2.0 ** (1 - n_clusters))) & (p <= 1)).all()


def test_no_difference_at_all():
    assert bootstrap_p(0.0, np.zeros(100), 50) == 1


def test_a_difference_that_every_item_has_is_as_sure_as_its_sign():
    assert bootstrap_p(0.25, np.full(100, 0.25), 6) == 2**-5
    assert bootstrap_p(-0.25, np.full(100, -0.25), 60) == 2**-59


def test_five_clusters_never_show_a_difference_at_five_percent():
    # Four large differences and a small one the other way: six in a thousand replicates beyond 0,
    # which says more than the signs of five clusters can.
    value, draws = means(np.array([[1.0], [1.0], [1.0], [1.0], [-0.5]]), 10_000)
    assert FEW < (draws <= 0).sum() < 100
    assert bootstrap_p(value, draws, 5) == 2**-4


def test_undefined_where_a_replicate_or_the_spread_is():
    draws = np.array([[0.1, 0.2], [np.nan, 0.3], [0.2, 0.1]])
    p = bootstrap_p(np.array([0.1, 0.2]), draws, 10)
    assert np.isnan(p[0])
    assert p[1] > 0
    assert np.isnan(bootstrap_p(np.array([0.1, 0.2]), draws, 1)).all()
    assert np.isnan(bootstrap_p(np.inf, np.full(3, 0.1), 10))


def test_the_far_tail_is_student_s():
    rng = np.random.default_rng(0)
    values = rng.normal(0.7, 1, (40, 50))
    value, draws = means(values, 10_000)
    theirs = ttest_1samp(values, 0).pvalue
    far = theirs < 1e-3
    assert far.sum() > 20
    # The bootstrap's standard error varies by a hundredth.
    np.testing.assert_allclose(
        np.log(bootstrap_p(value, draws, 40)[far]), np.log(theirs[far]), rtol=0.04
    )


def test_no_jump_where_the_tail_begins():
    rng = np.random.default_rng(0)
    draws = np.sort(rng.normal(1, 1 / 3, 10_000))
    counts = range(FEW - 3, FEW + 3)
    p = [float(bootstrap_p(1 - at, draws - at, 10**6)) for at in (draws[k - 1] for k in counts)]
    assert p == sorted(p)
    assert p[-1] / p[0] < 3


def of_accuracies(rng, n, n_simulated):
    """Two equal checkpoints of graded answers, 0, ½ or 1, on items that are hard or easy."""
    hard = rng.random((n, n_simulated))
    one, other = (rng.binomial(2, hard) / 2 for _ in range(2))
    return one - other


def of_skewed(rng, n, n_simulated):
    """Differences of logs of gamma variables: long tails, either way."""
    one, other = (np.log(rng.gamma(0.5, 1, (n, n_simulated))) for _ in range(2))
    return one - other


def of_clusters(rng, n, n_simulated):
    """Sums of clusters of one to eight items, which have much in common."""
    size = rng.integers(1, 9, (n, n_simulated))
    one, other = (rng.binomial(size, rng.random((n, n_simulated))) for _ in range(2))
    return (one - other).astype(float)


@pytest.mark.parametrize("kind", [of_accuracies, of_skewed, of_clusters])
@pytest.mark.parametrize(("n", "most"), [(20, 1.8), (50, 1.5), (200, 1.35)])
def test_rates_under_a_true_null(kind, n, most):
    """What the docstring states: near α, above it with few clusters."""
    rng = np.random.default_rng(n)
    n_simulated = 2000
    p = bootstrap_p(*means(kind(rng, n, n_simulated), 2000), n)
    for alpha in (0.05, 0.1, 0.5):
        error = 3 * math.sqrt(alpha * (1 - alpha) / n_simulated)
        assert np.mean(p < alpha) < alpha * (most if alpha < 0.5 else 1.1) + error
        assert np.mean(p < alpha) > 0.7 * alpha - error
    # The tail, of which corrected comparisons live, is fitted.
    tail = np.mean(bootstrap_p(*means(kind(rng, n, 20_000), 100), n) < 0.002)
    assert tail < 0.002 * 2 + 3 * math.sqrt(0.002 / 20_000)


def test_the_price_of_skewed_differences():
    """Between checkpoints that are equal on average but differ by rare large steps, both ways."""
    rng = np.random.default_rng(0)
    p = bootstrap_p(*means(rng.gamma(1, 1, (20, 4000)) - 1, 2000), 20)
    assert 0.06 < np.mean(p < 0.05) < 0.12


@settings(deadline=None)
@given(first=st.integers(0, 60), second=st.integers(0, 60))
def test_mcnemar_as_scipy_and_statsmodels(first, second):
    p = mcnemar(first, second)
    if first + second:
        assert p == pytest.approx(binomtest(first, first + second).pvalue)
        theirs = their_mcnemar([[30, first], [second, 20]], exact=True)
        assert p == pytest.approx(float(theirs.pvalue))
    else:
        assert p == 1


def test_mcnemar_by_hand():
    np.testing.assert_allclose(mcnemar([5, 0, 1, 8], [0, 6, 7, 8]), [2 / 32, 2 / 64, 18 / 256, 1])


def test_mcnemar_keeps_its_level():
    rng = np.random.default_rng(0)
    for n in (10, 40, 160):
        first = rng.binomial(n, 0.5, 20_000)
        p = mcnemar(first, n - first)
        for alpha in (0.05, 0.01):
            assert np.mean(p <= alpha) < alpha + 3 * math.sqrt(alpha / 20_000)


def test_detectable_is_2_8_standard_errors_at_five_percent():
    assert detectable(0.01, alpha=0.05) == pytest.approx(0.01 * (1.959964 + 0.841621))
    assert detectable(0.01, alpha=0.05 / 300) > detectable(0.01, alpha=0.05)
    assert detectable(0.01, alpha=0.05, power=0.9) > detectable(0.01, alpha=0.05)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 300])
def test_what_is_detectable_is_found_in_four_of_five_repetitions(alpha):
    rng = np.random.default_rng(0)
    n, deviation = 150, 0.4
    gap = detectable(deviation / math.sqrt(n), alpha=alpha)
    p = bootstrap_p(*means(rng.normal(gap, deviation, (n, 1500)), 1000), n)
    assert np.mean(p < alpha) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 100])
def test_with_the_items_that_are_needed_four_of_five_repetitions_find_it(alpha):
    rng = np.random.default_rng(0)
    gap, deviation, n = 0.1, 0.6, 80
    more = items_needed(gap, deviation / math.sqrt(n), n, alpha=alpha)
    assert more > 100
    p = bootstrap_p(*means(rng.normal(gap, deviation, (n + int(more), 1000)), 1000), n + int(more))
    assert np.mean(p < alpha) == pytest.approx(0.8, abs=0.05)


def test_items_needed_at_the_ends():
    assert items_needed(0.1, 0.01, 100, alpha=0.05) == 0
    assert items_needed(-0.1, 0.01, 100, alpha=0.05) == 0
    assert items_needed(0.1, 0.0, 100, alpha=0.05) == 0
    assert items_needed(0.0, 0.01, 100, alpha=0.05) == math.inf
    assert math.isnan(items_needed(0.1, math.nan, 100, alpha=0.05))
    assert math.isnan(items_needed(math.nan, 0.1, 100, alpha=0.05))
    assert math.isnan(items_needed(0.1, 0.01, 0, alpha=0.05))
    # A quarter of the items that are needed: three times as many again.
    gap = detectable(0.01, alpha=0.05) / 2
    assert items_needed(gap, 0.01, 100, alpha=0.05) in (300, 301)
