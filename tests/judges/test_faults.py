"""A judge whose server fails in every way: nothing is lost, invented, or paid beyond a cap."""

from __future__ import annotations

import io
import logging
import time
import traceback
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest

from prefbench.client import Endpoint
from prefbench.judges.budget import Budget
from prefbench.judges.chat import ChatJudge
from prefbench.judges.judge import Ask, Turn, Unheard, Verdict
from prefbench.judges.recipe import JudgeRecipe
from tests.misbehaving import FAULTS, LOST, ODD, TURNED_AWAY, Misbehaving, wired

KEY = "sk-very-secret-0123456789"
PRICE = {"input": 2.5, "output": 10.0}
A_TOKEN = (Fraction("2.5") / 10**6, Fraction(10) / 10**6)
N_ASKS = 60
SHORT = 0.4
"""Seconds that a try may take where replies trickle for as long as anybody waits."""
RECIPE = {
    "judge": "tested",
    "kind": "openai",
    "model": "m",
    "prompt": "{{ prompt }}\n\nAnswer A:\n{{ first }}\n\nAnswer B:\n{{ second }}",
    "verdict": {"by": "line", "marker": "Verdict:", "labels": {"A": 1, "tie": 0.5, "B": 0}},
    "sampling": {"max_tokens": 30},
    "price": PRICE,
}


def answers(n: int) -> tuple[str, str]:
    """The first, the second, both or neither are right."""
    return ("a right one" if n % 4 in (0, 2) else "a bad one", "right" if n % 4 > 1 else "bad")


def preference(first: str, second: str) -> float:
    return 0.5 + ("right" in first) / 2 - ("right" in second) / 2


def rule(asked: str) -> str:
    """What the server replies, from the words that it was sent."""
    first, second = asked.split("Answer B:")
    label = {1.0: "A", 0.5: "tie", 0.0: "B"}[preference(first, second)]
    return f"Looking at both.\nVerdict: {label}"


def both_orders(n_asks: int) -> list[Ask]:
    asks = [Ask((Turn("user", f"Question {n}?"),), *answers(n)) for n in range(n_asks // 2)]
    return [one for ask in asks for one in (ask, ask.turned)]


def judge_at(url: str, budget: Budget, **patience: Any) -> ChatJudge:
    recipe = JudgeRecipe.model_validate(
        RECIPE | {"endpoint": {"base_url": url, "api_key_env": "JUDGE_KEY"}}
    )
    settled: dict[str, Any] = {"first_wait": 0.005, "timeout": 20.0, "concurrency": 8}
    settled |= {"n_given_up": 1000, **patience}
    return ChatJudge(recipe, budget=budget, endpoint=Endpoint(url, "JUDGE_KEY", **settled))


@pytest.fixture(autouse=True)
def key_is_kept(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Sets the key, and looks for it in all that was logged and printed."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    logged = io.StringIO()
    listening = logging.StreamHandler(logged)
    level = logging.root.level
    logging.root.addHandler(listening)
    logging.root.setLevel(logging.DEBUG)
    yield
    logging.root.removeHandler(listening)
    logging.root.setLevel(level)
    out, err = capfd.readouterr()
    for text in (logged.getvalue(), out, err):
        assert KEY[3:] not in text


def heard(server: Misbehaving, asks: list[Ask], budget: Budget, **patience: Any) -> Any:
    """What a judge says of each ask, having checked what holds whatever the server does."""
    with wired(server.answer) as (url, _), judge_at(url, budget, **patience) as judge:
        began = time.monotonic()
        found: dict[int, Verdict | Unheard] = {}
        for index, one in judge.decide(asks):
            assert index not in found
            found[index] = one
        assert time.monotonic() - began < 120
        assert KEY[3:] not in repr([judge, judge.endpoint, found, vars(judge), budget.facts])
    assert sorted(found) == list(range(len(asks)))
    for index, one in found.items():
        if isinstance(one, Unheard) or one.preference is None:
            assert one.reason
        else:  # nothing is invented
            assert one.reason is None
            assert one.preference == preference(asks[index].first, asks[index].second)
            assert one.reply.endswith(("Verdict: A", "Verdict: tie", "Verdict: B"))
    facts = budget.facts
    assert facts["beyond_bound"] == 0
    assert facts["calls"] >= server.n_charged
    assert facts["spent"] + facts["reserved"] >= float(server.cost) - 1e-12
    assert server.keys <= {f"Bearer {KEY}"}
    return found


def priced(rates: dict[str, float], *, seed: int = 0, latency: float = 0.0) -> Misbehaving:
    return Misbehaving(rule, rates, seed=seed, price=A_TOKEN, latency=latency)


def kinds(found: dict[int, Verdict | Unheard]) -> Counter[str]:
    return Counter(
        "unheard"
        if isinstance(one, Unheard)
        else "unreadable"
        if one.preference is None
        else "verdict"
        for one in found.values()
    )


def test_without_faults_all_is_heard_and_counted_to_the_cent() -> None:
    server, budget = priced({}), Budget()
    found = heard(server, both_orders(N_ASKS), budget)
    assert kinds(found) == {"verdict": N_ASKS}
    assert budget.facts["spent"] == pytest.approx(float(server.cost), abs=1e-15)
    assert budget.facts["calls"] == server.n_charged == N_ASKS
    assert sum(one.cost for one in found.values()) == pytest.approx(float(server.cost))
    for n in range(0, N_ASKS, 2):  # the two orders of one pair agree
        assert found[n].preference + found[n + 1].preference == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_in_three_answers(fault: str) -> None:
    server, budget = priced({fault: 0.3}), Budget()
    timeout = SHORT if fault == "slow" else 20.0
    found = heard(server, both_orders(N_ASKS), budget, n_tries=12, timeout=timeout)
    n_faults = server.faults[fault]
    assert n_faults > N_ASKS / 6
    if fault == "no_choices":
        assert kinds(found) == {"verdict": N_ASKS - n_faults, "unheard": n_faults}
    elif fault in ODD:
        assert kinds(found) == {"verdict": N_ASKS - n_faults, "unreadable": n_faults}
    else:
        assert kinds(found) == {"verdict": N_ASKS}
        tried = sum(one.facts["n_tries"] for one in found.values())
        assert tried == len(server.bodies)
    n_lost = n_faults if fault in LOST else 0
    if fault == "slow":  # on a busy machine others are too
        assert budget.facts["unanswered"] >= n_lost
        return
    assert budget.facts["unanswered"] == n_lost
    assert (budget.facts["reserved"] > 0) == (n_lost > 0)
    n_away = n_faults if fault in TURNED_AWAY else 0
    assert budget.facts["calls"] == server.n_charged == len(server.bodies) - n_away


@pytest.mark.parametrize("seed", range(2))
def test_all_faults_together(seed: int) -> None:
    server = priced(dict.fromkeys(FAULTS, 0.05), seed=seed, latency=0.005)
    found = heard(server, both_orders(2 * N_ASKS), Budget(), n_tries=8, timeout=SHORT)
    counted = kinds(found)
    assert counted["verdict"] > N_ASKS / 2
    assert counted["unreadable"] > 0
    assert sum(counted.values()) == 2 * N_ASKS


def test_every_kind_of_fault_at_a_third_each() -> None:
    """Nearly nothing gets through, and the run still ends with a reason for each."""
    server = priced(dict.fromkeys(FAULTS, 0.3))
    found = heard(server, both_orders(N_ASKS), Budget(), n_tries=3, timeout=SHORT)
    assert kinds(found)["verdict"] < N_ASKS


def test_nothing_is_asked_where_nothing_may_be() -> None:
    server = priced({})
    assert kinds(heard(server, both_orders(4), Budget(max_calls=0))) == {"unheard": 4}
    assert kinds(heard(server, both_orders(4), Budget(max_cost=0.0))) == {"unheard": 4}
    assert server.bodies == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("limit", [{"max_cost": 0.02}, {"max_calls": 40}, {"max_cost": 0.0035}])
def test_caps_hold_by_the_servers_own_count(limit: Any, seed: int) -> None:
    server = priced(dict.fromkeys(FAULTS, 0.05), seed=seed)
    budget = Budget(**limit)
    found = heard(server, both_orders(2 * N_ASKS), budget, n_tries=8, timeout=SHORT)
    assert server.n_charged > 0
    if "max_cost" in limit:
        assert server.cost <= Fraction(str(limit["max_cost"]))
    else:
        assert server.n_charged <= limit["max_calls"]
    refused = [
        one for one in found.values() if isinstance(one, Unheard) and "not asked" in one.reason
    ]
    assert refused
    assert all("limit" in one.reason for one in refused)


def test_a_cap_in_dollars_is_used_while_the_server_counts_honestly() -> None:
    server, budget = priced({}), Budget(max_cost=0.02)
    heard(server, both_orders(400), budget)
    assert Fraction("0.018") < server.cost <= Fraction("0.02")


def test_no_traceback_tells_the_key() -> None:
    """Whatever ends the asking, also from deep inside of the client, and with all variables."""
    server = priced(dict.fromkeys(FAULTS, 0.05))
    told = []
    with wired(server.answer) as (url, _), judge_at(url, Budget(), timeout=SHORT) as judge:
        client: Any = judge._client
        post = client._openai.post

        async def slips(*args: Any, **kwargs: Any) -> Any:
            try:
                await post(*args, **kwargs)
            except Exception as error:
                raise RuntimeError("a slip of ours") from error
            raise RuntimeError("a slip of ours")

        client._openai.post = slips
        for n_asks in (2, 20):
            try:
                list(judge.decide(both_orders(n_asks)))
            except RuntimeError as error:
                whole = traceback.TracebackException.from_exception(error, capture_locals=True)
                told.append("".join(whole.format()))
        client._openai.post = post
        try:
            for _ in judge.decide(both_orders(N_ASKS)):
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            told.append(traceback.format_exc())
    assert len(told) == 3
    assert KEY[3:] not in "".join(told)


def test_a_server_that_repeats_the_key_in_a_reply_does_not_have_it_kept() -> None:
    server = Misbehaving(lambda asked: f"You sent {KEY}.\nVerdict: A", price=A_TOKEN)
    with wired(server.answer) as (url, _), judge_at(url, Budget()) as judge:
        ((_, verdict),) = judge.decide(both_orders(2)[:1])
    assert isinstance(verdict, Verdict)
    assert verdict.reply == "You sent ***.\nVerdict: A"
