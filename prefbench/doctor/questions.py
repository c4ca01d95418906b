"""One GET, asked in the background and within a time limit.

The value of a key is sent as a header and goes nowhere else: what is told has passed `_hidden`.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, replace

import httpx

from prefbench.addresses import is_loopback, shown, unusable

LONGEST = 4 << 20
"""Bytes of a list of models that are read."""


@dataclass(frozen=True)
class Reply:
    """What an address answered, or why it did not; `models` is None where it gave no list."""

    address: str
    status: int | None = None
    models: tuple[str, ...] | None = None
    problem: str | None = None


class Question:
    """A GET that was sent and is waited for later.

    It runs in a daemon thread: what never answers, down to the name lookup, keeps nobody.
    """

    def __init__(self, url: str, *, key: str | None = None, time_limit: float) -> None:
        self._time_limit = time_limit
        self._until = time.monotonic() + time_limit
        self._reply = Reply(shown(url), problem=f"no answer within {time_limit:g} s")
        self._url = url
        self._key = key
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def reply(self) -> Reply:
        """The answer, at most when the time limit is over."""
        self._thread.join(max(0.0, self._until - time.monotonic()))
        return self._reply

    def _ask(self) -> None:
        if problem := unusable(self._url) or _unsendable(self._key):
            self._reply = replace(self._reply, problem=problem)
            return
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            # A redirect is not followed: it would carry the key to an address that nobody named.
            with (
                httpx.Client(
                    timeout=self._time_limit,
                    trust_env=not is_loopback(self._url),
                    follow_redirects=False,
                ) as client,
                client.stream("GET", self._url, headers=headers) as response,
            ):
                body = b""
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > LONGEST or time.monotonic() > self._until:
                        break
                status = response.status_code
        except httpx.TimeoutException:
            return
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            said = _hidden(str(error) or type(error).__name__, self._key)
            self._reply = replace(self._reply, problem=f"cannot be reached: {said}")
            return
        models = _models(body)
        if models is not None:
            models = tuple(_hidden(model, self._key) for model in models)
        self._reply = replace(self._reply, status=status, models=models, problem=None)


def _unsendable(key: str | None) -> str | None:
    """Why a key cannot be sent."""
    if key and not (key.isascii() and key.isprintable()):
        return "the key has characters that no header may hold"
    return None


def _models(body: bytes) -> tuple[str, ...] | None:
    """The ids in a list of models; None if this is none."""
    try:
        rows = json.loads(body)["data"]
        return tuple(str(row["id"])[:200] for row in rows)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _hidden(text: str, key: str | None) -> str:
    return text.replace(key, "…") if key else text
