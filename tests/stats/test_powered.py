"""People's mean from a judge's: the formula, its ends, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import Estimate, estimate
from prefbench.stats.powered import powered_mean

N, N_LABELLED = 500, 100


def rated(seed: int, *, agree: float = 0.85, lenient: float = 0.3) -> tuple[Array, Array]:
    """People prefer 60 %; the judge mostly says the same, and else yes too often."""
    rng = np.random.default_rng(seed)
    human = (rng.random(N) < 0.6).astype(float)
    other = (rng.random(N) < 0.5 + lenient).astype(float)
    judge = np.where(rng.random(N) < agree, human, other)
    human[rng.permutation(N)[N_LABELLED:]] = np.nan
    return human, judge


def powered(human: Array, judge: Array, n_resamples: int = 500, seed: int = 0) -> Estimate:
    draws = Resampling(np.arange(len(human)), n_resamples=n_resamples, seed=seed)
    return powered_mean(human, judge, resampling=draws)


def by_the_paper(human: Array, judge: Array) -> tuple[float, float]:
    """Value and standard error as PPI++ has them, in its own order of things."""
    labelled = ~np.isnan(human)
    y, f, rest = human[labelled], judge[labelled], judge[~labelled]
    ratio = len(y) / len(rest)
    tuned = np.clip(np.cov(y, f, ddof=0)[0, 1] / ((1 + ratio) * np.var(judge)), 0, 1)
    value = y.mean() + tuned * (rest.mean() - f.mean())
    variance = np.var(y - tuned * f) / len(y) + tuned**2 * np.var(rest) / len(rest)
    return float(value), float(np.sqrt(variance))


@pytest.mark.parametrize("agree", [0.0, 0.5, 0.85, 1.0])
def test_agrees_with_the_paper(agree: float) -> None:
    widths = []
    for seed in range(20):
        human, judge = rated(seed, agree=agree)
        value, error = by_the_paper(human, judge)
        found = powered(human, judge)
        assert found.value == pytest.approx(value, abs=1e-12)
        assert (found.n, found.n_missing) == (N, 0)
        widths.append((found.high - found.low) / 2 / stats.norm.ppf(0.975) / error)
    # The paper's interval takes λ for known: ours is wider by what choosing it costs.
    assert np.mean(widths) == pytest.approx(1.03, abs=0.06)


def test_a_judge_that_is_right_makes_every_item_a_label() -> None:
    human, judge = rated(1, agree=1.0)
    assert powered(human, judge).value == pytest.approx(judge.mean(), abs=0.002)


@pytest.mark.parametrize("says", [0.0, 0.7, 1.0])
def test_a_judge_that_knows_nothing_leaves_the_peoples_mean(says: float) -> None:
    human, _ = rated(2)
    draws = Resampling(np.arange(N), n_resamples=500, seed=0)
    alone = estimate(
        np.stack([np.nan_to_num(human), ~np.isnan(human)], axis=1),
        lambda sums: sums[..., 0] / sums[..., 1],
        resampling=draws,
    )
    np.testing.assert_allclose(powered(human, np.full(N, says))[:3], alone[:3], atol=1e-12)


def test_a_judge_that_is_always_wrong_is_not_followed() -> None:
    human, _ = rated(3)
    judge = np.where(np.isnan(human), 0.5, 1 - human)
    assert powered(human, judge).value == pytest.approx(np.nanmean(human))


def test_all_labelled_is_the_peoples_mean() -> None:
    human = (np.random.default_rng(0).random(60) < 0.6).astype(float)
    assert powered(human, 1 - human / 2).value == pytest.approx(human.mean(), abs=1e-12)


def test_exchanging_checkpoint_and_opponent_gives_the_rest() -> None:
    human, judge = rated(4)
    found, turned = powered(human, judge), powered(1 - human, 1 - judge)
    np.testing.assert_allclose(turned[:3], [1 - found.value, 1 - found.high, 1 - found.low])


def test_clusters_are_drawn_whole() -> None:
    human, judge = rated(5)
    twice = Resampling(np.repeat(np.arange(N), 2), n_resamples=500, seed=0)
    found = powered_mean(np.repeat(human, 2), np.repeat(judge, 2), resampling=twice)
    np.testing.assert_allclose(found[:3], powered(human, judge)[:3], atol=1e-12)


def test_what_is_missing() -> None:
    human, judge = rated(6)
    assert np.isnan(powered(np.full(N, np.nan), judge)[:3]).all()
    judge[:7] = np.nan
    found = powered(human, judge)
    assert (found.n, found.n_missing) == (N - 7, 7)
    few = np.full(N, np.nan)
    few[:2] = 0, 1
    one = powered(few, judge=rated(6)[1])
    assert np.isfinite(one.value)
    assert np.isnan(one.low)


def test_coverage_and_what_the_judge_saves() -> None:
    """The judge alone is sure and wrong, people alone are unsure and right; both are right."""
    n_simulated = 400
    truth, covered, width = 0.6, np.zeros(3), np.zeros(3)
    for seed in range(n_simulated):
        human, judge = rated(seed)
        draws = Resampling(np.arange(N), n_resamples=500, seed=0)
        labels = np.stack([np.nan_to_num(human), ~np.isnan(human)], axis=1)
        verdicts = np.stack([judge, np.ones(N)], axis=1)
        found = [powered_mean(human, judge, resampling=draws)] + [
            estimate(columns, lambda sums: sums[..., 0] / sums[..., 1], resampling=draws)
            for columns in (labels, verdicts)
        ]
        covered += [one.low <= truth <= one.high for one in found]
        width += [one.high - one.low for one in found]
    both, people, judge_alone = covered / n_simulated
    assert both == pytest.approx(0.95, abs=0.025)
    assert people == pytest.approx(0.95, abs=0.025)
    assert judge_alone < 0.8
    assert width[0] < 0.75 * width[1]


def test_message() -> None:
    with pytest.raises(InputError, match=r"human \(3,\) and judge \(2,\) must both be"):
        powered_mean(np.ones(3), np.ones(2), resampling=Resampling(np.arange(3), seed=0))
