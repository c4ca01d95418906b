"""Many requests to one OpenAI-compatible endpoint: patiently, and none loses another."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import email.utils
import json
import math
import os
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import openai

from prefbench.addresses import is_loopback, unusable
from prefbench.errors import InputError

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
LONGEST_BACKOFF = 30.0
LONGEST_WAIT = 300.0
"""Seconds: the longest pause that a server may ask for and gets."""
QUOTED = 300
"""Characters of a server's own words that a message repeats."""
WORTHLESS = frozenset({401, 402, 404, 405})
"""Statuses that every other request would get as well: the key, the account or the URL is wrong."""
PASSING = frozenset({408, 409, 429})
"""Statuses below 500 that may be gone at the next try."""
BUSY = frozenset({429, 503, 529})
"""Statuses of a server that is asked too much at once."""
FROM_BETWEEN = frozenset({408, 502, 504, *range(520, 528)})
"""Statuses of a gateway that got no answer; the server behind it may have made one, and charge."""
NEVER_CONNECTED = frozenset({"ConnectError", "ConnectTimeout"})
"""Causes of errors by name: which package they are of hangs on the version of openai."""
NO_MONEY_LEFT = "insufficient_quota"
"""What OpenAI calls it, with the status of a server that is only busy."""


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and how patiently.

    Args:
        base_url: as OpenAI clients take it, usually ending in /v1.
        api_key_env: the environment variable that holds the key, where one is needed.
        concurrency: requests under way at once, at most; fewer while the server is busy.
        timeout: seconds that one try may take.
        n_tries: how often a request is tried in all.
        first_wait: seconds before the second try; each later wait is twice as long.
        n_given_up: requests given up on in a row, with no answer in between, that end a call.
    """

    base_url: str
    api_key_env: str | None = None
    concurrency: int = 32
    timeout: float = 600.0
    n_tries: int = 6
    first_wait: float = 0.5
    n_given_up: int = 5


@dataclass(frozen=True)
class Failure:
    """Why a request has no answer; `refused` where the request itself is at fault, not the rest."""

    message: str
    status: int | None = None
    refused: bool = False


Outcome: TypeAlias = "dict[str, Any] | Failure"


class Gate(Protocol):
    """Asked before every try whether it may be sent, also when a request is tried again.

    It is called on the client's own thread, and hears how each try that it let pass ended, unless
    that may have been charged without an answer: a time-out, a dropped connection, a cut reply.
    """

    def take(self, index: int) -> str | None:
        """Why a try must not be sent; None where it may."""

    def settle(self, index: int, answer: Mapping[str, Any]) -> None:
        """The try was answered."""

    def give_back(self, index: int) -> None:
        """The try cost nothing: it reached nobody, or was turned away."""


class Client:
    """An open endpoint. Its requests run on a thread of its own, so that any caller may wait."""

    def __init__(self, endpoint: Endpoint, *, rng: np.random.Generator | None = None) -> None:
        """Connects to nothing yet.

        Args:
            endpoint: where requests go.
            rng: draws the jitter of the waits.

        Raises:
            InputError: the URL is none, or the key's variable is not set.
        """
        self.endpoint = endpoint
        if why := unusable(endpoint.base_url):
            raise InputError(f"the base URL {why}")
        self._url = endpoint.base_url
        self._key = _key(endpoint.api_key_env)
        self._rng = np.random.default_rng() if rng is None else rng
        self._openai = openai.AsyncOpenAI(
            base_url=self._url,
            api_key=self._key or "none",
            max_retries=0,  # it would not say that it waits, and its tries could not be counted
            timeout=openai.Timeout(endpoint.timeout, connect=CONNECT_TIMEOUT),
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not is_loopback(self._url)),
        )
        self._pace = _Pace(endpoint.concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="client", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"Client({self._url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *raised: Any) -> None:
        self.close()

    def get(self, path: str) -> Outcome:
        """One answer to a GET."""
        return self._wait_for(self._persist(path, None, _Call(self.endpoint.n_given_up)))

    def post(self, path: str, bodies: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """An answer to each body, or why there is none, in order.

        Every call tries anew: a server that was down may be back.
        """
        outcomes = dict(self.post_each(path, bodies))
        return [outcomes[index] for index in range(len(bodies))]

    def post_each(
        self, path: str, bodies: Iterable[Mapping[str, Any]], *, gate: Gate | None = None
    ) -> Generator[tuple[int, Outcome]]:
        """Each body's number and answer, or why there is none, as soon as it comes.

        Bodies are made on the caller's thread and not before they are needed: no more than twice
        `concurrency` are sent or wait, unread answers among them. Whoever stops iterating ends what
        is under way.
        """
        call = _Call(self.endpoint.n_given_up, gate)
        ended: _Ended = queue.SimpleQueue()
        open_: set[concurrent.futures.Future[Outcome]] = set()
        rest, has_more, most = enumerate(bodies), True, 2 * self.endpoint.concurrency
        try:
            while has_more or open_:
                for _ in range(2):  # one would never catch up with a server that is fast
                    if has_more and len(open_) < most:
                        index, body = next(rest, (-1, None))
                        if has_more := body is not None:
                            work = self._persist(path, body, call, index)
                            future = asyncio.run_coroutine_threadsafe(work, self._loop)
                            open_.add(future)
                            future.add_done_callback(partial(_put, ended, index))
                is_full = not has_more or len(open_) >= most
                if open_ and (is_full or not ended.empty()):
                    index, future = ended.get()
                    open_.remove(future)
                    yield index, future.result()
        finally:
            for future in open_:
                future.cancel()
            if open_ and not self._loop.is_closed():
                self._wait_for(asyncio.sleep(0))  # behind all that was cancelled

    def close(self) -> None:
        """Ends what is under way."""
        if self._loop.is_closed():
            return
        self._wait_for(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C reaches this thread alone
            future.cancel()
            raise

    async def _end(self) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._openai.close()

    async def _persist(
        self, path: str, body: Mapping[str, Any] | None, call: _Call, index: int = 0
    ) -> Outcome:
        """One request, tried until there is an answer or no sense in trying."""
        setback: _Setback | None = None
        for n_tries in range(1, self.endpoint.n_tries + 1):
            if not await self._pace.begin(call):
                return call.ended_by()
            try:
                reason = await call.refusal(index)
                if call.failure:
                    if not reason:
                        call.give_back(index)
                    return call.failure
                if reason:
                    before = f"; the try before: {setback.message}" if setback else ""
                    return Failure(f"{reason}{before}")
                round_ = self._pace.round
                with call.try_under_way():
                    outcome = await self._try(path, body)
                    call.account(index, outcome)
                if not isinstance(outcome, _Setback):
                    if isinstance(outcome, dict):
                        self._pace.answered()
                    return outcome
                setback = outcome
                if setback.is_busy:
                    self._pace.slow_down(round_)
                wait = self._wait_before(n_tries + 1, setback)
                if n_tries == self.endpoint.n_tries or wait > LONGEST_WAIT:
                    return call.given_up(setback, n_tries)
                if setback.retry_after is not None:
                    self._pace.pause(wait)  # all: whatever else is sent would be turned away too
            finally:
                self._pace.end()
            if setback.retry_after is None:
                await call.sleep(wait)
        raise AssertionError("a request is tried at least once")

    def _wait_before(self, n_try: int, setback: _Setback) -> float:
        """Seconds before a try: what the server asks for, else twice as long each time."""
        if setback.retry_after is not None:
            return setback.retry_after
        longest = min(self.endpoint.first_wait * 2.0 ** (n_try - 2), LONGEST_BACKOFF)
        return longest * float(self._rng.uniform(0.5, 1.0))

    async def _try(self, path: str, body: Mapping[str, Any] | None) -> Outcome | _Setback:
        # Messages are built here and raised elsewhere: the client's own errors hold the request,
        # and with it the key, and must not become the cause of ours.
        where = f"{self._url.rstrip('/')}{path}"
        try:
            # The client's own limit counts from one piece of a reply to the next.
            async with asyncio.timeout(self.endpoint.timeout):
                if body is None:
                    text = await self._openai.get(path, cast_to=str)
                else:
                    text = await self._openai.post(path, cast_to=str, body=body)
        except (openai.APITimeoutError, TimeoutError) as error:
            if type(error.__cause__).__name__ in NEVER_CONNECTED:
                return _Setback(
                    f"{where}: cannot be reached within {CONNECT_TIMEOUT:g} s; is the server "
                    "running, and is the base URL right?",
                    is_busy=True,
                )
            return _Setback(
                f"{where}: no answer within {self.endpoint.timeout:g} s; allow more time, or have "
                "fewer requests under way at once",
                is_busy=True,
                may_cost=True,
            )
        except openai.APIConnectionError as error:
            why = self._quoted(str(error.__cause__ or error))
            return _Setback(
                f"{where}: cannot be reached: {why}; is the server running, and is the base URL "
                "right?",
                may_cost=type(error.__cause__).__name__ not in NEVER_CONNECTED,
            )
        except openai.APIStatusError as error:
            return self._from_status(where, error)
        except UnicodeEncodeError:
            return Failure(f"{where}: not sent: the text has halves of characters", refused=True)
        if self._key:
            text = text.replace(self._key, "***")  # answers are kept
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            return _Setback(
                f"{where}: answered with no JSON object but {self._quoted(text)!r}; does the base "
                "URL lead to an OpenAI-compatible server?",
                may_cost=True,
            )
        return answer

    def _from_status(self, where: str, error: openai.APIStatusError) -> Failure | _Setback:
        status, body = error.status_code, error.body
        facts = body if isinstance(body, dict) else {}
        said = facts.get("message")
        message = f"{where}: HTTP {status}: {self._quoted(str(said or error.response.text))}"
        if NO_MONEY_LEFT in (facts.get("code"), facts.get("type")):
            return Failure(message, 402)
        if status in PASSING or status >= 500:
            return _Setback(
                message,
                status,
                _retry_after(error.response.headers),
                is_busy=status in BUSY,
                may_cost=status in FROM_BETWEEN,
            )
        advice = {
            401: "; name the environment variable that holds the key",
            404: "; is the model served, and does the base URL end in /v1?",
        }
        message += advice.get(status, "")
        return Failure(message, status, refused=status not in WORTHLESS)

    def _quoted(self, text: str) -> str:
        """A server's own words without the key, which some repeat."""
        if self._key:
            text = text.replace(self._key, "***")
        return text if len(text) <= QUOTED else f"{text[:QUOTED]}…"


@dataclass(frozen=True)
class _Setback:
    """A try that failed and may be repeated, after some seconds where the server says so.

    `is_busy` where fewer at once may do better, `may_cost` where it may have been charged.
    """

    message: str
    status: int | None = None
    retry_after: float | None = None
    is_busy: bool = False
    may_cost: bool = False


class _Pace:
    """How many tries are under way at once: half when the server is busy, then slowly more again.

    The limit falls once for all that was under way when it last fell, and rises by one for as many
    answers as it is high.
    """

    def __init__(self, most: int) -> None:
        self.round = 0
        """How often the limit has fallen."""
        self._most = self._limit = most
        self._n = 0
        self._n_answered = 0
        self._resumes_at = 0.0
        self._waiting: deque[asyncio.Future[bool]] = deque()

    async def begin(self, call: _Call) -> bool:
        """Waits until one more try may be under way; False where its call is over before."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        call.wait_with(turn)
        self._admit()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.end()
            raise

    def end(self) -> None:
        self._n -= 1
        self._admit()

    def answered(self) -> None:
        if self._limit < self._most:
            self._n_answered += 1
            if self._n_answered >= self._limit:
                self._limit, self._n_answered = self._limit + 1, 0

    def slow_down(self, round_: int) -> None:
        """A try that began in this round was one too many."""
        if round_ == self.round:
            self._limit, self._n_answered = max(1, self._limit // 2), 0
            self.round += 1

    def pause(self, seconds: float) -> None:
        """Nothing begins for so long."""
        loop = asyncio.get_running_loop()
        self._resumes_at = max(self._resumes_at, loop.time() + seconds)
        loop.call_at(self._resumes_at, self._admit)

    def _admit(self) -> None:
        if asyncio.get_running_loop().time() < self._resumes_at:
            return
        while self._waiting and self._n < self._limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._n += 1
                turn.set_result(True)


class _Call:
    """What the requests of one call share: the gate, and an end where every request fails."""

    def __init__(self, limit: int, gate: Gate | None = None) -> None:
        self.failure: Failure | None = None
        self._gate = gate
        self._limit = limit
        self._n_given_up = 0
        self._n_under_way = 0
        self._try_ended = asyncio.Event()
        self._opened = asyncio.Event()
        self._turns: set[asyncio.Future[bool]] = set()

    # --- the gate

    async def refusal(self, index: int) -> str | None:
        """Why the gate lets a try not pass, and no end of another can change that any more."""
        while self._gate and (reason := self._gate.take(index)):
            if self.failure or not self._n_under_way:
                return reason
            self._try_ended.clear()
            await self._try_ended.wait()
        return None

    @contextlib.contextmanager
    def try_under_way(self) -> Iterator[None]:
        self._n_under_way += 1
        try:
            yield
        finally:
            self._n_under_way -= 1
            self._try_ended.set()

    def give_back(self, index: int) -> None:
        if self._gate:
            self._gate.give_back(index)

    def account(self, index: int, outcome: Outcome | _Setback) -> None:
        """Tells gate and breaker how a try ended."""
        if isinstance(outcome, _Setback):
            if not outcome.may_cost:
                self.give_back(index)
            return
        if isinstance(outcome, Failure):
            self.give_back(index)
            if outcome.status in WORTHLESS:
                self._open(outcome)
                return
        elif self._gate:
            self._gate.settle(index, outcome)
        self._n_given_up = 0

    # --- the breaker

    def given_up(self, setback: _Setback, n_tries: int) -> Failure:
        tried = "once" if n_tries == 1 else f"{n_tries} times"
        failure = Failure(f"{setback.message}; tried {tried}", setback.status)
        self._n_given_up += 1
        if self._n_given_up >= self._limit:
            self._open(
                Failure(
                    f"{failure.message}; {self._n_given_up} requests in a row failed, so the "
                    "others were not sent",
                    failure.status,
                )
            )
        return failure

    def _open(self, failure: Failure) -> None:
        self.failure = self.failure or failure
        self._opened.set()
        for turn in self._turns:
            if not turn.done():
                turn.set_result(False)

    def ended_by(self) -> Failure:
        assert self.failure is not None
        return self.failure

    def wait_with(self, turn: asyncio.Future[bool]) -> None:
        """Has a turn end with the call."""
        if self.failure:
            turn.set_result(False)
            return
        self._turns.add(turn)
        turn.add_done_callback(self._turns.discard)

    async def sleep(self, seconds: float) -> None:
        """Waits, or less long if there is nothing left to wait for."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._opened.wait(), seconds)


_Ended: TypeAlias = "queue.SimpleQueue[tuple[int, concurrent.futures.Future[Outcome]]]"


def _put(ended: _Ended, index: int, future: concurrent.futures.Future[Outcome]) -> None:
    ended.put((index, future))


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        # A key in place of the name must not be repeated.
        named = variable if re.fullmatch("[A-Z][A-Z0-9_]{0,40}", variable) else "named for the key"
        raise InputError(f"the environment variable {named} is not set")
    return key


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, as number or date; None where it does not say."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if seconds >= 0 and not math.isnan(seconds):
            return seconds
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None
