"""Servers on this machine for tests: a real vLLM, and one that answers from a script."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from prefbench.engines.serving import serve
from prefbench.errors import EngineError
from tests.small_models import CHATML, teach, tokenizer

SERVED_CONTEXT = 128
REPLIES = {
    "A": "the Stop mat on<end>",
    "B": "sat on mat Question: the<end>",
    "C": "on the mat<end>",
    "D": "the cat</turn> sat on the mat the cat sat<end>",
}
"""What the served model has learnt to say after a letter."""

ALONE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def make_served(folder: Path) -> Path:
    """A checkpoint that vLLM can serve on a CPU, which wants heads of at least 32 numbers."""
    made = tokenizer(chat=CHATML)
    rows = [made.encode(letter + reply) for letter, reply in REPLIES.items()]
    size = {"hidden_size": 64, "head_dim": 32, "max_position_embeddings": SERVED_CONTEXT}
    teach(folder, rows, list(REPLIES), chat=CHATML, bos_token_id=None, **size)
    return folder


@contextlib.contextmanager
def vllm_server(checkpoint: Path, folder: Path, *flags: str) -> Iterator[str]:
    """A vLLM that serves a checkpoint on a port of its own; gives the base URL."""
    small = ["--dtype", "float32", "--enforce-eager", "--block-size", "32"]
    small += ["--kv-cache-memory-bytes", str(64 << 20)]
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(
                serve(
                    checkpoint,
                    name=str(checkpoint),
                    log=folder / "server.log",
                    flags=[*small, *flags],
                    environment=ALONE,
                )
            )
        except EngineError as error:
            pytest.fail(str(error))
        yield url


@dataclass
class Said:
    """An answer: a body, or raw text, and what goes with it."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hangs: bool = False


class ScriptedServer:
    """Answers each request as a function of its path, its body and how often it came before."""

    def __init__(self, script: Callable[[str, Any, int], Said]) -> None:
        self.script = script
        self.requests: list[tuple[str, Any]] = []
        self.times: list[float] = []
        self.keys: list[str | None] = []
        self.n_at_once = self.most_at_once = 0
        self.ends = threading.Event()
        self.lock = threading.Lock()

    def answer(self, path: str, body: Any, key: str | None) -> Said:
        with self.lock:
            seen = sum(request == (path, body) for request in self.requests)
            self.requests.append((path, body))
            self.times.append(time.monotonic())
            self.keys.append(key)
            self.n_at_once += 1
            self.most_at_once = max(self.most_at_once, self.n_at_once)
        said = self.script(path, body, seen)
        self.ends.wait(60 if said.hangs else said.delay)
        with self.lock:
            self.n_at_once -= 1
        return said


@contextlib.contextmanager
def scripted(
    script: Callable[[str, Any, int], Said], port: int = 0
) -> Iterator[tuple[str, ScriptedServer]]:
    """A server on a port, one of its own by default, and its base URL."""
    server = ScriptedServer(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def reply(self, body: Any) -> None:
            said = server.answer(
                self.path.removeprefix("/v1"), body, self.headers.get("authorization")
            )
            text = said.body if isinstance(said.body, str) else json.dumps(said.body)
            with contextlib.suppress(OSError):  # the client may have given up
                self.send_response(said.status)
                for name, value in {"content-type": "application/json", **said.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 256

    with Server(("127.0.0.1", port), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/v1", server
        finally:
            server.ends.set()
            http.shutdown()
            thread.join()
