"""Sequence KL from a policy's own samples, against Markov chains whose KL is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prefbench.errors import InputError
from prefbench.measures.divergence import divergence
from prefbench.records import Answer
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import Estimate, estimate

END = 3
"""The token that ends a sequence; the first row of a chain is how it begins."""
POLICY = np.array([[0.5, 0.3, 0.1, 0.1], [0.2, 0.2, 0.4, 0.2], [0.1, 0.5, 0.2, 0.2]])
REFERENCE = np.array([[0.4, 0.3, 0.2, 0.1], [0.3, 0.3, 0.3, 0.1], [0.2, 0.2, 0.2, 0.4]])


def by_state(policy: Array, reference: Array) -> Array:
    return np.asarray((policy * np.log(policy / reference)).sum(axis=1))


def whole_kl(policy: Array, reference: Array) -> float:
    """Expected visits of each state times the KL of its next token."""
    visits = np.linalg.inv(np.eye(3) - policy[:, :3])[0]
    return float(visits @ by_state(policy, reference))


def kl_up_to(limit: int, policy: Array, reference: Array) -> float:
    state, total = np.array([1.0, 0.0, 0.0]), 0.0
    for _ in range(limit):
        total += state @ by_state(policy, reference)
        state = state @ policy[:, :3]
    return float(total)


def draw(rng: np.random.Generator, chain: Array, limit: int) -> tuple[int, ...]:
    tokens: list[int] = []
    state = 0
    while state != END and len(tokens) < limit:
        state = int(rng.choice(4, p=chain[state]))
        tokens.append(state)
    return tuple(tokens)


def logp(chain: Array, tokens: tuple[int, ...]) -> float:
    return math.fsum(math.log(chain[a, b]) for a, b in zip((0, *tokens[:-1]), tokens, strict=True))


def sampled(
    rng: np.random.Generator,
    item: int,
    *,
    n: int = 2,
    limit: int = 1000,
    reference: Array = REFERENCE,
) -> dict[str, float]:
    tokens = tuple(draw(rng, POLICY, limit) for _ in range(n))
    answer = Answer(
        item,
        texts=tuple(" ".join(map(str, one)) for one in tokens),
        token_ids=tokens,
        unfinished=tuple(one[-1] != END for one in tokens),
    )
    return divergence(
        answer, [logp(POLICY, one) for one in tokens], [logp(reference, one) for one in tokens]
    )


def estimated(columns: list[list[float]], confidence: float = 0.95) -> Estimate:
    resampling = Resampling([str(i) for i in range(len(columns))], n_resamples=1000, seed=0)
    return estimate(
        columns, lambda s: s[..., 0] / s[..., 1], resampling=resampling, confidence=confidence
    )


def test_the_interval_holds_the_known_kl() -> None:
    rng = np.random.default_rng(0)
    true = whole_kl(POLICY, REFERENCE)
    found = [sampled(rng, i) for i in range(1500)]
    own = estimated([[one["kl"], 1.0] for one in found])
    assert own.low < true < own.high
    assert own.high - own.low < true / 4  # narrow enough to be wrong
    assert min(one["kl"] for one in found) < 0  # of single prompts
    # The other way round, and of the reverse KL, it would not hold.
    assert not own.low < -true < own.high
    assert not own.low < whole_kl(REFERENCE, POLICY) < own.high


def test_intervals_hold_it_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    true, n, held = whole_kl(POLICY, REFERENCE), 120, 0
    for _ in range(n):
        rows = [[sampled(rng, i)["kl"], 1.0] for i in range(60)]
        own = estimated(rows, confidence=0.8)
        held += own.low <= true <= own.high
    assert abs(held / n - 0.8) < 3.5 * math.sqrt(0.8 * 0.2 / n)


def test_per_token_is_a_ratio_of_sums() -> None:
    rng = np.random.default_rng(2)
    found = [sampled(rng, i) for i in range(1500)]
    visits = np.linalg.inv(np.eye(3) - POLICY[:, :3])[0]
    own = estimated([[one["kl"], one["n_tokens"]] for one in found])
    assert own.low < whole_kl(POLICY, REFERENCE) / visits.sum() < own.high
    one = found[0]
    assert one["kl_per_token"] == pytest.approx(one["kl"] / one["n_tokens"])


def test_a_limit_leaves_the_kl_up_to_it() -> None:
    rng = np.random.default_rng(3)
    found = [sampled(rng, i, limit=3) for i in range(1500)]
    own = estimated([[one["kl"], 1.0] for one in found])
    cut = kl_up_to(3, POLICY, REFERENCE)
    assert own.low < cut < own.high < whole_kl(POLICY, REFERENCE)
    assert 0.2 < np.mean([one["unfinished"] for one in found]) < 0.8
    assert kl_up_to(1000, POLICY, REFERENCE) == pytest.approx(whole_kl(POLICY, REFERENCE))


def test_a_policy_against_itself_is_exactly_0() -> None:
    found = [sampled(np.random.default_rng(i), i, reference=POLICY) for i in range(20)]
    assert {one["kl"] for one in found} == {one["kl_per_token"] for one in found} == {0.0}


def test_lengths_and_repetition() -> None:
    answer = Answer(
        4,
        texts=("a a a a a", "b"),
        token_ids=((1,) * 6, (2, END)),
        unfinished=(True, False),
    )
    found = divergence(answer, [-3.0, -1.0], [-5.0, -3.0])
    assert found == {
        "kl": 2.0, "kl_per_token": 0.5, "n_tokens": 4.0, "n_chars": 5.0, "unfinished": 0.5,
        "distinct_1": pytest.approx((0.2 + 1) / 2), "distinct_2": 0.25, "seq_rep_4": 0.5,
    }  # fmt: skip


def test_what_is_lacking_is_left_out() -> None:
    silent = Answer(0, texts=("",), token_ids=((),))
    assert divergence(silent, [0.0], [0.0]) == {"kl": 0.0, "n_tokens": 0.0, "n_chars": 0.0}
    never = Answer(0, texts=("x",), token_ids=((1, END),), unfinished=(False,))
    for reference in (-math.inf, math.nan):
        found = divergence(never, [-1.0], [reference])
        assert found == {"n_tokens": 2.0, "n_chars": 1.0, "unfinished": 0.0, "distinct_1": 1.0}


@pytest.mark.parametrize(
    ("ids", "policy", "reference", "said"),
    [
        (((1,),), [-1.0], [], "item 7: 0 log-probs of the reference for 1 samples"),
        (((1,),), [-1.0, -2.0], [-1.0], "item 7: 2 log-probs for 1 samples"),
        ((), [-1.0], [-1.0], "item 7: 0 token ids for 1 samples"),
    ],
)
def test_what_does_not_belong_together_is_refused(ids, policy, reference, said) -> None:
    with pytest.raises(InputError, match=said):
        divergence(Answer(7, texts=("x",), token_ids=ids), policy, reference)
    with pytest.raises(InputError, match="item 7 has no samples"):
        divergence(Answer(7), [], [])
