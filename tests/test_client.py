"""The network part, against a server on this machine that does what servers do."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
import time
import traceback
from typing import Any

import numpy as np
import pytest

from prefbench.client import Client, Endpoint, Failure
from prefbench.errors import InputError
from tests.serving import Said, free_port, scripted

KEY = "sk-very-secret-0123456789"


def client(url: str, **settings: Any) -> Client:
    endpoint = Endpoint(url, **{"first_wait": 0.01, "timeout": 20.0, **settings})
    return Client(endpoint, rng=np.random.default_rng(0))


def echo(path: str, body: Any, seen: int) -> Said:
    return Said({"path": path, "body": body})


def bodies(n: int) -> list[dict[str, int]]:
    return [{"i": i} for i in range(n)]


def test_answers_come_in_the_order_of_the_requests() -> None:
    def slower_at_first(path: str, body: Any, seen: int) -> Said:
        return Said({"i": body["i"]}, delay=0.05 if body["i"] < 3 else 0.0)

    with scripted(slower_at_first) as (url, server), client(url, concurrency=4) as asked:
        assert asked.post("/chat/completions", bodies(20)) == bodies(20)
        assert {path for path, _ in server.requests} == {"/chat/completions"}
        assert 1 < server.most_at_once <= 4
        assert asked.post("/x", []) == []


def test_models_are_listed() -> None:
    with scripted(echo) as (url, _), client(url) as asked:
        assert asked.get("/models") == {"path": "/models", "body": None}


@pytest.mark.parametrize("header", ["retry-after-ms", "retry-after"])
def test_a_busy_server_is_given_the_time_it_asks_for(header: str) -> None:
    waits = {"retry-after-ms": "120", "retry-after": "0.12"}

    def busy(path: str, body: Any, seen: int) -> Said:
        if seen < 2:
            return Said({"error": {"message": "slow"}}, 429, {header: waits[header]})
        return Said({"n": seen})

    with scripted(busy) as (url, server), client(url) as asked:
        assert asked.post("/completions", [{}]) == [{"n": 2}]
        assert all(b - a >= 0.12 for a, b in itertools.pairwise(server.times))


def test_a_date_to_wait_for() -> None:
    def busy(path: str, body: Any, seen: int) -> Said:
        past = {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}
        return Said({}, 503, past) if seen == 0 else Said({"n": seen})

    with scripted(busy) as (url, _), client(url, first_wait=60.0) as asked:
        assert asked.post("/completions", [{}]) == [{"n": 1}]


def test_a_pause_longer_than_anyone_waits_is_not_waited_for() -> None:
    def closed(path: str, body: Any, seen: int) -> Said:
        return Said({"error": {"message": "come tomorrow"}}, 429, {"retry-after": "86400"})

    with scripted(closed) as (url, server), client(url) as asked:
        (failure,) = asked.post("/completions", [{}])
        assert isinstance(failure, Failure)
        assert failure.message.endswith("HTTP 429: come tomorrow; tried once")
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_what_may_pass_is_tried_again(status: int) -> None:
    def recovers(path: str, body: Any, seen: int) -> Said:
        return Said({"error": "no"}, status) if seen < 2 else Said({"n": seen})

    with scripted(recovers) as (url, server), client(url) as asked:
        assert asked.post("/completions", [{}]) == [{"n": 2}]
        assert len(server.requests) == 3


@pytest.mark.parametrize("text", ["<html>proxy</html>", "[1]", '{"cut":', ""])
def test_garbage_is_tried_again_and_quoted(text: str) -> None:
    def garbage(path: str, body: Any, seen: int) -> Said:
        return Said(text) if body["i"] or not seen else Said({"n": seen})

    with scripted(garbage) as (url, _), client(url, n_tries=2) as asked:
        good, bad = asked.post("/completions", bodies(2))
        assert good == {"n": 1}
        assert isinstance(bad, Failure)
        assert f"answered with no JSON object but {text!r}" in bad.message
        assert bad.message.endswith("tried 2 times")


def test_a_request_that_is_refused_loses_no_other_and_is_not_repeated() -> None:
    def picky(path: str, body: Any, seen: int) -> Said:
        return Said({"error": {"message": "too long"}}, 400) if body["i"] == 1 else Said(body)

    with scripted(picky) as (url, server), client(url) as asked:
        first, refused, third = asked.post("/completions", bodies(3))
        assert (first, third) == ({"i": 0}, {"i": 2})
        assert refused == Failure(f"{url}/completions: HTTP 400: too long", 400, refused=True)
        assert len(server.requests) == 3


def test_a_server_that_hangs() -> None:
    def hangs(path: str, body: Any, seen: int) -> Said:
        return Said(body, hangs=body["i"] == 1)

    with scripted(hangs) as (url, _), client(url, timeout=0.3, n_tries=2) as asked:
        answered, hung = asked.post("/completions", bodies(2))
        assert answered == {"i": 0}
        assert isinstance(hung, Failure)
        assert "no answer within 0.3 s" in hung.message
        assert not hung.refused


def test_no_server_at_all() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    with client(url, n_tries=2) as asked:
        (failure,) = asked.post("/completions", [{}])
        assert isinstance(failure, Failure)
        assert f"{url}/completions: cannot be reached" in failure.message
        assert "is the server running, and is the base URL right?" in failure.message


def test_a_server_that_only_fails_is_left_alone() -> None:
    def broken(path: str, body: Any, seen: int) -> Said:
        return Said({"error": {"message": "out of memory"}}, 500)

    with (
        scripted(broken) as (url, server),
        client(url, n_tries=2, concurrency=2, n_given_up=3) as asked,
    ):
        failures = asked.post("/completions", bodies(50))
        assert all(isinstance(one, Failure) and one.status == 500 for one in failures)
        assert len(server.requests) <= 10
        last = failures[-1]
        assert isinstance(last, Failure)
        assert f"{url}/completions: HTTP 500: out of memory" in last.message
        assert "3 requests in a row failed, so the others were not sent" in last.message


def test_failures_between_answers_do_not_end_a_call() -> None:
    def every_other(path: str, body: Any, seen: int) -> Said:
        return Said({}, 500) if body["i"] % 2 else Said(body)

    with (
        scripted(every_other) as (url, _),
        client(url, n_tries=1, concurrency=1, n_given_up=2) as asked,
    ):
        outcomes = asked.post("/completions", bodies(20))
        assert [isinstance(one, Failure) for one in outcomes] == [False, True] * 10


def test_a_call_after_the_server_is_back() -> None:
    is_up = threading.Event()

    def restarts(path: str, body: Any, seen: int) -> Said:
        return Said({"up": True}) if is_up.is_set() else Said({}, 503)

    with scripted(restarts) as (url, _), client(url, n_tries=1, n_given_up=1) as asked:
        assert isinstance(asked.post("/completions", [{}])[0], Failure)
        is_up.set()
        assert asked.post("/completions", [{}]) == [{"up": True}]


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "name the environment variable that holds the key"),
        (404, "is the model served, and does the base URL end in /v1?"),
    ],
)
def test_what_every_request_would_get_is_asked_once(status: int, advice: str) -> None:
    def closed(path: str, body: Any, seen: int) -> Said:
        return Said({"error": {"message": "no"}}, status)

    with scripted(closed) as (url, server), client(url, concurrency=1) as asked:
        failures = asked.post("/completions", bodies(9))
        assert len(server.requests) == 1
        for failure in failures:
            assert isinstance(failure, Failure)
            assert advice in failure.message
            assert not failure.refused


def test_the_key_is_sent_and_told_to_nobody(monkeypatch: Any, caplog: Any, capfd: Any) -> None:
    def tells(path: str, body: Any, seen: int) -> Said:
        return Said({"error": {"message": f"wrong key {KEY}", "key": KEY}}, 400 + body["i"])

    monkeypatch.setenv("THE_KEY", f"{KEY}\n")
    caplog.set_level(logging.DEBUG)
    with scripted(tells) as (url, server), client(url, api_key_env="THE_KEY", n_tries=2) as asked:
        outcomes = asked.post("/completions", [{"i": 0}, {"i": 1}, {"i": 29}, {"i": 100}])
        assert set(server.keys) == {f"Bearer {KEY}"}
        told = [repr(asked), str(asked), repr(asked.endpoint), *map(repr, outcomes)]
        assert all(isinstance(one, Failure) and "wrong key ***" in one.message for one in outcomes)
        monkeypatch.setattr(asked._openai, "post", lambda *a, **k: 1 / 0)
        try:
            asked.post("/completions", [{"i": 0}])
        except BaseExceptionGroup:
            told.append(traceback.format_exc())
    out, err = capfd.readouterr()
    for text in (*told, caplog.text, out, err):
        assert KEY not in text
        assert KEY[3:] not in text


def test_without_a_key_none_of_the_environment_is_sent(monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with scripted(echo) as (url, server), client(url) as asked:
        asked.post("/completions", [{}])
        assert server.keys == ["Bearer none"]


def test_a_key_that_is_not_set_is_named_and_a_key_as_name_is_not(monkeypatch: Any) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(InputError, match="the environment variable MY_KEY is not set"):
        client("http://127.0.0.1/v1", api_key_env="MY_KEY")
    with pytest.raises(InputError) as caught:
        client("http://127.0.0.1/v1", api_key_env=KEY)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "", "http://[::1/v1"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InputError, match="the base URL is no address"):
        client(url)


def test_a_url_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="the base URL holds more than https://host/v1") as caught:
        client(f"https://user:{KEY}@host/v1")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_no_proxy_catches_this_machine(name: str, monkeypatch: Any) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with scripted(echo) as (url, _), client(url.replace("127.0.0.1", name)) as asked:
        assert asked.get("/models") == {"path": "/models", "body": None}


def test_ctrl_c_ends_the_waiting_and_the_client_goes_on() -> None:
    def hangs(path: str, body: Any, seen: int) -> Said:
        if body["i"] == 0:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        return Said(body, hangs=body["i"] == 0)

    with scripted(hangs) as (url, _), client(url) as asked:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            asked.post("/completions", bodies(3))
        assert time.monotonic() - began < 15
        assert asked.post("/completions", [{"i": 1}]) == [{"i": 1}]


def test_inside_of_a_loop_of_the_callers_own() -> None:
    import asyncio

    async def notebook(asked: Client) -> Any:
        return asked.post("/completions", [{}])

    with scripted(echo) as (url, _), client(url) as asked:
        assert asyncio.run(notebook(asked)) == [{"path": "/completions", "body": {}}]
    asked.close()
