"""Each two checkpoints at once, beside each two alone."""

from itertools import combinations

import numpy as np
import pytest

from prefbench.stats.bootstrap import Replicates, Resampling
from prefbench.stats.paired import differences, exact_p
from prefbench.stats.pairs import MANY, pairs_of

N = 60


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def perplexity(sums):
    return np.exp(-sums[..., 0] / sums[..., 1])


def columns(k, seed=0, *, right=False):
    """Numbers of k checkpoints on items that are hard or easy for all, and ones, (N, k, 2)."""
    rng = np.random.default_rng(seed)
    hard = rng.random((N, 1))
    values = (rng.random((N, k)) < hard) if right else hard + 0.4 * rng.normal(size=(N, k))
    return np.stack([values.astype(float), np.ones((N, k))], axis=-1)


def compared(table, statistic=mean, clusters=None, *, exact=False):
    draws = Resampling(np.arange(N) if clusters is None else clusters, n_resamples=400, seed=0)
    k = table.shape[1]
    found = pairs_of(
        draws.replicate(table, statistic),
        members=tuple(range(k)),
        n=N,
        n_clusters=draws.n_clusters,
        exact=exact_p(table, draws) if exact else None,
    )
    return found, draws


@pytest.mark.parametrize("statistic", [mean, perplexity])
@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("clusters", [None, np.arange(N) // 3])
def test_equal_to_the_differences_of_each_two(statistic, right, clusters):
    table = columns(5, right=right)
    found, draws = compared(table, statistic, clusters, exact=right)
    both = [(i, j) for i in range(5) for j in range(5) if i != j]
    alone = differences(table, both, statistic, resampling=draws, proportion=right)
    for (i, j), one in zip(both, alone, strict=True):
        assert found.differences[i, j] == one.value
        assert found.se[i, j] == pytest.approx(one.se, rel=1e-9)
        assert found.p[i, j] == pytest.approx(one.p, rel=1e-9)
    for part in (found.differences, found.se, found.p):
        assert np.isnan(np.diag(part)).all()
    assert len(set(found.p[np.triu_indices(5, 1)])) > 3


def test_mcnemar_takes_the_place_of_the_bootstrap_where_items_are_right_or_wrong():
    table = columns(4, right=True)
    by_draws, draws = compared(table)
    by_counting, _ = compared(table, exact=True)
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_array_equal(by_counting.p[off], exact_p(table, draws)[off])
    assert (by_counting.p[off] != by_draws.p[off]).any()
    np.testing.assert_array_equal(by_counting.se, by_draws.se)


def test_equal_checkpoints_do_not_differ():
    table = columns(1).repeat(3, axis=1)
    found, _ = compared(table)
    off = ~np.eye(3, dtype=bool)
    assert (found.differences[off] == 0).all()
    assert (found.se[off] == 0).all()
    assert (found.p[off] == 1).all()


def test_of_many_only_the_ends_are_compared():
    k = MANY + 1
    table = columns(k)
    found, draws = compared(table)
    values = table[..., 0].mean(axis=0)
    low, high = int(values.argmin()), int(values.argmax())
    there = ~np.isnan(found.p)
    expected = np.zeros((k, k), dtype=bool)
    expected[[low, high]] = expected[:, [low, high]] = True
    np.fill_diagonal(expected, False)
    np.testing.assert_array_equal(there, expected)
    np.testing.assert_array_equal(found.p, found.p.T)
    np.testing.assert_array_equal(found.differences[expected], -found.differences.T[expected])
    both = [(i, low) for i in range(k) if i != low] + [(high, low)]
    for (i, j), one in zip(both, differences(table, both, mean, resampling=draws), strict=True):
        assert found.differences[i, j] == one.value
        assert found.p[i, j] == pytest.approx(one.p, rel=1e-9)
    full, _ = compared(table[:, :MANY])
    assert not np.isnan(full.p[np.triu_indices(MANY, 1)]).any()


def test_many_right_or_wrong():
    found, draws = compared(columns(MANY + 1, right=True), exact=True)
    known = ~np.isnan(found.p)
    assert 0 < known.sum() < 5 * MANY
    exact = exact_p(columns(MANY + 1, right=True), draws)
    np.testing.assert_array_equal(found.p[known], exact[known])


@pytest.mark.parametrize("k", [4, MANY + 3])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_none_is_compared_with_no_other(k, value):
    draws = np.random.default_rng(0).normal(np.arange(k), 1, (50, k))
    draws[:, 1] = value
    own = np.arange(k, dtype=float)
    own[1] = value
    found = pairs_of(
        Replicates(own, draws, np.full((9, k), np.nan)), members=tuple(range(k)), n=9, n_clusters=9
    )
    assert np.isnan(found.p[1]).all()
    assert np.isnan(found.p[:, 1]).all()
    # The others are compared, of many those at the ends of what is a number.
    assert found.p[0, 2] <= 1
    assert found.p[0, k - 1] <= 1
    assert found.p[2, k - 1] <= 1


@pytest.mark.parametrize("k", [0, 1])
def test_fewer_than_two(k):
    found, _ = compared(columns(k))
    assert found.p.shape == (k, k)
    assert np.isnan(found.p).all()


def test_one_cluster_tells_nothing():
    found, _ = compared(columns(3), clusters=np.zeros(N))
    assert np.isnan(found.p).all()
    assert not np.isnan(found.differences[0, 1])


def test_without_some():
    found, _ = compared(columns(4))
    found = found._replace(members=(3, 5, 8, 9))
    some = found.without([5, 7])
    for i, j in combinations(range(4), 2):
        assert np.isnan(some.p[i, j]) == np.isnan(some.se[j, i]) == (1 in (i, j))
    np.testing.assert_array_equal(some.differences, found.differences)
    assert not np.isnan(found.p[0, 1])
