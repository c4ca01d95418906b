"""How far a panel's members agree, from the verdicts that the panel kept of them."""

from __future__ import annotations

import math

import pytest

from prefbench.judges.judge import Ask, Turn, Unheard, Verdict
from prefbench.measures.comparison import Heard, Pair
from prefbench.measures.panel import agreement

QUESTION = (Turn("user", "How tall is it?"),)
PAIRS = [Pair(i, f"c{i}", QUESTION, (f"ours {i}",), (f"theirs {i}",)) for i in range(40)]


def panel(second: dict[bool, float | None]):
    """The first member likes ours where the item is even; the second says what `second` has."""

    def heard(ask: Ask) -> Heard:
        ours_first = ask.first.startswith("ours")
        even = int(ask.first.split()[1]) % 2 == 0
        said = [float(even), second[even]]
        told = [p if p is None or ours_first else 1 - p for p in said]
        facts = {"members": {n: {"preference": p} for n, p in zip("ab", told, strict=True)}}
        return Verdict(told[0], facts=facts)

    return heard


@pytest.mark.parametrize(
    ("second", "alpha"), [({True: 1.0, False: 0.0}, 1.0), ({True: 0.0, False: 1.0}, -1.0)]
)
def test_members_that_agree_and_that_contradict(second, alpha) -> None:
    found = agreement(PAIRS, panel(second), ["a", "b"], symmetric=False)
    assert found.value == pytest.approx(alpha, abs=0.02)
    assert found.n == 80  # both orders


def test_a_tie_is_nearer_than_the_contrary() -> None:
    near = agreement(PAIRS, panel({True: 0.5, False: 0.5}), ["a", "b"], symmetric=False)
    far = agreement(PAIRS, panel({True: 0.0, False: 1.0}), ["a", "b"], symmetric=False)
    assert far.value < near.value < 1


def test_what_only_one_member_rated_says_nothing() -> None:
    found = agreement(PAIRS, panel({True: None, False: None}), ["a", "b"], symmetric=False)
    assert math.isnan(found.value)
    assert found.n_missing == 80
    found = agreement(PAIRS, lambda ask: Unheard("gone"), ["a", "b"], symmetric=False)
    assert found.n_missing == 80
