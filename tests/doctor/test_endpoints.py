"""Endpoints, asked by a real client over real sockets on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prefbench.doctor.endpoints import (
    Endpoint,
    ask_endpoint,
    endpoint_finding,
    find_endpoints,
    is_worth_asking,
    unasked,
)
from prefbench.doctor.findings import Finding
from prefbench.report.doctor import as_json, as_text

KEY = "sk-not-to-be-seen-7c1f"


class Server(ThreadingHTTPServer):
    """Answers GET /v1/models by the method named in `manner`, and keeps what it was asked."""

    daemon_threads = True
    manner = "list"
    models: tuple[str, ...] = ("small-judge", "large-judge")
    elsewhere = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str, str | None]] = []
        self.closing = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        manner = self.server.manner
        if manner == "hangs":
            self.server.closing.wait(60)
        elif manner == "drips":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            while not self.server.closing.wait(0.05):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return
        elif manner == "wants key" and self.headers["Authorization"] != f"Bearer {KEY}":
            self.say(401, {"error": {"message": f"not this: {self.headers['Authorization']}"}})
        elif manner == "redirects":
            self.send_response(302)
            self.send_header("Location", self.server.elsewhere)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif manner == "garbage":
            self.say(200, "<html>\x1b[2J")
        elif self.path != "/v1/models":
            self.say(404, {"detail": "not found"})
        else:
            self.say(200, {"object": "list", "data": [{"id": id_} for id_ in self.server.models]})

    def say(self, status: int, what: object) -> None:
        body = (what if isinstance(what, str) else json.dumps(what)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def finding(endpoint: Endpoint | str, time_limit: float = 10.0) -> Finding:
    one = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
    return endpoint_finding(one, ask_endpoint(one, time_limit=time_limit).reply())


def test_models_that_are_served(server: Server) -> None:
    found = finding(server.address)
    assert found.state == "ok"
    assert found.detail == "serves small-judge, large-judge; OPENAI_API_KEY is not set"
    assert found.facts["models"] == ["small-judge", "large-judge"]
    assert server.asked == [("/v1/models", None)]


def test_a_slash_at_the_end_makes_no_difference(server: Server) -> None:
    assert finding(server.address + "/").state == "ok"
    assert server.asked == [("/v1/models", None)]


def test_a_key_is_sent_and_never_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.manner = "wants key"
    without = finding(server.address)
    assert without.state == "missing"
    assert "wants a key (HTTP 401)" in without.detail
    assert without.fix == "export OPENAI_API_KEY=…"
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    server.models = ("judge", f"fine-tune-of-{KEY}")
    found = finding(Endpoint(server.address, "JUDGE_KEY"))
    assert found.state == "ok"
    assert server.asked[-1] == ("/v1/models", f"Bearer {KEY}")
    assert "JUDGE_KEY is set" in found.detail
    assert KEY not in as_text([found]) + as_json([found])


@pytest.mark.parametrize("manner", ["wants key", "garbage", "hangs", "redirects", "404"])
def test_a_wrong_key_is_told_of_by_name_only(
    server: Server, monkeypatch: pytest.MonkeyPatch, manner: str
) -> None:
    server.manner = manner
    server.elsewhere = server.address
    wrong = "sk-wrong-but-secret"
    monkeypatch.setenv("OPENAI_API_KEY", wrong)
    address = server.address + ("/deeper" if manner == "404" else "")
    found = finding(address, 2.0 if manner == "hangs" else 10.0)
    assert found.state in ("broken", "missing")
    assert wrong not in as_text([found]) + as_json([found])
    assert server.asked[0][1] == f"Bearer {wrong}"


@pytest.mark.parametrize("key", ["sk-sec\nret", "sk-secret-é", "sk-sec\x00ret"])
def test_a_key_that_no_header_holds(
    server: Server, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    if "\x00" in key:
        key = key.replace("\x00", "\x7f")  # an environment holds no NUL
    monkeypatch.setenv("OPENAI_API_KEY", key)
    found = finding(server.address)
    assert "no header may hold" in found.detail
    assert not server.asked
    assert "sk-sec" not in as_text([found]) + as_json([found])


def test_a_redirect_is_not_followed_with_the_key(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as other:
        server.manner, server.elsewhere = "redirects", other.address + "/models"
        found = finding(server.address)
        assert not other.asked
    assert (found.state, found.facts["status"]) == ("broken", 302)


@pytest.mark.parametrize("manner", ["hangs", "drips"])
def test_what_never_answers_keeps_nobody(server: Server, manner: str) -> None:
    server.manner = manner
    started = time.monotonic()
    found = finding(server.address, 0.4)
    assert time.monotonic() - started < 20  # of a minute that it would keep it
    assert (found.state, found.facts["status"]) == ("missing", None)
    assert "no answer within 0.4 s" in found.detail


def test_garbage_is_not_a_list_of_models(server: Server) -> None:
    server.manner = "garbage"
    found = finding(server.address)
    assert found.state == "broken"
    assert "something other than a list of models" in found.detail
    assert found.fix


def test_hostile_names_of_models_cannot_steer_a_terminal(server: Server) -> None:
    server.models = ("evil\x1b[2J\u202e", "x" * 100_000)
    found = finding(server.address)
    assert found.state == "ok"
    text = as_text([found], width=80)
    assert "evil [2J" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text) < 2000


def test_an_address_without_its_end(server: Server) -> None:
    short = server.address.removesuffix("/v1")
    found = finding(Endpoint(short, needed=True))
    assert (found.state, found.facts["status"]) == ("broken", 404)
    assert found.fix == f"prefbench doctor --endpoint {server.address}"
    assert found.fails


def test_nothing_listens() -> None:
    with serving() as server:
        address = server.address
    found = finding(address)
    assert found.state == "missing"
    assert "refused" in found.detail
    assert "vllm.entrypoints" in str(found.fix)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost:8000/v1", "begins with http"),
        ("file:///etc/passwd", "begins with http"),
        ("http://[::1/v1", "is no address"),
        ("http://localhost:99999999/v1", "is no address"),
        ("http://me:secret@localhost/v1", "a password or a query"),
        ("http://localhost/v1?key=secret", "a password or a query"),
    ],
)
def test_addresses_that_cannot_be_asked(address: str, said: str) -> None:
    found = finding(address)
    assert found.state == "missing"
    assert said in found.detail
    assert "secret" not in as_text([found]) + as_json([found])


def test_a_proxy_is_not_asked_for_loopback(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.address.removesuffix("/v1"))
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert finding(server.address).state == "ok"
        assert not proxy.asked
        # The same setting is followed for any other address.
        proxy.manner = "garbage"
        assert finding("http://judge.invalid/v1").facts["status"] == 200
        assert proxy.asked


def test_endpoints_of_arguments_environment_and_judges_are_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    judge = {"model": "small-judge", "base_url": server.address, "api_key_env": "JUDGE_KEY"}
    other = {"model": {"model": "huge-judge", "base_url": server.address + "/"}, "prompt": "?"}
    (tmp_path / "brief.yaml").write_text(json.dumps(judge))
    (tmp_path / "long.yaml").write_text(json.dumps(other))
    (tmp_path / "local.yaml").write_text("model: somewhere\n")
    (tmp_path / "broken.yaml").write_text("base_url: [")
    monkeypatch.setenv("OPENAI_BASE_URL", server.address)
    found = find_endpoints([server.address], judges=tmp_path)
    assert [(one.key_variable, one.wanted_by, one.needed) for one in found] == [
        ("OPENAI_API_KEY", ("--endpoint", "OPENAI_BASE_URL"), True),
        ("JUDGE_KEY", ("judge brief",), False),
        (None, ("judge long",), False),
    ]
    asked, fine, lacking = map(finding, found)
    assert [asked.state, fine.state, lacking.state] == ["ok", "ok", "broken"]
    assert "for judge brief" in fine.detail
    assert "not huge-judge; no key is sent" in lacking.detail


def test_a_judge_without_a_key_gets_nobody_elses(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.manner = "wants key"
    found = finding(Endpoint(server.address, None, ("judge long",)))
    assert server.asked == [("/v1/models", None)]
    assert (found.state, found.fix) == ("missing", "api_key_env: NAME   # in the judge's file")


def test_a_key_in_the_place_of_its_variable_is_not_told(server: Server) -> None:
    found = finding(Endpoint(server.address, KEY))
    assert KEY not in as_text([found]) + as_json([found])


def test_a_judge_without_its_key_is_not_asked_but_told(monkeypatch, tmp_path):
    monkeypatch.delenv("SOME_KEY", raising=False)
    far = Endpoint("https://judges.invalid/v1", "SOME_KEY", ("judge strict",))
    assert not is_worth_asking(far)
    found = endpoint_finding(far, unasked(far))
    assert found.state == "missing"
    assert "not asked without its key; SOME_KEY is not set" in found.detail
    assert found.fix == "export SOME_KEY=…"
    monkeypatch.setenv("SOME_KEY", "sk-1")
    assert is_worth_asking(far)
    monkeypatch.delenv("SOME_KEY")
    assert is_worth_asking(Endpoint("http://127.0.0.1:1/v1", "SOME_KEY", ("judge strict",)))
    assert is_worth_asking(Endpoint(far.address, "SOME_KEY", ("--endpoint",), needed=True))
    assert is_worth_asking(Endpoint(far.address, None, ("judge open",)))
