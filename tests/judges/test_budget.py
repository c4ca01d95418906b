"""Limits on cost: exact, never passed whatever happens to calls, and said in plain words."""

from __future__ import annotations

import json
import math
import threading
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefbench.errors import InputError
from prefbench.judges.budget import Bound, Budget, Paid, Tab, bound_of, estimate, used_by
from prefbench.judges.judge import Ask, Turn
from prefbench.judges.prompts import draw_delimiter, render
from prefbench.judges.recipe import JudgeRecipe, Price

ASK = Ask((Turn("user", "Which is larger, 1 or 2?"),), "2 is.", "1 is, naïvely.")


def recipe(**facts: Any) -> JudgeRecipe:
    return JudgeRecipe.model_validate(
        {
            "judge": "tested",
            "kind": "openai",
            "model": "m",
            "endpoint": {"base_url": "http://127.0.0.1:1/v1"},
            "prompt": "{{ prompt }}\nA: {{ first }}\nB: {{ second }}",
            "verdict": {"by": "line", "marker": "Verdict:", "labels": {"A": 1, "B": 0}},
            **facts,
        }
    )


def body(n: int = 10, text: str = "") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": n}


def tab_of(budget: Budget, n_requests: int, *, n: int = 10, output: float = 1.0) -> Tab:
    tab = budget.tab(Price(input=0.0, output=output))
    for index in range(n_requests):
        tab.expect(index, body(n))
    return tab


def says(n_in: Any, n_out: Any) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": n_in, "completion_tokens": n_out}}


def test_three_dimes_are_thirty_cents() -> None:
    budget = Budget(max_cost=0.3)
    tab = tab_of(budget, 4, n=1, output=0.1e6)
    assert [tab.take(index) is None for index in range(4)] == [True, True, True, False]


def test_an_answer_makes_room_for_what_it_did_not_use() -> None:
    budget = Budget(max_cost=2.0)
    tab = tab_of(budget, 3, n=10, output=0.1e6)  # a dollar each, at most
    assert tab.take(0) is None
    assert tab.take(1) is None
    assert tab.take(2) == (
        "not asked: the next call could pass the limit of $2.00 (spent $0.00, and up to $2.00 "
        "without an answer)"
    )
    tab.settle(0, says(5, 0))
    assert tab.take(2) is None
    tab.settle(1, says(5, 10))
    tab.settle(2, says(7, 3))
    assert [tab.close(index) for index in range(3)] == [
        Paid(5, 0, 0.0, 1),
        Paid(5, 10, 1.0, 1),
        Paid(7, 3, 0.3, 1),
    ]
    assert budget.facts == {
        "max_cost": 2.0,
        "max_calls": None,
        "calls": 3,
        "unanswered": 0,
        "n_in": 17,
        "n_out": 13,
        "spent": 1.3,
        "reserved": 0.0,
        "beyond_bound": 0,
    }
    tab.expect(0, body(10))
    assert tab.take(0) == ("not asked: the next call could pass the limit of $2.00 (spent $1.30)")


def test_what_may_have_been_charged_stays_set_aside_and_what_was_turned_away_does_not() -> None:
    budget = Budget(max_cost=2.0)
    tab = tab_of(budget, 2, n=10, output=0.1e6)
    tab.take(0)
    tab.give_back(0)
    assert budget.facts["reserved"] == budget.facts["calls"] == 0
    tab.take(0)  # and nothing is heard of it
    tab.take(0)
    tab.settle(0, says(1, 1))
    assert tab.close(0) == Paid(1, 1, 0.1, 3)
    assert budget.facts["reserved"] == 1.0
    assert budget.facts["unanswered"] == 1
    assert tab.take(1) == (
        "not asked: the next call could pass the limit of $2.00 (spent $0.10, and up to $1.00 "
        "without an answer)"
    )
    assert tab.close(1) == Paid(0, 0, 0.0, 0)


def test_calls_are_counted() -> None:
    budget = Budget(max_calls=2)
    tab = tab_of(budget, 3)
    assert tab.take(0) is None
    tab.give_back(0)
    assert tab.take(0) is None
    assert tab.take(0) is None
    assert tab.take(1) == "not asked: the limit of 2 calls is reached"


def test_cents_are_said_in_full_where_the_limit_is_of_cents() -> None:
    tab = tab_of(Budget(max_cost=0.015), 1, n=1, output=0.02e6)
    assert "the limit of $0.0150 (spent $0.0000)" in str(tab.take(0))


def test_what_is_free_needs_no_money() -> None:
    tab = tab_of(Budget(max_cost=0.0), 1, output=0.0)
    assert tab.take(0) is None


@pytest.mark.parametrize("limits", [{"max_cost": -1.0}, {"max_cost": math.nan}, {"max_calls": -1}])
def test_limits_that_are_none(limits: Any) -> None:
    with pytest.raises(InputError, match="is 0 or more, not"):
        Budget(**limits)


@pytest.mark.parametrize(
    ("answer", "used"),
    [
        (says(7, 3), (7, 3)),
        (says(7, 0), (7, 0)),
        ({}, (100, 10)),
        ({"usage": None}, (100, 10)),
        ({"usage": [1]}, (100, 10)),
        (says(-7, 3), (100, 3)),
        (says(0, 3), (100, 3)),
        (says(7, -3), (7, 10)),
        (says(7, None), (7, 10)),
        (says("7", 2.5), (100, 10)),
        (says(True, False), (100, 10)),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 17}}, (7, 10)),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 0}}, (7, 3)),
        (says(700, 300), (700, 300)),
    ],
)
def test_what_a_server_says_it_used(answer: Any, used: tuple[int, int]) -> None:
    assert used_by(answer, Bound(100, 10)) == used


def test_a_server_that_charges_more_than_can_be_is_counted_so() -> None:
    budget = Budget(max_cost=2.0)
    tab = tab_of(budget, 2, n=10, output=0.1e6)
    tab.take(0)
    tab.settle(0, says(1, 19))
    assert budget.facts["spent"] == 1.9
    assert budget.facts["beyond_bound"] == 1
    assert tab.take(1) is not None


PRICES = [Price(input=0.15, output=0.6), Price(input=3.0, output=15.0), Price(output=1e4)]
HAPPENS = ["answered", "silent", "nonsense", "lost", "lost_unseen", "turned_away"]


@settings(max_examples=300, deadline=None)
@given(
    cents=st.integers(0, 60),
    max_calls=st.none() | st.integers(0, 12),
    requests=st.lists(
        st.tuples(
            st.sampled_from(range(len(PRICES))),
            st.text(max_size=30),
            st.integers(1, 40),
            st.lists(st.sampled_from(HAPPENS), min_size=1, max_size=4),
        ),
        max_size=25,
    ),
    draws=st.randoms(use_true_random=False),
)
def test_the_real_cost_never_passes_the_limit(
    cents: int, max_calls: int | None, requests: Any, draws: Any
) -> None:
    """Whatever happens to tries, in whatever order, of judges with different prices."""
    budget = Budget(max_cost=cents / 100, max_calls=max_calls)
    tabs = [budget.tab(price) for price in PRICES]
    real, n_computed = Fraction(0), 0
    for index, (which, text, n_out, _) in enumerate(requests):
        tabs[which].expect(index, body(n_out, text))
    left = {index: list(happens) for index, (*_, happens) in enumerate(requests)}
    under_way: dict[int, str] = {}
    while left or under_way:
        index = draws.choice(sorted({*left, *under_way}))
        which, text, n_out, _ = requests[index]
        tab, price = tabs[which], PRICES[which]
        if index not in under_way:
            happens = left[index].pop(0)
            if not left[index]:
                del left[index]
            if tab.take(index) is None:
                under_way[index] = happens
                if happens not in ("turned_away", "lost_unseen"):
                    n_in, n_said = draws.randint(1, len(text.encode()) + 1), draws.randint(0, n_out)
                    real += n_in * Fraction(str(price.input)) / 10**6
                    real += n_said * Fraction(str(price.output)) / 10**6
                    n_computed += 1
                    if happens == "answered":
                        under_way[index] = json.dumps(says(n_in, n_said))
        else:
            happened = under_way.pop(index)
            if happened == "turned_away":
                tab.give_back(index)
            elif happened == "silent":
                tab.settle(index, {})
            elif happened == "nonsense":
                tab.settle(index, says(-(10**9), "none"))
            elif happened.startswith("{"):
                tab.settle(index, json.loads(happened))
        assert real <= Fraction(cents, 100)
        assert max_calls is None or n_computed <= max_calls
        facts = budget.facts
        assert facts["spent"] >= 0
        assert facts["reserved"] >= 0
        assert facts["spent"] + facts["reserved"] <= cents / 100 + 1e-12


def test_many_threads_share_one_limit() -> None:
    budget = Budget(max_cost=1.0, max_calls=10_000)
    n_taken = []

    def spend() -> None:
        tab = tab_of(budget, 400, n=1, output=1000.0)  # a tenth of a cent each
        taken = [index for index in range(400) if tab.take(index) is None]
        for index in taken[::2]:
            tab.settle(index, {})
        n_taken.append(len(taken))

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(n_taken) == 1000
    assert budget.facts["spent"] + budget.facts["reserved"] == 1.0


def test_the_bound_counts_every_byte() -> None:
    text = "naïve 😀 \ud83d"
    bound = bound_of({**body(7, text), "response_format": {"a": "b" * 50}})
    assert bound.n_in > len(text.encode(errors="surrogatepass")) + 50
    assert bound.n_out == 7
    assert bound_of({"messages": [], "max_completion_tokens": 3}).n_out == 3


def test_an_estimate_is_of_what_is_sent() -> None:
    asked = recipe(price={"input": 2.0, "output": 8.0}, sampling={"max_tokens": 100})
    asks = [ASK, ASK.turned, ASK]
    found = estimate(asked, asks)
    sent = [render(asked, ask, delimiter=draw_delimiter()) for ask in asks]
    n_bytes = sum(len(m["content"].encode()) for messages in sent for m in messages)
    assert found.calls == 3
    assert found.n_in == math.ceil(n_bytes / 4)
    assert found.n_out_most == 300
    assert found.cost == pytest.approx((2 * found.n_in + 8 * 300) / 1e6)
    bounds = [bound_of({"messages": m, "max_tokens": 100}) for m in sent]
    assert found.cost_most == pytest.approx((2 * sum(b.n_in for b in bounds) + 8 * 300) / 1e6)
    assert found.cost_most > found.cost
    assert estimate(asked, []) == (0, 0, 0, 0, 0)


def test_a_judge_read_by_its_first_token_replies_one() -> None:
    asked = recipe(verdict={"by": "logprobs", "labels": {"A": 1, "B": 0}})
    assert estimate(asked, [ASK, ASK]).n_out_most == 2


def test_an_estimate_is_no_more_than_its_most_allows() -> None:
    asked = recipe(price={"input": 2.0, "output": 8.0})
    most = estimate(asked, [ASK] * 4).cost_most
    tab = Budget(max_cost=most + 1e-9).tab(asked.price)
    for index in range(4):
        messages = render(asked, ASK, delimiter=draw_delimiter())
        tab.expect(index, {"messages": messages, "max_tokens": asked.sampling.max_tokens})
        assert tab.take(index) is None
