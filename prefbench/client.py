"""Many requests to one OpenAI-compatible endpoint: in order, patiently, and none loses another."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import math
import os
import re
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

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


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and how patiently.

    Args:
        base_url: as OpenAI clients take it, usually ending in /v1.
        api_key_env: the environment variable that holds the key, where one is needed.
        concurrency: requests under way at once.
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
        self._slots = asyncio.Semaphore(endpoint.concurrency)
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
        return self._wait_for(self._all(path, [None]))[0]

    def post(self, path: str, bodies: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """An answer to each body, or why there is none, in order.

        Every call tries anew: a server that was down may be back.
        """
        return self._wait_for(self._all(path, bodies))

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

    async def _all(self, path: str, bodies: Sequence[Mapping[str, Any] | None]) -> list[Outcome]:
        breaker = _Breaker(self.endpoint.n_given_up)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._persist(path, body, breaker)) for body in bodies]
        return [task.result() for task in tasks]

    async def _persist(
        self, path: str, body: Mapping[str, Any] | None, breaker: _Breaker
    ) -> Outcome:
        """One request, tried until there is an answer or no sense in trying.

        It keeps its slot while it waits, so that a server that is busy is asked less.
        """
        async with self._slots:
            for n_tries in range(1, self.endpoint.n_tries + 1):
                if breaker.failure:
                    return breaker.failure
                outcome = await self._try(path, body)
                if not isinstance(outcome, _Setback):
                    if isinstance(outcome, Failure) and outcome.status in WORTHLESS:
                        breaker.open(outcome)
                    else:
                        breaker.answered()
                    return outcome
                wait = self._wait_before(n_tries + 1, outcome)
                if n_tries == self.endpoint.n_tries or wait > LONGEST_WAIT:
                    return breaker.given_up(outcome, n_tries)
                await breaker.sleep(wait)
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
            if body is None:
                text = await self._openai.get(path, cast_to=str)
            else:
                text = await self._openai.post(path, cast_to=str, body=body)
        except openai.APITimeoutError:
            return _Setback(
                f"{where}: no answer within {self.endpoint.timeout:g} s; allow more time, or have "
                "fewer requests under way at once"
            )
        except openai.APIConnectionError as error:
            why = self._quoted(str(error.__cause__ or error))
            return _Setback(
                f"{where}: cannot be reached: {why}; is the server running, and is the base URL "
                "right?"
            )
        except openai.APIStatusError as error:
            return self._from_status(where, error)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            return _Setback(
                f"{where}: answered with no JSON object but {self._quoted(text)!r}; does the base "
                "URL lead to an OpenAI-compatible server?"
            )
        return answer

    def _from_status(self, where: str, error: openai.APIStatusError) -> Failure | _Setback:
        status, body = error.status_code, error.body
        said = body.get("message") if isinstance(body, dict) else None
        message = f"{where}: HTTP {status}: {self._quoted(str(said or error.response.text))}"
        if status in PASSING or status >= 500:
            return _Setback(message, status, _retry_after(error.response.headers))
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
    """A try that failed and may be repeated, after some seconds where the server says so."""

    message: str
    status: int | None = None
    retry_after: float | None = None


class _Breaker:
    """Ends a call whose every request fails."""

    def __init__(self, limit: int) -> None:
        self.failure: Failure | None = None
        self._limit = limit
        self._n = 0
        self._opened = asyncio.Event()

    def answered(self) -> None:
        self._n = 0

    def given_up(self, setback: _Setback, n_tries: int) -> Failure:
        tried = "once" if n_tries == 1 else f"{n_tries} times"
        failure = Failure(f"{setback.message}; tried {tried}", setback.status)
        self._n += 1
        if self._n >= self._limit:
            self.open(
                Failure(
                    f"{failure.message}; {self._n} requests in a row failed, so the others were "
                    "not sent",
                    failure.status,
                )
            )
        return failure

    def open(self, failure: Failure) -> None:
        self.failure = self.failure or failure
        self._opened.set()

    async def sleep(self, seconds: float) -> None:
        """Waits, or less long if there is nothing left to wait for."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._opened.wait(), seconds)


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
