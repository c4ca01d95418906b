"""A judge behind a server: what it is sent, and what each kind of answer becomes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from prefbench.client import Endpoint
from prefbench.errors import JudgeError
from prefbench.judges.budget import Budget
from prefbench.judges.chat import ChatJudge, body_of, verdict_of
from prefbench.judges.judge import Ask, Turn, Unheard, Verdict
from prefbench.judges.prompts import draw_delimiter, render
from prefbench.judges.recipe import JudgeRecipe
from tests.misbehaving import Reply, wired

ASKS = [Ask((Turn("user", f"Which is larger, {n} or 2?"),), f"{n} is.", "2 is.") for n in range(12)]
BY_LINE = {"by": "line", "marker": "Verdict:", "labels": {"A": 1, "tie": 0.5, "B": 0}}
SCHEMA = {"type": "object", "properties": {"better": {"type": "string"}}}
BY_JSON = {"by": "json", "marker": "better", "labels": {"A": 1, "B": 0}, "schema": SCHEMA}
BY_LOGPROBS = {"by": "logprobs", "labels": {"A": 1, "B": 0}}


def recipe(**facts: Any) -> JudgeRecipe:
    return JudgeRecipe.model_validate(
        {
            "judge": "tested",
            "kind": "openai",
            "model": "m",
            "endpoint": {"base_url": "http://127.0.0.1:1/v1"},
            "prompt": "{{ prompt }}\nA: {{ first }}\nB: {{ second }}",
            "verdict": BY_LINE,
            "price": {"input": 1.0, "output": 10.0},
            **facts,
        }
    )


def completion(content: Any = "Verdict: A", **facts: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **facts.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **facts.pop("choice", {})}
    return {
        "id": "chatcmpl-1",
        "model": "m-2026",
        "system_fingerprint": "fp",
        "choices": [choice],
        "usage": {"prompt_tokens": 50, "completion_tokens": 5},
        **facts,
    }


def opened(url: str, budget: Budget | None = None, **facts: Any) -> ChatJudge:
    patience = {"first_wait": 0.01, "timeout": 10.0, "concurrency": 4}
    return ChatJudge(
        recipe(**facts),
        budget=budget or Budget(),
        endpoint=Endpoint(url, **patience),  # type: ignore[arg-type]
    )


def saying(answer: Callable[[Any], Reply]) -> Any:
    return wired(lambda path, body, key: answer(body))


# --- what is sent


def test_a_request_says_all_that_the_recipe_says() -> None:
    asked = recipe(
        system="You judge.",
        sampling={"temperature": 0.5, "top_p": 0.9, "max_tokens": 77, "seed": 3},
    )
    delimiter = draw_delimiter()
    assert body_of(asked, ASKS[0], delimiter) == {
        "model": "m",
        "messages": render(asked, ASKS[0], delimiter=delimiter),
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 77,
        "seed": 3,
    }


def test_what_is_not_said_is_not_sent() -> None:
    body = body_of(recipe(sampling={"seed": None}), ASKS[0], draw_delimiter())
    assert not {"seed", "reasoning_effort", "logprobs", "response_format"} & set(body)
    body = body_of(recipe(sampling={"reasoning": "low"}), ASKS[0], draw_delimiter())
    assert body["reasoning_effort"] == "low"


def test_a_schema_is_sent_for_json() -> None:
    body = body_of(recipe(verdict=BY_JSON), ASKS[0], draw_delimiter())
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA},
    }
    without = {name: value for name, value in BY_JSON.items() if name != "schema"}
    body = body_of(recipe(verdict=without), ASKS[0], draw_delimiter())
    assert "response_format" not in body


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("http://api.openai.com.example.org/v1", "max_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
        ("http://127.0.0.1:8000/v1", "max_tokens"),
    ],
)
def test_the_limit_has_the_name_that_the_server_knows(url: str, name: str) -> None:
    body = body_of(recipe(endpoint={"base_url": url}), ASKS[0], draw_delimiter())
    assert {key: value for key, value in body.items() if "tokens" in key} == {name: 512}


@pytest.mark.parametrize(("sampling", "n"), [({}, 1), ({"max_tokens": 16}, 16)])
def test_log_probs_are_asked_of_the_first_token(sampling: Any, n: int) -> None:
    body = body_of(recipe(verdict=BY_LOGPROBS, sampling=sampling), ASKS[0], draw_delimiter())
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, n)


# --- what is answered


def test_a_verdict_keeps_the_reply_and_where_it_comes_from() -> None:
    answer = completion("I think.\nVerdict: B", message={"reasoning_content": "Hm."})
    assert verdict_of(recipe(), answer) == Verdict(
        0.0,
        None,
        "I think.\nVerdict: B",
        50,
        5,
        pytest.approx(100e-6),  # type: ignore[arg-type]
        {
            "model": "m-2026",
            "system_fingerprint": "fp",
            "finish_reason": "stop",
            "reasoning": "Hm.",
            "label": "B",
        },
    )


@pytest.mark.parametrize(
    ("answer", "reason", "reply"),
    [
        (completion(""), "the reply is empty", ""),
        (completion(" \n"), "the reply is empty", " \n"),
        (completion(None), "the reply is empty", ""),
        (completion(None, message={"refusal": "I can't."}), "the judge refused", "I can't."),
        (completion(message={"refusal": "No."}), "the judge refused", "Verdict: A"),
        (completion("Verdict: Q"), "not one of the labels", "Verdict: Q"),
        (completion("Verdict: A\nVerdict: B"), "two verdicts", "Verdict: A\nVerdict: B"),
        (completion("A is", choice={"finish_reason": "length"}), "cut at the token limit", "A is"),
        (completion("", choice={"finish_reason": "length"}), "cut at the token limit", ""),
        (completion(choice={"finish_reason": "length"}), "cut at the token limit", "Verdict: A"),
        (
            completion(choice={"finish_reason": "content_filter"}),
            "stopped by the server's content filter",
            "Verdict: A",
        ),
        (
            completion(choice={"finish_reason": "abort"}),
            "the server ended the reply: 'abort'",
            "Verdict: A",
        ),
        (completion([{"type": "text"}]), "the reply is no text", None),
        (completion(choice={"message": None}), "the reply is no message", None),
        (completion(choices=["Verdict: A"]), "the reply is no message", None),
        (
            completion(choices=completion()["choices"] * 2),
            "several replies where one was asked for",
            None,
        ),
    ],
)
def test_a_reply_that_says_no_verdict_is_unreadable_and_kept(
    answer: Any, reason: str, reply: str | None
) -> None:
    verdict = verdict_of(recipe(), answer)
    assert isinstance(verdict, Verdict)
    assert verdict.preference is None
    assert reason in str(verdict.reason)
    assert (verdict.n_in, verdict.n_out) == (50, 5)
    if reply is None:  # what is no text is kept as it came
        assert json.loads(verdict.reply) == answer["choices"]
    else:
        assert verdict.reply == reply


@pytest.mark.parametrize("choices", [None, [], {}, "Verdict: A"])
def test_an_answer_without_choices_is_none(choices: Any) -> None:
    answer = {**completion(), "choices": choices, "error": {"message": "upstream failed"}}
    found = verdict_of(recipe(), answer)
    assert isinstance(found, Unheard)
    assert found.reason.startswith("the server answered without a reply: ")
    assert "upstream failed" in found.reason


def test_a_server_need_not_say_how_a_reply_ended() -> None:
    for finish in (None, "eos_token"):
        found = verdict_of(recipe(), completion(choice={"finish_reason": finish}))
        assert isinstance(found, Verdict)
        assert found.preference == 1.0


def test_json_is_read() -> None:
    found = verdict_of(recipe(verdict=BY_JSON), completion('{"better": "B"}'))
    assert isinstance(found, Verdict)
    assert found.preference == 0.0


def test_probabilities_of_the_first_token() -> None:
    first = {
        "token": "A",
        "logprob": math.log(0.6),
        "top_logprobs": [
            {"token": "A", "logprob": math.log(0.6)},
            {"token": " A", "logprob": math.log(0.1)},
            {"token": "B", "logprob": math.log(0.3)},
        ],
    }
    answer = completion("A", choice={"logprobs": {"content": [first]}, "finish_reason": "length"})
    found = verdict_of(recipe(verdict=BY_LOGPROBS), answer)
    assert isinstance(found, Verdict)
    assert found.preference == pytest.approx(0.7)
    assert found.facts["mass"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "logprobs", [None, {}, {"content": None}, {"content": []}, {"content": ["A"]}, [1]]
)
def test_log_probs_that_are_none(logprobs: Any) -> None:
    found = verdict_of(recipe(verdict=BY_LOGPROBS), completion("A", choice={"logprobs": logprobs}))
    assert isinstance(found, Verdict)
    assert found.preference is None
    assert found.reply == "A"


@pytest.mark.parametrize(
    "top", [None, "A", [1, {"token": 3}, {"token": "B", "logprob": "x"}], [{}]]
)
def test_the_token_itself_is_a_candidate(top: Any) -> None:
    first = {"token": "A", "logprob": -0.1, "top_logprobs": top}
    found = verdict_of(
        recipe(verdict=BY_LOGPROBS), completion("A", choice={"logprobs": {"content": [first]}})
    )
    assert isinstance(found, Verdict)
    assert found.preference == 1.0


# --- a judge at work


def larger(body: Any) -> Reply:
    """The answer that says the larger number; two where both do."""
    n = int(body["messages"][-1]["content"].split("larger, ")[1].split(" or")[0])
    return Reply(completion("Verdict: " + ("tie" if n == 2 else "A" if n > 2 else "B")))


def test_all_asks_are_heard_and_paid() -> None:
    budget = Budget(max_cost=1.0)
    with saying(larger) as (url, _), opened(url, budget) as judge:
        found = dict(judge.decide(ASKS))
        assert len(found) == len(ASKS)
        for n, verdict in found.items():
            assert isinstance(verdict, Verdict)
            assert verdict.preference == (0.5 if n == 2 else float(n > 2))
            assert (verdict.n_in, verdict.n_out) == (50, 5)
            assert verdict.cost == pytest.approx(100e-6)
            assert verdict.facts["n_tries"] == 1
            assert "adapted" not in verdict.facts
        assert list(judge.decide([])) == []
    assert budget.facts["spent"] == pytest.approx(len(ASKS) * 100e-6)
    assert budget.facts["calls"] == len(ASKS)


def test_tries_are_counted_and_a_bound_is_paid_where_the_server_does_not_count() -> None:
    seen: dict[str, int] = {}

    def twice(body: Any) -> Reply:
        text = body["messages"][-1]["content"].splitlines()[2]
        seen[text] = seen.get(text, 0) + 1
        return Reply({}, 500) if seen[text] == 1 else Reply(completion(usage=None))

    budget = Budget()
    with saying(twice) as (url, _), opened(url, budget) as judge:
        verdicts = [verdict for _, verdict in judge.decide(ASKS[:3])]
    for verdict in verdicts:
        assert isinstance(verdict, Verdict)
        assert verdict.facts["n_tries"] == 2
        assert verdict.n_out == 512
        assert verdict.n_in > 256
        assert verdict.cost > 512 * 10e-6
    assert budget.facts["calls"] == 3
    assert budget.facts["reserved"] == 0


def test_what_the_budget_does_not_allow_is_unheard() -> None:
    budget = Budget(max_calls=5)
    with saying(larger) as (url, wire), opened(url, budget) as judge:
        found = dict(judge.decide(ASKS))
    unheard = [one for one in found.values() if isinstance(one, Unheard)]
    assert len(found) == len(ASKS)
    assert unheard == [Unheard("not asked: the limit of 5 calls is reached")] * 7
    assert wire.most_at_once <= 4


def test_a_limit_in_dollars_is_used_up_although_bounds_are_high() -> None:
    a_call = 100e-6  # and a bound of 50 times as much
    budget = Budget(max_cost=0.02)
    asks = ASKS * 20
    with saying(larger) as (url, _), opened(url, budget) as judge:
        found = dict(judge.decide(asks))
    n_heard = sum(isinstance(one, Verdict) for one in found.values())
    assert n_heard * a_call <= 0.02
    assert n_heard * a_call > 0.02 - 2 * 60 * a_call
    assert len(found) == len(asks)


def test_who_stops_asking_pays_for_what_is_under_way_at_most() -> None:
    n_asked = 0

    def counted(body: Any) -> Reply:
        nonlocal n_asked
        n_asked += 1
        return Reply(larger(body).body, delay=0.02)

    with saying(counted) as (url, _), opened(url) as judge:
        for _ in judge.decide(ASKS * 20):
            break
    assert n_asked <= 3 * 4


def test_a_server_that_is_away_is_not_heard() -> None:
    oops = Reply({"error": {"message": "oops"}}, 500)
    with saying(lambda body: oops) as (url, _), opened(url) as judge:
        found = dict(judge.decide(ASKS * 4))
    assert len(found) == 4 * len(ASKS)
    assert all(
        isinstance(one, Unheard) and "HTTP 500: oops" in one.reason for one in found.values()
    )


@pytest.mark.parametrize("status", [401, 402, 404])
def test_what_no_ask_would_get_past_fails_the_judge_but_loses_no_reply(status: int) -> None:
    n_seen = 0

    def revoked(body: Any) -> Reply:
        nonlocal n_seen
        n_seen += 1
        return larger(body) if n_seen <= 6 else Reply({"error": {"message": "no"}}, status)

    found: list[Any] = []
    with (
        saying(revoked) as (url, _),
        opened(url) as judge,
        pytest.raises(JudgeError, match=f"judge tested: http.*HTTP {status}: no"),
    ):
        found.extend(judge.decide(ASKS * 10))  # keeps what came before the error
    assert len(found) == 6
    assert n_seen <= 6 + 4


def test_one_ask_that_cannot_be_put_does_not_end_the_others() -> None:
    odd = "{% if reference %}{{ 1 // 0 }}{% endif %}{{ prompt }}{{ first }}{{ second }}"
    asks = [ASKS[0], Ask(ASKS[1].conversation, "1 is.", "2 is.", reference="2"), ASKS[3]]
    with saying(larger) as (url, _), opened(url, prompt=odd) as judge:
        found = dict(judge.decide(asks))
        assert isinstance(found[0], Verdict)
        assert isinstance(found[2], Verdict)
        assert isinstance(found[1], Unheard)
        assert "prompt" in found[1].reason
        with pytest.raises(JudgeError, match="tested: prompt"):
            list(judge.decide(asks[1:2]))


# --- parameters that a server does not take

NEWER = {
    "error": {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead.",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "unsupported_parameter",
    }
}
ONLY_ONE = {
    "error": {
        "message": "Unsupported value: 'temperature' does not support 0.0 with this model. Only "
        "the default (1) value is supported.",
        "param": "temperature",
        "code": "unsupported_value",
    }
}


def like_a_newer_model(body: Any) -> Reply:
    if "max_tokens" in body:
        return Reply(NEWER, 400)
    assert body["max_completion_tokens"] == 512
    if "temperature" in body:
        return Reply(ONLY_ONE, 400)
    return larger(body)


def test_a_newer_name_of_a_parameter_is_learnt_and_written_down() -> None:
    budget = Budget(max_calls=2 * len(ASKS))
    with (
        saying(like_a_newer_model) as (url, _),
        opened(url, budget, sampling={"temperature": 1}) as judge,
    ):
        found = dict(judge.decide(ASKS))
        again = dict(judge.decide(ASKS))
    for one in (found, again):
        assert len(one) == len(ASKS)
        for verdict in one.values():
            assert isinstance(verdict, Verdict)
            assert verdict.preference is not None
            assert verdict.facts["adapted"] == [
                "max_completion_tokens for max_tokens",
                "without temperature",
            ]
    assert budget.facts["calls"] == 2 * len(ASKS)


def test_a_temperature_is_not_changed_in_silence() -> None:
    with (
        saying(like_a_newer_model) as (url, _),
        opened(url) as judge,
        pytest.raises(
            JudgeError, match=r"its YAML needs `sampling: \{temperature: 1\}`; the model"
        ),
    ):
        list(judge.decide(ASKS))


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("Unknown parameter: 'seed'.", "needs `sampling: {seed: null}`"),
        ("'top_p' is not supported with this model", "needs `sampling: {top_p: 1}`"),
        ("'reasoning_effort' does not support 'low'", "needs no `sampling.reasoning`"),
        ("'response_format' of type 'json_schema' is not supported", "needs no `verdict.schema`"),
        ("logprobs are not supported with reasoning models", "`verdict: {by: line}` or json"),
    ],
)
def test_what_to_write_where_a_parameter_is_not_taken(message: str, advice: str) -> None:
    facts = {"sampling": {"top_p": 0.5, "seed": 1, "reasoning": "low"}}
    with (
        saying(lambda body: Reply({"error": {"message": message}}, 400)) as (url, _),
        opened(url, **facts) as judge,
        pytest.raises(JudgeError) as caught,
    ):
        list(judge.decide(ASKS))
    assert message in str(caught.value)
    assert advice in str(caught.value)


def test_an_ask_that_is_too_long_is_unheard_alone() -> None:
    def picky(body: Any) -> Reply:
        message = "maximum context length is 40 tokens; you asked for max_tokens 512"
        is_long = "larger, 3" in body["messages"][-1]["content"]
        return Reply({"error": {"message": message}}, 400) if is_long else larger(body)

    with saying(picky) as (url, _), opened(url) as judge:
        found = dict(judge.decide(ASKS))
    unheard = {n: one for n, one in found.items() if isinstance(one, Unheard)}
    assert set(unheard) == {3}
    assert "maximum context length" in unheard[3].reason


# --- opening


def test_the_key_of_a_judge_hangs_on_where_it_is_asked_and_not_on_how_patiently() -> None:
    asked = recipe()
    with ChatJudge(asked, budget=Budget()) as plain:
        assert plain.key == asked.key
        assert (plain.endpoint.concurrency, plain.endpoint.timeout) == (32, 120.0)
    patient = Endpoint("http://127.0.0.1:1/v1", timeout=5.0)
    with ChatJudge(asked, budget=Budget(), endpoint=patient) as other:
        assert other.key == asked.key
    with ChatJudge(asked, budget=Budget(), endpoint=Endpoint("http://127.0.0.1:2/v1")) as moved:
        assert moved.key != asked.key


def test_a_server_gives_no_scores() -> None:
    with pytest.raises(JudgeError, match="only reward models give a score"):
        ChatJudge(recipe(verdict={"by": "score", "labels": {"A": 1}}), budget=Budget())


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ({"base_url": "localhost:8000"}, "judge tested: endpoint: the base URL is no address"),
        (
            {"base_url": "http://127.0.0.1:1/v1", "api_key_env": "NOT_SET_KEY"},
            "judge tested: endpoint: the environment variable NOT_SET_KEY is not set",
        ),
    ],
)
def test_an_endpoint_that_cannot_be_asked(endpoint: Any, message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        ChatJudge(recipe(endpoint=endpoint), budget=Budget())


def test_dollars_are_not_limited_without_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "k")
    facts = recipe(endpoint={"base_url": "http://127.0.0.1:1/v1", "api_key_env": "THE_KEY"})
    unpriced = JudgeRecipe.model_validate(
        facts.model_dump(by_alias=True, exclude={"price"}, exclude_unset=True)
    )
    with pytest.raises(JudgeError, match="judge tested: no limit in dollars can hold without its"):
        ChatJudge(unpriced, budget=Budget(max_cost=1.0))
    ChatJudge(unpriced, budget=Budget(max_calls=1)).close()
    ChatJudge(facts, budget=Budget(max_cost=1.0)).close()
