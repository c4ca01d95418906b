"""Drawn tokens have the shares that their definition gives, and hang on their own seed alone."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from prefbench.engines.base import Sampling
from prefbench.engines.drawing import Draws

LOGITS = [2.0, -1.0, 0.5, 0.5, 3.1, -math.inf, 0.0, 1.9]
SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.25},
    {"temperature": 1.7},
    {"temperature": 0.8, "top_k": 3},
    {"temperature": 0.8, "top_k": 100},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 1.0, "top_p": 1e-6},
    {"temperature": 0.7, "top_k": 4, "top_p": 0.75},
]


def shares(logits, temperature, top_k=0, top_p=1.0):
    """As the papers define them: the k likeliest, then the smallest set that holds top_p."""
    weights = np.exp(np.array(logits) / temperature)
    if top_k:
        weights[weights < np.sort(weights)[::-1][: top_k or None][-1]] = 0
    weights /= weights.sum()
    order = np.argsort(-weights, kind="stable")
    n_kept = int(np.searchsorted(np.cumsum(weights[order]), top_p)) + 1
    weights[order[n_kept:]] = 0
    return weights / weights.sum()


def drawn(logits, numbers, **settings):
    """The tokens that these numbers pick."""
    draws = Draws(Sampling(**settings), range(len(numbers)))
    draws._numbers = [SimpleNamespace(random=lambda number=number: number) for number in numbers]
    rows = torch.tensor(logits).expand(len(numbers), -1)
    return draws.tokens(rows, range(len(numbers))).numpy()


@pytest.mark.parametrize("settings", SETTINGS)
def test_even_numbers_give_each_token_its_share(settings):
    n = 2000
    tokens = drawn(LOGITS, (np.arange(n) + 0.5) / n, **settings)
    counts = np.bincount(tokens, minlength=len(LOGITS))
    expected = shares(LOGITS, **settings)
    assert (np.abs(counts - n * expected) <= 1 + 1e-3).all()
    assert set(np.flatnonzero(counts)) == set(np.flatnonzero(expected > 1 / n))


@pytest.mark.parametrize("settings", SETTINGS)
def test_seeds_draw_by_the_shares(settings):
    n = 3000
    draws = Draws(Sampling(**settings), range(n))
    rows = torch.tensor(LOGITS).expand(n, -1)
    expected = shares(LOGITS, **settings)
    likely = expected > 0
    for _ in range(2):  # the first tokens, and those behind them
        counts = np.bincount(draws.tokens(rows, range(n)).numpy(), minlength=len(LOGITS))
        assert counts[~likely].sum() == 0
        if likely.sum() > 1:
            assert stats.chisquare(counts[likely], n * expected[likely]).pvalue > 1e-3


def test_tokens_without_a_share_are_never_drawn_whatever_the_number():
    least, most = 0.0, 1 - 2.0**-53
    for logits in ([-math.inf, 0.0, 1.0, -math.inf], [-200.0, 0.0, 1.0, -200.0]):
        assert drawn(logits, [least, most], temperature=1.0).tolist() == [1, 2]
    assert drawn([0.0, math.inf, 5.0], [least, most], temperature=1.0).tolist() == [1, 1]
    assert drawn([0.0, 30.0, 29.9], [least, most], temperature=1e-30).tolist() == [1, 1]


def test_shares_that_rounding_leaves_below_one_leave_no_number_without_a_token():
    rows = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0))
    assert (rows.softmax(-1).double().sum(-1) < 1).any()
    for row in rows:
        assert drawn(row.tolist(), [1 - 2.0**-53], temperature=1.0).tolist() == [999]


def test_a_texts_draws_hang_on_its_seed_alone():
    sampling = Sampling(temperature=1.5)
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    together = Draws(sampling, [5, 6, 5, 7])
    steps = [together.tokens(logits, [0, 1, 2, 3]).tolist() for _ in range(6)]
    alone = Draws(sampling, [7])
    assert [alone.tokens(logits[3:], [0]).item() for _ in range(6)] == [step[3] for step in steps]
    left = Draws(sampling, [7, 5])  # the first has ended after its first token
    rows = logits[[3, 2]]
    assert left.tokens(rows, [0, 1]).tolist() == [steps[0][3], steps[0][2]]
    assert [left.tokens(rows[1:], [1]).item() for _ in range(5)] == [s[2] for s in steps[1:]]
    twins = Draws(sampling, [5, 6, 5, 7]).tokens(logits[:1].expand(4, -1), range(4)).tolist()
    assert twins[0] == twins[2]
    assert len({tuple(column) for column in zip(*steps, strict=True)}) == 4
