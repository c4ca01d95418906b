"""A real server for tests that speaks chat completions and does what goes wrong with them.

    python -m tests.misbehaving 0.25

serves replies that take 0.25 s each and says its port, until it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

TURNED_AWAY = ("busy", "busy_for", "broken")
"""Faults of a request that is not computed and costs nothing."""
LOST = ("slow", "dropped", "cut", "doubled")
"""Faults of a reply that is computed and charged, and does not arrive whole."""
ODD = ("empty", "refusal", "wrong", "choices", "no_choices", "filtered", "too_long")
"""Faults of a reply that arrives and says nothing that can be read."""
SILENT = ("no_usage", "bad_usage")
"""Faults that change no verdict."""
FAULTS = (*TURNED_AWAY, *LOST, *ODD, *SILENT)


@dataclass
class Reply:
    """What goes over the wire, and how."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    n_sent: int | None = None
    """Bytes of the body after which the connection is dropped; below 0: none of the answer."""
    seconds_a_byte: float = 0.0


class Misbehaving:
    """Answers by a rule, or fails to, each fault at its rate; counts what it did and charges for.

    Args:
        rule: the right reply to a conversation's text.
        rates: how often each fault comes, drawn in this order, 0 to 1.
        seed: of the draws.
        price: dollars per token of prompts and of replies.
        latency: seconds that each reply takes.
    """

    def __init__(
        self,
        rule: Callable[[str], str],
        rates: Mapping[str, float] | None = None,
        *,
        seed: int = 0,
        price: tuple[Fraction, Fraction] = (Fraction(0), Fraction(0)),
        latency: float = 0.0,
    ) -> None:
        assert set(rates or {}) <= set(FAULTS)
        self.rule = rule
        self.rates = dict(rates or {})
        self.price = price
        self.latency = latency
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.faults: Counter[str] = Counter()
        self.n_charged = 0
        self.cost = Fraction(0)
        self._random = random.Random(seed)

    def answer(self, path: str, body: Any, key: str | None) -> Reply:
        self.bodies.append(body)
        self.keys.add(key)
        said = [name for name, rate in self.rates.items() if self._random.random() < rate]
        fault = said[0] if said else ""
        self.faults[fault] += 1
        if fault == "busy":
            return Reply({"error": {"message": f"too many; your key is {key}"}}, 429)
        if fault == "busy_for":
            return Reply({"error": {"message": "wait"}}, 429, {"retry-after": "0.02"})
        if fault == "broken":
            return Reply(f"<html>oops {key}</html>", 500)
        reply = self._computed(body, fault)
        text = json.dumps(reply)
        if fault == "doubled":
            return Reply(text * 2, delay=self.latency)
        if fault == "cut":
            return Reply(text[: len(text) // 2], delay=self.latency)
        if fault == "dropped":
            n_sent = self._random.choice([-1, 0, len(text) // 2])
            return Reply(text, delay=self.latency, n_sent=n_sent)
        if fault == "slow":
            return Reply(text, delay=self.latency, seconds_a_byte=0.05)
        return Reply(text, delay=self.latency)

    def _computed(self, body: Any, fault: str) -> dict[str, Any]:
        asked = "\n".join(message["content"] for message in body["messages"])
        content: str | None = self.rule(asked)
        message: dict[str, Any] = {"role": "assistant"}
        finish = "stop"
        if fault == "empty":
            content = self._random.choice(["", "  \n", None])
        elif fault == "refusal":
            content = None
            message["refusal"] = "I'm sorry, I can't help with that."
        elif fault == "wrong":
            content = "Verdict: Q"
        elif fault == "filtered":
            finish = "content_filter"
        elif fault == "too_long":
            finish = "length"
        n_in, n_out = len(asked.split()) + 20, min(len((content or "x").split()), most_of(body))
        self.n_charged += 1
        self.cost += n_in * self.price[0] + n_out * self.price[1]
        choice = {"index": 0, "message": message | {"content": content}, "finish_reason": finish}
        choices = {"choices": [choice, choice | {"index": 1}], "no_choices": []}.get(
            fault, [choice]
        )
        usage: Any = {"prompt_tokens": n_in, "completion_tokens": n_out}
        if fault == "bad_usage":
            usage = self._random.choice(
                [{"prompt_tokens": -5, "completion_tokens": n_out}, "free", {"prompt_tokens": "1"}]
            )
        elif fault == "no_usage":
            usage = None
        return {
            "id": f"chatcmpl-{len(self.bodies)}",
            "object": "chat.completion",
            "created": 1,
            "model": "served-judge",
            "system_fingerprint": "fp_1",
            "choices": choices,
            "usage": usage,
        }


def most_of(body: Mapping[str, Any]) -> int:
    """Tokens of a reply, at most."""
    return int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)


Answering = Callable[[str, Any, "str | None"], Reply]


class Wire:
    """The HTTP of a server: what its function answers, sent as that says."""

    def __init__(self, answer: Answering) -> None:
        self.answer = answer
        self.n_at_once = self.most_at_once = 0
        self.n_broken_off = 0
        """Requests whose sender did not wait for the reply."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            try:
                while await self._one(reader, writer):
                    pass
            finally:
                writer.close()
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.n_at_once += 1
        self.most_at_once = max(self.most_at_once, self.n_at_once)
        try:
            reply = self.answer(
                first.split()[1], json.loads(body) if body else None, headers.get("authorization")
            )
            waiting = asyncio.ensure_future(asyncio.sleep(reply.delay))
            leaving = asyncio.ensure_future(reader.read(1))  # nobody speaks before the reply
            done, _ = await asyncio.wait({waiting, leaving}, return_when="FIRST_COMPLETED")
            for task in (waiting, leaving):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            if waiting not in done:
                self.n_broken_off += 1
                return False
            return await self._send(writer, reply)
        finally:
            self.n_at_once -= 1

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> bool:
        text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        content = text.encode()
        lines = [f"HTTP/1.1 {reply.status} Said", "content-type: application/json"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        head = "\r\n".join([*lines, f"content-length: {len(content)}", "", ""]).encode()
        if reply.n_sent is not None:
            if reply.n_sent >= 0:
                writer.write(head + content[: reply.n_sent])
                await writer.drain()
            return False
        if not reply.seconds_a_byte:
            writer.write(head + content)
            await writer.drain()
            return True
        writer.write(head)
        for n in range(len(content)):
            writer.write(content[n : n + 1])
            await writer.drain()
            await asyncio.sleep(reply.seconds_a_byte)
        return True


@contextlib.contextmanager
def wired(answer: Answering) -> Iterator[tuple[str, Wire]]:
    """A server on a port of its own, in a thread of its own; gives its base URL."""
    wire = Wire(answer)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def done(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    server = done(asyncio.start_server(wire.serve, "127.0.0.1", 0, backlog=512))
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", wire
    finally:

        async def end() -> None:
            server.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        done(end())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main() -> None:
    server = Misbehaving(lambda asked: "Verdict: A", latency=float(sys.argv[1]))

    async def serve() -> None:
        listening = await asyncio.start_server(
            Wire(server.answer).serve, "127.0.0.1", 0, backlog=512
        )
        print(listening.sockets[0].getsockname()[1], flush=True)
        await listening.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
