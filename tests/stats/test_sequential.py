"""Bounds that hold at every n: errors by simulation, form by a second implementation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array
from prefbench.stats.sequential import N_MEANS, confidence_sequence, sure_after


def draws(mean: float, ties: float, n: int, seed: int) -> Array:
    """Wins, losses and some ties, of a given mean."""
    win = mean - ties / 2
    return np.random.default_rng(seed).choice([0, 0.5, 1], p=[1 - win - ties, ties, win], size=n)


def capital(values: Array, mean: float, alpha: float) -> float:
    """What the bolder of two gamblers has in the end: the definition, number by number."""
    up = down = 1.0
    for t in range(1, len(values) + 1):
        before = values[: t - 1]
        means = (0.5 + np.cumsum(before)) / (np.arange(1, t) + 1)
        variance = (0.25 + np.sum((before - means) ** 2)) / t
        stake = np.sqrt(2 * np.log(2 / alpha) / (variance * t * np.log(t + 1)))
        up *= 1 + min(stake, 0.5 / mean) * (values[t - 1] - mean)
        down *= 1 - min(stake, 0.5 / (1 - mean)) * (values[t - 1] - mean)
    return float(max(up, down) / 2)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bounds_are_where_a_gambler_is_rich_enough(confidence: float) -> None:
    values = draws(0.6, 0.2, 60, seed=0)
    alpha = 1 - confidence
    lows, highs = [0.0], [1.0]
    for n in range(1, 61):
        best = float(np.clip(values[:n].mean(), 0.01, 0.99))

        def over(mean: float, n: int = n) -> float:
            return capital(values[:n], mean, alpha) - 1 / alpha

        middle = max((best, 0.5), key=lambda mean: -over(mean))
        if over(middle) < 0:
            lows.append(brentq(over, 1e-6, middle) if over(1e-6) > 0 else 0.0)
            highs.append(brentq(over, middle, 1 - 1e-6) if over(1 - 1e-6) > 0 else 1.0)
    low, high = confidence_sequence(values, confidence=confidence)
    # Ours are rounded outwards to the means that are tried.
    assert 0 <= max(lows) - low[-1] <= 1 / N_MEANS + 1e-6
    assert 0 <= high[-1] - min(highs) <= 1 / N_MEANS + 1e-6
    assert low[-1] > 0.2


def test_bounds_only_close_in_and_know_nothing_of_what_comes() -> None:
    values = draws(0.7, 0.1, 200, seed=1)
    low, high = confidence_sequence(values)
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) <= 0).all()
    first = confidence_sequence(values[:80])
    np.testing.assert_array_equal(first, [low[:80], high[:80]])
    wide = confidence_sequence(values, confidence=0.99)
    assert (wide[0] <= low).all()
    assert (wide[1] >= high).all()


def test_exchanging_checkpoint_and_opponent_mirrors_the_bounds() -> None:
    values = draws(0.7, 0.1, 200, seed=2)
    low, high = confidence_sequence(values)
    turned = confidence_sequence(1 - values)
    np.testing.assert_allclose(turned, [1 - high, 1 - low], atol=1e-12)
    assert sure_after(values) == sure_after(1 - values)


@pytest.mark.parametrize("mean", [0.5, 0.7, 0.95])
def test_sure_is_when_the_bounds_leave_out_a_half(mean: float) -> None:
    values = draws(mean, 0.1, 300, seed=3)
    low, high = confidence_sequence(values)
    outside = np.flatnonzero((low > 0.5) | (high < 0.5))
    assert sure_after(values) == (outside[0] + 1 if len(outside) else None)


def test_extremes() -> None:
    assert sure_after(np.full(1000, 0.5)) is None
    assert sure_after(np.ones(20)) == 10
    low, high = confidence_sequence(np.ones(500))
    assert low[-1] > 0.98
    assert high[-1] == 1
    assert [len(bounds) for bounds in confidence_sequence([])] == [0, 0]
    assert sure_after([]) is None


@pytest.mark.parametrize("ties", [0.0, 0.3, 0.8])
def test_equal_checkpoints_are_seldom_told_apart_at_any_time(ties: float) -> None:
    n_simulated = 1500
    sure = [sure_after(draws(0.5, ties, 500, seed)) is not None for seed in range(n_simulated)]
    assert np.mean(sure) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n_simulated)


@pytest.mark.parametrize("mean", [0.3, 0.9])
def test_bounds_hold_at_all_times(mean: float) -> None:
    wrong = 0
    for seed in range(250):
        low, high = confidence_sequence(draws(mean, 0.1, 300, seed))
        wrong += low[-1] > mean or high[-1] < mean
    assert wrong / 250 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 250)


@pytest.mark.parametrize(("mean", "saved"), [(0.6, 0.4), (0.7, 0.88), (0.9, 0.97)])
def test_most_calls_are_saved_where_checkpoints_differ(mean: float, saved: float) -> None:
    needed = [sure_after(draws(mean, 0, 500, seed)) or 500 for seed in range(300)]
    assert 1 - np.mean(needed) / 500 == pytest.approx(saved, abs=0.06)


def test_messages() -> None:
    for wrong in ([0.2, np.nan], [1.5], [-0.1]):
        with pytest.raises(InputError, match="values must lie between 0 and 1"):
            confidence_sequence(wrong)
    with pytest.raises(InputError, match=r"values must be \(n,\), not \(2, 1\)"):
        sure_after(np.ones((2, 1)))
    with pytest.raises(InputError, match="confidence must lie between 0 and 1, not 95"):
        confidence_sequence([0.5], confidence=95)
