"""The network part, against a server on this machine that does what servers do."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from prefbench.client import Client, Endpoint, Failure
from prefbench.engines.serving import free_port
from prefbench.errors import InputError
from tests.misbehaving import Reply, wired
from tests.serving import Said, scripted

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
        except ZeroDivisionError:
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


# --- answers one by one


def test_each_answer_comes_as_soon_as_it_is_there_and_to_the_caller() -> None:
    may_end = threading.Event()
    pulled_by = set()

    def first_waits(path: str, body: Any, seen: int) -> Said:
        if body["i"] == 0:
            may_end.wait(20)
        return Said(body)

    def made() -> Iterator[dict[str, int]]:
        for body in bodies(6):
            pulled_by.add(threading.current_thread())
            yield body

    with scripted(first_waits) as (url, _), client(url) as asked:
        found = []
        for index, outcome in asked.post_each("/completions", made()):
            assert outcome == {"i": index}
            found.append(index)
            if len(found) == 5:
                may_end.set()
        assert found[-1] == 0
        assert sorted(found) == list(range(6))
        assert pulled_by == {threading.main_thread()}


def test_bodies_are_made_when_they_are_needed() -> None:
    n_made = 0

    def made() -> Iterator[dict[str, int]]:
        nonlocal n_made
        for body in bodies(1000):
            n_made += 1
            yield body

    with scripted(echo) as (url, server), client(url, concurrency=3) as asked:
        answers = asked.post_each("/completions", made())
        assert n_made == 0
        for n_read, _ in enumerate(itertools.islice(answers, 20), 1):
            assert n_made <= n_read + 2 * 3
        answers.close()
        assert server.most_at_once <= 3


@pytest.mark.parametrize("latency", [0.0, 0.2])
def test_as_many_are_under_way_as_allowed(latency: float) -> None:
    def made() -> Iterator[dict[str, int]]:
        for body in bodies(160):
            sum(range(5000))  # as long as it takes to fill a template
            yield body

    def answer(path: str, body: Any, key: str | None) -> Reply:
        return Reply(body, delay=latency)

    with wired(answer) as (url, wire), client(url, concurrency=16) as asked:
        for index, outcome in asked.post_each("/completions", made()):
            assert outcome == {"i": index}
        assert wire.most_at_once == 16 or (not latency and wire.most_at_once < 16)


def test_who_stops_reading_ends_what_is_under_way() -> None:
    def answer(path: str, body: Any, key: str | None) -> Reply:
        return Reply(body, delay=30.0 if body["i"] else 0.0)

    with wired(answer) as (url, wire), client(url, concurrency=4) as asked:
        for index, outcome in asked.post_each("/completions", bodies(50)):
            assert (index, outcome) == (0, {"i": 0})
            assert soon(lambda: wire.n_at_once == 4)
            break
        assert soon(lambda: wire.n_at_once == 0)
        assert wire.n_broken_off == 4
        assert asked.post("/completions", [{"i": 0}]) == [{"i": 0}]


def soon(holds: Callable[[], bool]) -> bool:
    latest = time.monotonic() + 60
    while not holds() and time.monotonic() < latest:
        time.sleep(0.01)
    return holds()


def test_answers_that_nobody_reads_before_the_client_is_closed() -> None:
    with scripted(echo) as (url, _):
        with client(url) as asked:
            answers = asked.post_each("/completions", bodies(50))
            next(answers)
        answers.close()


def test_ctrl_c_between_answers() -> None:
    def answer(path: str, body: Any, key: str | None) -> Reply:
        if body["i"] == 5:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        return Reply(body, delay=30.0 if body["i"] > 4 else 0.0)

    with wired(answer) as (url, wire), client(url, concurrency=4) as asked:
        found = []
        with pytest.raises(KeyboardInterrupt):
            found.extend(asked.post_each("/completions", bodies(50)))
        assert {index for index, _ in found} <= set(range(5))
        assert soon(lambda: wire.n_at_once == 0)
        assert asked.post("/completions", [{"i": 0}]) == [{"i": 0}]


def test_what_cannot_be_made_ends_the_call() -> None:
    def made() -> Iterator[dict[str, int]]:
        yield {"i": 0}
        raise InputError("no such template")

    with scripted(echo) as (url, _), client(url) as asked:
        with pytest.raises(InputError, match="no such template"):
            list(asked.post_each("/completions", made()))
        assert len(asked.post("/completions", bodies(3))) == 3


def test_a_text_that_is_none_is_not_sent() -> None:
    with scripted(echo) as (url, _), client(url) as asked:
        good, bad = asked.post("/completions", [{"a": "\U0001f600"}, {"a": "\ud83d"}])
        assert isinstance(good, dict)
        assert isinstance(bad, Failure)
        assert bad.refused


def test_a_reply_that_trickles_takes_too_long() -> None:
    def answer(path: str, body: Any, key: str | None) -> Reply:
        return Reply({"a": "b" * 100}, seconds_a_byte=0.05)

    with wired(answer) as (url, _), client(url, timeout=0.3, n_tries=1) as asked:
        (failure,) = asked.post("/completions", [{}])
        assert isinstance(failure, Failure)
        assert "no answer within 0.3 s" in failure.message


def test_an_account_without_money_is_asked_once() -> None:
    def closed(path: str, body: Any, seen: int) -> Said:
        error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
        return Said({"error": error}, 429)

    with scripted(closed) as (url, server), client(url, concurrency=1) as asked:
        failures = asked.post("/completions", bodies(9))
        assert len(server.requests) == 1
        assert {failure.status for failure in failures if isinstance(failure, Failure)} == {402}


# --- how fast


def test_a_busy_server_is_asked_half_as_much_once_for_a_burst_and_then_slowly_more() -> None:
    n_seen = 0
    at_once: list[int] = []

    def answer(path: str, body: Any, key: str | None) -> Reply:
        nonlocal n_seen
        n_seen += 1
        at_once.append(wire.n_at_once)
        if n_seen <= 16:  # all of the first round
            return Reply({"error": {"message": "busy"}}, 429, delay=0.5)
        return Reply(body, delay=0.05)

    with wired(answer) as (url, wire), client(url, concurrency=16) as asked:
        outcomes = asked.post("/completions", bodies(200))
        assert outcomes == bodies(200)
    assert max(at_once[:16]) == 16
    assert max(at_once[16:24]) <= 8  # not 1, as if each had halved it
    assert max(at_once[16:40]) >= 7
    rises = [max(at_once[16 : 16 + n]) for n in (20, 60, 200)]
    assert rises[0] <= rises[1] <= rises[2]
    assert rises[2] >= 14


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_server_that_stays_busy_is_still_asked(status: int) -> None:
    def answer(path: str, body: Any, key: str | None) -> Reply:
        if wire.n_at_once > 1:
            return Reply({"error": {"message": "one at a time"}}, status)
        return Reply(body, delay=0.005)

    with wired(answer) as (url, wire), client(url, concurrency=8, n_tries=30) as asked:
        assert asked.post("/completions", bodies(30)) == bodies(30)


def test_a_pause_counts_for_all_requests() -> None:
    times: list[float] = []

    def answer(path: str, body: Any, key: str | None) -> Reply:
        times.append(time.monotonic())
        if len(times) == 3:
            return Reply({"error": {"message": "wait"}}, 429, {"retry-after": "0.4"})
        return Reply(body, delay=0.02)

    with wired(answer) as (url, _), client(url, concurrency=2) as asked:
        assert asked.post("/completions", bodies(40)) == bodies(40)
    paused_at = times[2]
    assert not [at for at in times if paused_at + 0.1 < at < paused_at + 0.4]
    assert max(times) - paused_at < 5


# --- gates


class Noted:
    """Lets everything pass but what it is told not to, and writes down what it hears."""

    def __init__(self, refuses: Callable[[int], bool] = lambda index: False) -> None:
        self.refuses = refuses
        self.taken: Counter[int] = Counter()
        self.back: Counter[int] = Counter()
        self.settled: dict[int, Any] = {}

    def take(self, index: int) -> str | None:
        if self.refuses(index):
            return "not asked: no money"
        self.taken[index] += 1
        return None

    def settle(self, index: int, answer: Mapping[str, Any]) -> None:
        self.settled[index] = answer

    def give_back(self, index: int) -> None:
        self.back[index] += 1


def test_a_gate_is_asked_before_every_try_and_hears_what_cost_nothing() -> None:
    first = [
        Reply({}, 429),
        Reply({}, 500),
        Reply({}, 503),
        Reply({}, 502),  # said by a gateway: what stands behind it may have computed
        Reply({}, 504),
        Reply("{}", delay=30.0),
        Reply("{}", n_sent=-1),
        Reply("{}", n_sent=1),
        Reply('{"cut'),
        Reply({}, 400),
        Reply({"fine": True}),
    ]
    seen: Counter[int] = Counter()

    def answer(path: str, body: Any, key: str | None) -> Reply:
        seen[body["i"]] += 1
        return first[body["i"]] if seen[body["i"]] == 1 else Reply(body)

    gate = Noted()
    with wired(answer) as (url, _), client(url, timeout=2.0) as asked:
        outcomes = dict(asked.post_each("/completions", bodies(11), gate=gate))
    assert gate.taken == seen == {**dict.fromkeys(range(9), 2), 9: 1, 10: 1}
    assert gate.back == dict.fromkeys([0, 1, 2, 9], 1)
    assert gate.settled == {i: one for i, one in outcomes.items() if i != 9}


def test_a_try_that_reaches_nobody_is_given_back() -> None:
    gate = Noted()
    with client(f"http://127.0.0.1:{free_port()}/v1", n_tries=3) as asked:
        list(asked.post_each("/completions", bodies(1), gate=gate))
    assert gate.taken == gate.back == {0: 3}


def test_what_a_gate_refuses_is_not_sent_and_opens_no_breaker() -> None:
    gate = Noted(refuses=lambda index: index % 10 > 0)
    with scripted(echo) as (url, server), client(url, n_given_up=1) as asked:
        outcomes = dict(asked.post_each("/completions", bodies(50), gate=gate))
    assert len(server.requests) == 5
    assert [isinstance(outcomes[i], Failure) for i in range(50)] == [i % 10 > 0 for i in range(50)]
    assert outcomes[1] == Failure("not asked: no money")


def test_a_gate_that_refuses_a_second_try() -> None:
    gate = Noted(refuses=lambda index: gate.taken[index] == 1)
    with (
        scripted(lambda *_: Said({"error": {"message": "oops"}}, 500)) as (url, _),
        client(url) as asked,
    ):
        ((_, failure),) = asked.post_each("/completions", bodies(1), gate=gate)
        assert isinstance(failure, Failure)
        assert failure.message.startswith("not asked: no money; the try before: http://")
        assert failure.message.endswith("HTTP 500: oops")


def test_a_gate_is_asked_again_while_tries_are_under_way_that_may_make_room() -> None:
    room = 3

    class Narrow(Noted):
        def take(self, index: int) -> str | None:
            nonlocal room
            if not room:
                return "full"
            room -= 1
            return None

        def settle(self, index: int, answer: Mapping[str, Any]) -> None:
            nonlocal room
            room += index < 40

    with wired(lambda path, body, key: Reply(body, delay=0.005)) as (url, wire):
        with client(url, concurrency=8) as asked:
            outcomes = dict(asked.post_each("/completions", bodies(60), gate=Narrow()))
        assert wire.most_at_once == 3
    full = [index for index, outcome in outcomes.items() if isinstance(outcome, Failure)]
    assert len(full) == 60 - 43
    assert min(full) >= 40
