from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from prefbench.claims.correlation import advantage, rank_correlation


@pytest.mark.parametrize("ties", [False, True])
def test_as_scipy_has_it_of_the_items_of_each_draw(ties: bool) -> None:
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(60, 2))
    columns[:, 1] += columns[:, 0]
    if ties:
        columns = columns.round(0)
    drawn = rng.integers(60, size=(30, 60))
    counts = np.array([np.bincount(one, minlength=60) for one in drawn], dtype=float)
    wanted = [spearmanr(*columns[one].T)[0] for one in drawn]
    np.testing.assert_allclose(rank_correlation(columns, counts), wanted, atol=1e-12)


def test_what_any_growing_function_leaves() -> None:
    rng = np.random.default_rng(2)
    x, ones = rng.normal(size=40), np.ones((1, 40))
    assert rank_correlation(np.stack([x, np.exp(x)], axis=1), ones) == pytest.approx([1.0])
    assert rank_correlation(np.stack([x, -(x**3)], axis=1), ones) == pytest.approx([-1.0])


def test_no_correlation_with_what_does_not_vary() -> None:
    columns = np.stack([np.arange(9.0), np.ones(9)], axis=1)
    assert np.isnan(rank_correlation(columns, np.ones((1, 9)))).all()
    alone = np.zeros((1, 9))
    alone[0, 4] = 9
    assert np.isnan(rank_correlation(np.stack([np.arange(9.0)] * 2, axis=1), alone)).all()


def test_the_advantage_of_a_ranking() -> None:
    rng = np.random.default_rng(3)
    y, z = rng.normal(size=(2, 50))
    columns = np.stack([y, z, y], axis=1)
    ones = np.ones((1, 50))
    assert advantage(columns, ones) == pytest.approx([1 - spearmanr(z, y)[0]])
