from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path

from prefbench.leaderboard import Group, Measured
from prefbench.metrics import PAIR_METRICS
from prefbench.report.figures.ellipses import QUANTITIES, ellipse, likelihoods, replicates


def inside(outline: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.asarray(Path(outline).contains_points(np.atleast_2d(points)))


def measured(table: np.ndarray) -> Measured:
    items = np.arange(len(table), dtype=np.int32)
    return Measured("dpo", "pairs", items, items, dict(zip(QUANTITIES, table.T, strict=True)))


def made_up(n: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs whose replies are hard or easy together, and whose rejected reply is 0.8 nats worse."""
    tokens = rng.integers(5, 30, (2, n)).astype(float)
    chosen = 1.2 + 0.5 * rng.normal(size=n)
    rejected = chosen + 0.8 + 0.4 * rng.normal(size=n)
    return np.stack([-tokens[0] * chosen, tokens[0], -tokens[1] * rejected, tokens[1]], axis=1)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_an_ellipse_holds_its_share_of_a_normal_distribution(confidence: float) -> None:
    rng = np.random.default_rng(0)
    centre, spread = [1.0, -2.0], [[0.04, 0.05], [0.05, 0.09]]
    drawn = rng.multivariate_normal(centre, spread, 20_000)
    outline = ellipse(centre, drawn, confidence=confidence)
    fresh = rng.multivariate_normal(centre, spread, 20_000)
    assert inside(outline, fresh).mean() == pytest.approx(confidence, abs=0.01)


def test_the_ellipse_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    group = Group("pairs", "pairs")
    hits = []
    for _ in range(400):
        table = made_up(80, rng)
        drawn = replicates(group, measured(table), n_resamples=400)
        assert drawn is not None
        outline = ellipse(likelihoods(table.sum(axis=0)), drawn, confidence=0.9)
        hits.append(inside(outline, np.array([1.2, 0.8]))[0])
    assert 0.84 <= np.mean(hits) <= 0.94


def test_its_values_are_those_of_the_table() -> None:
    table = made_up(50, np.random.default_rng(2))
    log_perplexity, agility = likelihoods(table.sum(axis=0))
    sums = dict(zip(QUANTITIES, table.sum(axis=0), strict=True))
    for name, value in (("perplexity", np.exp(log_perplexity)), ("agility", agility)):
        metric = PAIR_METRICS[name]
        assert metric.statistic(np.array([sums[q] for q in metric.quantities])) == pytest.approx(
            value
        )


def test_replicates_are_drawn_together() -> None:
    """Where the rejected reply is the same for all, what one value gains the other loses."""
    table = made_up(60, np.random.default_rng(3))
    table[:, 2:] = -2.0, 1.0
    drawn = replicates(Group("pairs", "pairs"), measured(table), n_resamples=500)
    assert drawn is not None
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(-1)


def test_there_is_none_where_nothing_varies_or_is_known() -> None:
    group = Group("pairs", "pairs")
    table = made_up(30, np.random.default_rng(4))
    assert replicates(group, measured(table[:1])) is None
    assert replicates(group, measured(np.full_like(table, np.nan))) is None
    assert replicates(group, measured(np.where(table < 0, -np.inf, table))) is None
    one = measured(table)
    lacking = Measured("dpo", "pairs", one.items, one.clusters, {"acc": table[:, 0]})
    assert replicates(group, lacking) is None


def test_an_item_that_is_missing_is_left_out() -> None:
    table = made_up(30, np.random.default_rng(5))
    holed = table.copy()
    holed[-5:, 2] = np.nan
    group = Group("pairs", "pairs")
    first, second = (replicates(group, measured(t), n_resamples=50) for t in (table[:-5], holed))
    assert first is not None
    assert second is not None
    assert np.array_equal(first, second)
