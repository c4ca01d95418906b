from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Resampling
from prefbench.stats.estimates import wilson_interval
from prefbench.stats.noninferiority import (
    Flips,
    cautious_interval,
    flips_of,
    items_to_decide,
    tango_interval,
)


def score(gained: float, lost: float, n: float, difference: float) -> float:
    """Tango's statistic by brute force: the restricted likelihood maximised numerically."""

    def minus_log_likelihood(share_lost: float) -> float:
        shares = (share_lost + difference, share_lost, 1 - 2 * share_lost - difference)
        counts = (gained, lost, n - gained - lost)
        return -sum(
            count * math.log(share) for count, share in zip(counts, shares, strict=True) if count
        )

    least, most = max(0.0, -difference), (1 - difference) / 2
    found = minimize_scalar(
        minus_log_likelihood,
        bounds=(least + 1e-12, most - 1e-12),
        method="bounded",
        options={"xatol": 1e-12},
    )
    variance = n * (2 * found.x + difference - difference**2)
    return (gained - lost - n * difference) / math.sqrt(variance)


@pytest.mark.parametrize(
    "counts", [(1, 0, 44), (12, 3, 100), (3, 12, 100), (30, 31, 80), (5, 4, 9)]
)
def test_tangos_bounds_are_where_his_statistic_is_the_normal_quantile(
    counts: tuple[int, int, int],
) -> None:
    low, high = tango_interval(Flips(*counts), 0.95)
    z = NormalDist().inv_cdf(0.975)
    assert score(*counts, high) == pytest.approx(-z, abs=1e-4)
    assert score(*counts, low) == pytest.approx(z, abs=1e-4)


@pytest.mark.parametrize("n", [1, 20, 200])
def test_without_flips_tangos_interval_is_wilsons_of_a_share_of_0(n: int) -> None:
    low, high = tango_interval(Flips(0, 0, n), 0.9)
    assert high == pytest.approx(wilson_interval(0, n, 0.9)[1])
    assert low == -high


def test_tangos_interval_at_the_ends() -> None:
    low, high = tango_interval(Flips(10, 0, 10), 0.95)
    assert high == 1
    assert 0 < low < 1
    assert tango_interval(Flips(0, 10, 10), 0.95) == (-high, -low)
    assert np.isnan(tango_interval(Flips(0, 0, 0), 0.95)).all()


def test_flips_of_clusters_are_worth_fewer_items() -> None:
    gaps = np.array([2.0, -1.0, 0.0])
    assert flips_of(gaps, np.ones(3)) == Flips(2, 1, 3)
    together = flips_of(gaps, np.array([4.0, 1.0, 1.0]))
    assert together.n == pytest.approx(36 / 18)
    assert together.gained / together.n == pytest.approx(2 / 6)
    assert flips_of(np.zeros(0), np.zeros(0)) == Flips(0, 0, 0)


def interval(differences: np.ndarray, confidence: float, *, share: bool) -> tuple[float, float]:
    n = len(differences)
    drawn = Resampling(np.arange(n), n_resamples=2000, seed=1)
    value, resampled, _ = drawn.replicate(
        np.column_stack([differences, np.ones(n)]), lambda sums: sums[..., 0] / sums[..., 1]
    )
    flips = flips_of(differences, np.ones(n)) if share else None
    return cautious_interval(
        float(value), resampled, n_clusters=n, confidence=confidence, flips=flips
    )


@pytest.mark.parametrize(
    ("n", "gained", "lost"), [(150, 0.0, 0.02), (60, 0.02, 0.05), (400, 0.05, 0.08)]
)
def test_a_share_that_lost_as_much_as_is_not_allowed_seldom_passes(
    n: int, gained: float, lost: float
) -> None:
    """At the margin itself the lower bound lies above it in 2.5 % of repetitions, about."""
    rng = np.random.default_rng(3)
    margin, passed, repetitions = lost - gained, 0, 1500
    for _ in range(repetitions):
        flips = rng.choice([1.0, -1.0, 0.0], size=n, p=[gained, lost, 1 - gained - lost])
        low, _ = tango_interval(flips_of(flips, np.ones(n)), 0.95)
        passed += low > -margin
    assert passed / repetitions < 0.025 + 3 * math.sqrt(0.025 * 0.975 / repetitions)


def test_resamples_alone_would_let_it_pass() -> None:
    """Of 150 items of which 2 % are lost, one sample in twenty has no loss, and no spread."""
    low, high = interval(np.zeros(150), 0.95, share=False)
    assert (low, high) == (0, 0)
    low, high = interval(np.zeros(150), 0.95, share=True)
    assert low == -high == pytest.approx(-0.025, abs=0.001)


@pytest.mark.parametrize("n", [4, 8, 20])
def test_means_of_few_items_have_intervals_that_hold(n: int) -> None:
    rng = np.random.default_rng(5)
    beyond = [0, 0]
    repetitions = 600
    for _ in range(repetitions):
        low, high = interval(rng.normal(size=n), 0.9, share=False)
        beyond[0] += low > 0
        beyond[1] += high < 0
    for side in beyond:
        assert side / repetitions < 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)


def test_intervals_that_do_not_exist() -> None:
    assert np.isnan(interval(np.zeros(1), 0.95, share=True)).all()
    unknown = cautious_interval(0.0, np.full(9, np.nan), n_clusters=9, confidence=0.95)
    assert np.isnan(unknown).all()
    with pytest.raises(InputError, match="between 0 and 1"):
        cautious_interval(0.0, np.zeros(9), n_clusters=9, confidence=1.0)


def test_as_many_items_as_are_needed_decide_in_four_of_five_repetitions() -> None:
    rng = np.random.default_rng(7)
    z = NormalDist().inv_cdf(0.975)
    needed = items_to_decide(0.1, z / math.sqrt(100), 100, confidence=0.95)
    assert needed == math.ceil((z + NormalDist().inv_cdf(0.8)) ** 2 / 0.01)
    means = rng.normal(0.1, 1 / math.sqrt(needed), size=20_000)
    assert np.mean(means - z / math.sqrt(needed) > 0) == pytest.approx(0.8, abs=0.01)


def test_nothing_decides_what_lies_at_the_threshold() -> None:
    assert items_to_decide(0.0, 0.1, 100, confidence=0.95) is None
    assert items_to_decide(0.001, 0.1, 100, confidence=0.95) is None
    assert items_to_decide(0.01, math.nan, 100, confidence=0.95) is None
    assert items_to_decide(-0.1, 0.1, 100, confidence=0.5) > 100  # type: ignore[operator]


def test_items_that_do_not_differ_decide_sooner() -> None:
    _, reach = tango_interval(Flips(0, 0, 100), 0.95)
    needed = items_to_decide(0.01, reach, 100, confidence=0.95, spread=False)
    assert needed is not None
    assert needed < items_to_decide(0.01, reach, 100, confidence=0.95)  # type: ignore[operator]
    assert tango_interval(Flips(0, 0, needed), 0.95)[1] == pytest.approx(0.01, rel=0.05)
