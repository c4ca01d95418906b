"""One resampling for all checkpoints: the draws, the sums, the intervals."""

import numpy as np
import pytest
from scipy import stats

from prefbench.errors import InputError
from prefbench.stats import bootstrap
from prefbench.stats.bootstrap import (
    Refit,
    Resampling,
    bca_interval,
    cluster_counts,
    percentile_interval,
)


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def perplexity(sums):
    return np.exp(-sums[..., 0] / sums[..., 1])


def fitted_mean(columns, counts):
    """`mean` as a fit."""
    return (counts @ columns[:, 0]) / (counts @ columns[:, 1])


def median(columns, counts):
    """Of the first column, an item counted as often as it is drawn: no function of sums."""
    order = np.argsort(columns[:, 0])
    below = np.cumsum(counts[:, order], axis=1)
    at = np.argmax(below >= below[:, -1:] / 2, axis=1)
    return columns[order[at], 0]


def skewed(n, seed=0):
    """Log-probs and token counts of n documents, (n, 2)."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 200, n)
    return np.stack([-tokens * rng.gamma(2.0, 0.8, n), tokens], axis=1)


def test_counts_are_a_bootstrap_sample():
    counts = np.concatenate(
        list(cluster_counts(30, n_resamples=4000, rng=np.random.default_rng(0)))
    )
    assert counts.shape == (4000, 30)
    assert (counts.sum(axis=1) == 30).all()
    # A multinomial's moments: mean 1, variance 1 − 1/n, covariance −1/n.
    covariance = np.cov(counts.T)
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.07)
    np.testing.assert_allclose(np.diag(covariance), 1 - 1 / 30, atol=0.12)
    off_diagonal = covariance[~np.eye(30, dtype=bool)]
    assert off_diagonal.mean() == pytest.approx(-1 / 30, abs=0.003)


@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_chunks_do_not_change_the_draws(chunk):
    def drawn(chunk):
        rng = np.random.default_rng(5)
        return np.concatenate(list(cluster_counts(13, n_resamples=100, rng=rng, chunk=chunk)))

    np.testing.assert_array_equal(drawn(chunk), drawn(None))


def test_sums_are_those_of_the_resampled_items():
    columns, clusters = skewed(60), np.repeat(np.arange(20), 3)
    resampling = Resampling(clusters, n_resamples=50, seed=1)
    counts = np.concatenate(list(cluster_counts(20, n_resamples=50, rng=np.random.default_rng(1))))
    by_item = counts[:, clusters]
    np.testing.assert_allclose(resampling.sums(columns), by_item @ columns, rtol=1e-12)


def test_clusters_may_be_labels_in_any_order():
    columns = skewed(60)
    numbers = np.random.default_rng(0).integers(0, 9, 60)
    labels = np.array([f"passage {number}" for number in numbers])
    by_number = Resampling(numbers, n_resamples=40, seed=0)
    shuffle = np.random.default_rng(1).permutation(60)
    by_label = Resampling(labels[shuffle], n_resamples=40, seed=0)
    np.testing.assert_array_equal(by_number.sums(columns), by_label.sums(columns[shuffle]))


def test_a_checkpoint_has_the_same_bits_in_any_company_and_order():
    resampling = Resampling(np.arange(301), n_resamples=500, seed=3)
    columns = np.stack([skewed(301, seed) for seed in range(11)], axis=1)
    alone = np.concatenate(
        [resampling.replicate(columns[:, [c]], perplexity).resampled for c in range(11)], axis=1
    )
    for order in (np.arange(11), np.arange(11)[::-1], [10, 2, 5]):
        together = resampling.replicate(columns[:, order], perplexity)
        np.testing.assert_array_equal(together.resampled, alone[:, order])


def test_the_order_of_addition_does_not_matter():
    # One large item makes naive float64 sums depend on the order.
    columns = np.concatenate([[[1e9]], np.random.default_rng(0).normal(size=(500, 1))])
    resampling = Resampling(np.zeros(501), n_resamples=1, seed=0)
    sums = {
        float(resampling.by_cluster(columns[np.random.default_rng(seed).permutation(501)])[0, 0])
        for seed in range(20)
    }
    assert len(sums) == 1
    assert sums.pop() == pytest.approx(columns.sum(), rel=1e-12)


def test_extreme_columns_are_summed_too():
    resampling = Resampling(np.arange(4), n_resamples=3, seed=0)
    np.testing.assert_array_equal(resampling.sums(np.zeros((4, 1))), np.zeros((3, 1)))
    np.testing.assert_array_equal(resampling.sums(np.full((4, 1), 5e-324)), np.zeros((3, 1)))
    np.testing.assert_allclose(resampling.sums(np.full((4, 1), 1e300)), 4e300)


def test_whole_numbers_stay_whole():
    resampling = Resampling(np.arange(1000), n_resamples=10, seed=0)
    columns = np.stack([np.arange(1000) % 2, np.ones(1000)], axis=1)
    assert resampling.replicate(columns, mean).value == 0.5
    sums = resampling.sums(columns)
    np.testing.assert_array_equal(sums, np.rint(sums))


def test_jackknife_leaves_one_cluster_out():
    columns, clusters = skewed(12), np.repeat(np.arange(4), 3)
    jackknife = Resampling(clusters, n_resamples=1, seed=0).replicate(columns, perplexity).jackknife
    expected = [perplexity(columns[clusters != left].sum(axis=0)) for left in range(4)]
    np.testing.assert_allclose(jackknife, expected, rtol=1e-12)


def test_nothing_is_held_for_every_item_and_resample():
    import tracemalloc

    columns = np.ones((20_000, 2))
    resampling = Resampling(np.arange(20_000), n_resamples=1000, seed=0)
    tracemalloc.start()
    resampling.sums(columns)
    resampling.refit(columns, fitted_mean, jackknife=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 1000 * 8 / 3


def test_a_fit_to_sums_is_their_statistic():
    columns = np.stack([skewed(60, seed) for seed in range(3)], axis=1)
    resampling = Resampling(np.arange(60) % 20, n_resamples=200, seed=1)
    fitted = resampling.refit(columns, fitted_mean)
    summed = resampling.replicate(columns, mean)
    for ours, theirs in zip(fitted, summed, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_fit_is_to_the_resampled_items():
    columns, clusters = skewed(60), np.random.default_rng(0).integers(0, 9, 60)
    resampling = Resampling(clusters, n_resamples=50, seed=1)
    value, resampled, jackknife = resampling.refit(columns, median)
    counts = np.concatenate(list(cluster_counts(9, n_resamples=50, rng=np.random.default_rng(1))))

    def lower_median(rows):
        return np.quantile(rows[:, 0], 0.5, method="inverted_cdf")

    drawn = [columns[np.repeat(np.arange(60), row[clusters])] for row in counts]
    np.testing.assert_array_equal(resampled, [lower_median(rows) for rows in drawn])
    left = [lower_median(columns[clusters != cluster]) for cluster in range(9)]
    np.testing.assert_array_equal(jackknife, left)
    assert value == lower_median(columns)


@pytest.mark.parametrize("n_cells", [1, 100, 1 << 20])
def test_chunks_do_not_change_a_fit(n_cells, monkeypatch):
    resampling = Resampling(np.arange(40) // 2, n_resamples=30, seed=3)
    expected = resampling.refit(skewed(40), median)
    monkeypatch.setattr(bootstrap, "N_FITTED", n_cells)
    for ours, theirs in zip(resampling.refit(skewed(40), median), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_jackknife_that_nobody_needs_is_not_fitted():
    resampling = Resampling(np.arange(40) // 2, n_resamples=5, seed=0)
    n_fitted = []

    def fit(columns, counts):
        n_fitted.append(len(counts))
        return median(columns, counts)

    quick = resampling.replicate(skewed(40), Refit(fit), jackknife=False)
    assert sum(n_fitted) == 1 + 5
    assert quick.jackknife.shape == (20,)
    assert np.isnan(quick.jackknife).all()
    whole = resampling.replicate(skewed(40), Refit(fit))
    assert sum(n_fitted) == 1 + 5 + 1 + 5 + 20
    np.testing.assert_array_equal(quick.resampled, whole.resampled)


def test_without_items_nothing_is_fitted():
    empty = Resampling(np.zeros(0), n_resamples=7, seed=0)
    found = empty.refit(np.zeros((0, 3, 2)), lambda columns, counts: pytest.fail("fitted"))
    assert [part.shape for part in found] == [(3,), (7, 3), (0, 3)]
    assert np.isnan(found.resampled).all()


@pytest.mark.parametrize("statistic", [mean, perplexity])
def test_percentile_agrees_with_scipy(statistic):
    columns = skewed(200)
    _, resampled, _ = Resampling(np.arange(200), n_resamples=9999, seed=0).replicate(
        columns, statistic
    )
    check_against_scipy(columns, statistic, percentile_interval(resampled, confidence=0.9))


@pytest.mark.parametrize("statistic", [mean, perplexity])
def test_bca_agrees_with_scipy(statistic):
    columns = skewed(200)
    replicates = Resampling(np.arange(200), n_resamples=9999, seed=0).replicate(columns, statistic)
    check_against_scipy(columns, statistic, bca_interval(*replicates, confidence=0.9), "BCa")


def check_against_scipy(columns, statistic, bounds, method="percentile"):
    """Bounds within four Monte Carlo errors of scipy's, from other draws."""

    def of_rows(first, second, axis):
        return statistic(np.stack([first.sum(axis=axis), second.sum(axis=axis)], axis=-1))

    theirs = stats.bootstrap(
        (columns[:, 0], columns[:, 1]),
        of_rows,
        paired=True,
        vectorized=True,
        n_resamples=9999,
        batch=500,
        method=method,
        confidence_level=0.9,
        rng=np.random.default_rng(99),
    )
    # Error of a 5 % quantile: √(p(1−p)/B) over the density, of a normal here; two such errors.
    density = stats.norm.pdf(stats.norm.ppf(0.05)) / theirs.standard_error
    error = np.sqrt(2 * 0.05 * 0.95 / 9999) / density
    np.testing.assert_allclose(bounds, theirs.confidence_interval, atol=4 * error)


def test_bca_is_the_formula_given_the_same_replicates():
    replicates = Resampling(np.arange(80), n_resamples=2000, seed=0).replicate(
        skewed(80), perplexity
    )
    value, resampled, jackknife = replicates
    below = (np.sum(resampled < value) + np.sum(resampled <= value)) / (2 * 2000)
    z0 = stats.norm.ppf(below)
    deviation = 79 * (jackknife.mean() - jackknife)
    a = np.sum(deviation**3) / (6 * np.sum(deviation**2) ** 1.5)
    z = z0 + stats.norm.ppf([0.025, 0.975])
    levels = stats.norm.cdf(z0 + z / (1 - a * z))
    expected = np.quantile(resampled, levels)
    assert abs(a) > 0.01
    np.testing.assert_allclose(bca_interval(*replicates, confidence=0.95), expected, rtol=1e-12)


def test_bca_of_a_symmetric_case_is_the_percentile_interval():
    resampled = np.linspace(-3, 3, 1001)
    jackknife = np.linspace(-1, 1, 21)
    np.testing.assert_allclose(
        bca_interval(0.0, resampled, jackknife, confidence=0.9),
        percentile_interval(resampled, confidence=0.9),
        atol=1e-12,
    )


@pytest.mark.parametrize(
    ("value", "resampled", "jackknife"),
    [
        (1.0, np.ones(50), np.ones(9)),
        (9.0, np.linspace(0, 1, 50), np.linspace(0, 1, 9)),
        (0.5, np.linspace(0, 1, 50), np.ones(9)),
        (0.5, np.array([0.0, np.nan, 1.0]), np.linspace(0, 1, 9)),
        (0.5, np.linspace(0, 1, 50), np.array([0.0, np.inf, 1.0])),
    ],
    ids=["no spread", "one side", "no influence", "undefined replicate", "undefined jackknife"],
)
def test_bca_is_nan_where_undefined(value, resampled, jackknife):
    assert np.isnan(bca_interval(value, resampled, jackknife, confidence=0.95)).all()


def test_bca_is_nan_where_the_acceleration_is_too_strong():
    # One of very many clusters decides everything: a is close to 1/6, its largest, and z above 6.
    jackknife = np.array([-1.0] + [0.0] * 1000)
    bounds = bca_interval(0.5, np.linspace(0, 1, 50), jackknife, confidence=1 - 1e-10)
    assert np.isnan(bounds).all()


def test_percentile_is_nan_where_a_replicate_is_undefined():
    assert np.isnan(percentile_interval(np.array([1.0, np.inf]), confidence=0.95)).all()


def test_only_some_items_keep_their_seed():
    whole = Resampling(np.repeat(np.arange(5), 2), n_resamples=20, seed=4)
    rows = np.arange(10) < 6
    columns = skewed(10)
    again = Resampling(np.repeat(np.arange(3), 2), n_resamples=20, seed=4)
    np.testing.assert_array_equal(whole.only(rows).sums(columns[rows]), again.sums(columns[rows]))
    assert whole.only(np.ones(10, dtype=bool)) is whole


def test_messages():
    with pytest.raises(InputError, match=r"clusters must be \(n_items,\), not \(2, 2\)"):
        Resampling(np.zeros((2, 2)), seed=0)
    with pytest.raises(InputError, match="n_resamples must be at least 1, not 0"):
        Resampling(np.zeros(2), n_resamples=0, seed=0)
    resampling = Resampling(np.arange(3), n_resamples=5, seed=0)
    with pytest.raises(InputError, match="2 rows of columns for 3 items"):
        resampling.sums(np.zeros((2, 1)))
    with pytest.raises(InputError, match="NaN or infinity"):
        resampling.sums(np.array([[0.0], [np.nan], [1.0]]))
    with pytest.raises(InputError, match="NaN or infinity"):
        resampling.refit(np.array([[0.0], [np.inf], [1.0]]), median)
