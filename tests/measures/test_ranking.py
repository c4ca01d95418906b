"""Rankings of many candidates: τ-b by counting pairs, ties, and what is missing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefbench.errors import InputError
from prefbench.measures.ranking import NO_NUMBER, ONE, SAME_REWARD, ranking

numbers = st.integers(-3, 3).map(float)


def tau_b(x: list[float], y: list[float]) -> float:
    """By counting every pair."""
    pairs = list(itertools.combinations(range(len(x)), 2))
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs]
    agreed = sum(a * b for a, b in signs)
    return float(agreed / math.sqrt(sum(a * a for a, _ in signs) * sum(b * b for _, b in signs)))


def test_the_order_is_that_of_log_probs_per_token() -> None:
    # In sums the last is the likeliest, per token the first.
    logps, n_tokens, rewards = [-4.0, -6.0, -3.0], [8, 6, 1], [3.0, 1.0, 0.5]
    found = ranking(logps, n_tokens, rewards)
    assert found == {"kendall_tau": 1.0, "best_first": 1.0, "n_candidates": 3.0}
    turned = ranking(logps, n_tokens, [-reward for reward in rewards])
    assert turned == {"kendall_tau": -1.0, "best_first": 0.0, "n_candidates": 3.0}


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=7))
def test_agrees_with_counting_pairs(candidates: list[tuple[float, float]]) -> None:
    logps, rewards = map(list, zip(*candidates, strict=True))
    found = ranking(logps, [1] * len(logps), rewards)
    if len(set(rewards)) == 1:
        assert found == SAME_REWARD
        return
    assert isinstance(found, dict)
    if len(set(logps)) == 1:
        assert "kendall_tau" not in found
        assert found["best_first"] == rewards.count(max(rewards)) / len(rewards)
    else:
        assert found["kendall_tau"] == pytest.approx(tau_b(logps, rewards))
    longer = ranking([7 * one for one in logps], [7] * len(logps), rewards)
    assert isinstance(longer, dict)
    assert longer["best_first"] == found["best_first"]


def test_ties_of_the_likeliest_are_shared() -> None:
    found = ranking([-1.0, -1.0, -2.0], [1, 1, 1], [5.0, 1.0, 0.0])
    assert isinstance(found, dict)
    assert found["best_first"] == 0.5
    found = ranking([-1.0, -2.0, -3.0], [1, 1, 1], [5.0, 5.0, 0.0])
    assert isinstance(found, dict)
    assert found["best_first"] == 1  # one of the two best


@pytest.mark.parametrize(
    ("logps", "rewards", "reason"),
    [
        ([-1.0], [1.0], ONE),
        ([], [], ONE),
        ([-1.0, -2.0], [1.0, 1.0], SAME_REWARD),
        ([-1.0, math.nan], [1.0, 2.0], NO_NUMBER),
        ([-1.0, -math.inf], [1.0, 2.0], NO_NUMBER),
        ([-1.0, -2.0], [1.0, math.nan], NO_NUMBER),
    ],
)
def test_what_cannot_be_ranked_has_a_reason(logps, rewards, reason) -> None:
    assert ranking(logps, [1] * len(logps), rewards) == reason


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(InputError, match="2 log-probs, 2 token counts and 1 rewards"):
        ranking([-1.0, -2.0], [1, 1], [1.0])
    with pytest.raises(InputError, match="no token, not even one that ends it"):
        ranking([-1.0, 0.0], [1, 0], [1.0, 2.0])
