from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path

from prefbench.leaderboard import Gathered, Group, Measured
from prefbench.metrics import PAIR_METRICS
from prefbench.report.figures.ellipses import ellipse, likelihoods, replicates


def inside(outline: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.asarray(Path(outline).contains_points(np.atleast_2d(points)))


GROUP = Group("pairs", "pairs")
QUANTITIES = PAIR_METRICS["agility"].quantities


def gathered(**tables: np.ndarray) -> Gathered:
    measured = []
    for name, table in tables.items():
        items = np.arange(len(table), dtype=np.int32)
        quantities = dict(zip(QUANTITIES, table.T, strict=True))
        measured.append(Measured(name, "pairs", items, items, quantities))
    return Gathered((), (GROUP,), tuple(measured))


def drawn(table: np.ndarray, n_resamples: int = 400) -> np.ndarray:
    return replicates(gathered(dpo=table), GROUP, ["dpo"], n_resamples=n_resamples)["dpo"]


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
    given = rng.multivariate_normal(centre, spread, 20_000)
    outline = ellipse(centre, given, confidence=confidence)
    fresh = rng.multivariate_normal(centre, spread, 20_000)
    assert inside(outline, fresh).mean() == pytest.approx(confidence, abs=0.01)


def test_the_ellipse_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(400):
        table = made_up(80, rng)
        outline = ellipse(likelihoods(table.sum(axis=0)), drawn(table), confidence=0.9)
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
    assert np.corrcoef(drawn(table).T)[0, 1] == pytest.approx(-1)


def test_there_is_none_where_nothing_varies_or_is_known() -> None:
    table = made_up(30, np.random.default_rng(4))
    both = gathered(
        one=table[:1], none=np.full_like(table, np.nan), zero=np.zeros_like(table), all=table
    )
    names = ["one", "none", "zero", "all", "never measured"]
    assert list(replicates(both, GROUP, names, n_resamples=20)) == ["all"]
    assert replicates(both, GROUP, ["never measured"]) == {}
    quiz = Measured("dpo", "pairs", *(np.arange(9, dtype=np.int32),) * 2, {"acc": np.ones(9)})
    assert replicates(Gathered((), (GROUP,), (quiz,)), GROUP, ["dpo"]) == {}


def test_an_item_that_is_missing_is_left_out() -> None:
    table = made_up(30, np.random.default_rng(5))
    holed = table.copy()
    holed[-5:, 2] = np.nan
    assert np.array_equal(drawn(table[:-5]), drawn(holed))


def test_replicates_do_not_hang_on_who_else_is_there() -> None:
    rng = np.random.default_rng(6)
    first, second, holed = (made_up(30, rng) for _ in range(3))
    holed[0] = np.nan
    together = replicates(
        gathered(a=first, b=second, c=holed), GROUP, ["a", "b", "c"], n_resamples=400
    )
    for name, table in (("a", first), ("b", second), ("c", holed)):
        assert np.array_equal(together[name], drawn(table))
