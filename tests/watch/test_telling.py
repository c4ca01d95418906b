from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from prefbench.cells import Settings
from prefbench.cli import app
from prefbench.errors import InputError
from prefbench.report.gate import by_checkpoint
from prefbench.report.watch import as_text
from prefbench.watch.gauges import write_gauges
from prefbench.watch.outbox import Outbox
from prefbench.watch.policy import Measuring, Policy
from prefbench.watch.status import Row, read_status
from prefbench.watch.telling import Ears, Telling
from prefbench.watch.watching import watch
from prefbench.watch.webhook import Webhook

HOSTILE = 'd"p\\o\n<!channel> @all `x` \udce9'
SECRET = "s3cr3t"


class Server:
    """Answers with some statuses, then with 200; 0 is no answer at all."""

    def __init__(self, port: int, statuses: list[int]) -> None:
        self.came: list[Any] = []
        came = self.came

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the base class's way
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status = statuses.pop(0) if statuses else 200
                if status == 0:
                    time.sleep(6)
                    return
                if status == 200:
                    came.append((self.path, body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)


@contextlib.contextmanager
def serving(port: int, statuses: list[int]) -> Iterator[list[Any]]:
    server = Server(port, statuses)
    thread = threading.Thread(target=server.http.serve_forever)
    thread.start()
    try:
        yield server.came
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_webhook_hears_of_everything_in_the_end_and_nobody_of_its_address(
    tmp_path: Path, port: int
) -> None:
    lines: list[str] = []
    outbox = Outbox(tmp_path)
    failed = Row(HOSTILE, "/runs/a", "failed", reason="no room `@here` <b>")
    for _ in range(2):
        outbox.tell([failed], "w")
    Outbox(tmp_path).tell([failed], "another watcher, which says nothing new")
    url = f"http://127.0.0.1:{port}/{SECRET}"
    webhook = Webhook(url, Outbox(tmp_path), lines.append, first_wait=0.01, timeout=2.0)
    with webhook:
        until(lambda: lines)
        assert lines == ["webhook: not delivered (ConnectError); tried again until it is"]
        with serving(port, [500, 0, 302]) as came:
            until(lambda: came)
            outbox.tell([Row(HOSTILE, "/runs/a", "measured")], "w")
            webhook.wake()
            until(lambda: len(came) == 2 and not outbox.unsent())
    assert lines[1:] == ["webhook: delivered again"]
    (path, first), (_, second) = came
    assert path == f"/{SECRET}"
    assert (first["event"], second["event"], second["of"]) == ("failure", "recovered", "failure")
    assert first["checkpoint"] == HOSTILE
    assert "<!channel>" not in first["text"]
    assert "@all" not in first["text"]
    assert first["text"].count("`") == 4
    assert SECRET not in "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(InputError) as refused:
        Webhook(f"ftp://{SECRET}", outbox, lines.append)
    assert SECRET not in str(refused.value)


def test_what_was_not_delivered_before_a_kill_is_delivered_after(tmp_path: Path, port: int) -> None:
    Outbox(tmp_path).tell([Row("a", "/runs/a", "failed", reason="one")], "w")
    with (tmp_path / "outbox.jsonl").open("ab") as file:
        file.write(b'{"sent": "tor')
    with serving(port, []) as came:
        with Webhook(f"http://127.0.0.1:{port}/", Outbox(tmp_path), print, first_wait=0.01):
            until(lambda: came)
            until(lambda: not Outbox(tmp_path).unsent())
        assert [body["reason"] for _, body in came] == ["one"]


def test_another_watcher_tells_that_something_recovered(tmp_path: Path) -> None:
    first, second = Outbox(tmp_path), Outbox(tmp_path)
    first.tell([Row("a", "/runs/a", "failed"), Row("b", "/runs/b", "failed")], "first")
    second.tell([Row("a", "/runs/a", "measured"), Row("b", "/runs/b", "running")], "second")
    first.tell([Row("a", "/runs/a", "measured")], "first")
    told = [(one.event, one.checkpoint, one.watcher) for one in first.unsent()]
    failures = [("failure", name, "first") for name in "ab"]
    assert told == [*failures, ("recovered", "a", "second")]


def test_two_threads_read_each_message_once(tmp_path: Path) -> None:
    outbox, ended, seen = Outbox(tmp_path), threading.Event(), set()

    def deliver() -> None:
        while not ended.is_set():
            for message in outbox.unsent():
                assert message.id not in seen  # what has arrived is not sent again
                seen.add(message.id)
                outbox.sent(message)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as thread:
            delivering = thread.submit(deliver)
            for n in range(200):
                outbox.tell([Row(f"{n}", f"/runs/{n}", "failed", reason="why")], "w")
                outbox.unsent()
            until(lambda: delivering.done() or len(seen) == 200)
            ended.set()
            delivering.result()
    finally:
        ended.set()
        sys.setswitchinterval(before)
    assert outbox.unsent() == []


def test_what_the_gate_said_before_it_broke_counts_no_more(tmp_path: Path) -> None:
    asked: list[int] = []

    def gate() -> dict[str, dict[str, Any]]:
        asked.append(1)
        if len(asked) == 2:
            raise InputError("no such baseline")
        return {"/a": {"outcome": "pass", "baseline": "sft", "checks": []}}

    lines: list[str] = []
    row = Row("a", "/a", "measured", n_measured=1)
    with Telling(Ears(gate=gate), tmp_path, "w", lines.append) as telling:
        outcomes = []
        for n in (1, 2, 2, 2):
            (told,) = telling.of([dataclasses.replace(row, n_measured=n)], 0.0)
            outcomes.append(told.gate and told.gate["outcome"])
    assert outcomes == ["pass", None, "pass", "pass"]
    assert len(asked) == 3  # again until it answers, and then only after a change
    assert lines.count("gate: no such baseline") == 1


def test_a_look_that_ends_without_its_gate_ends_in_an_error(
    small_zoo: Path, tmp_path: Path
) -> None:
    runs, results = tmp_path / "runs", tmp_path / "results"
    runs.mkdir()

    def gate() -> dict[str, dict[str, Any]]:
        raise InputError("no such baseline")

    def look() -> list[Row]:
        return watch(
            runs,
            Measuring(
                ["demo_dialogues"], results, Settings(engine="hf", limit=2),
                mirrors=[small_zoo / "data"],
            ),
            Policy(interval=0.05, quiet=0.0, once=True),
            ears=Ears(gate=gate),
        )  # fmt: skip

    assert look() == []  # there is nothing that it could be asked about
    shutil.copytree(
        small_zoo / "checkpoints" / "sft",
        runs / "sft",
        ignore=shutil.ignore_patterns("checkpoint-*"),
    )
    with pytest.raises(InputError, match="no such baseline"):
        look()
    assert [row.state for row in read_status(results).rows] == ["measured"]


def test_prometheus_reads_hostile_labels(tmp_path: Path) -> None:
    check = {
        "task": HOSTILE, "conditions": None, "metric": "acc", "judge": None, "opponent": None,
        "value": 0.25,
    }  # fmt: skip
    rows = [
        Row(HOSTILE, "/a", "measured", since="2026-01-01T00:00:00+00:00", cells=("1", "2"),
            n_measured=2, gate={"outcome": "pass", "checks": [check]}),
        Row("b", "/b", "failed", tries=2, cells=("2",)),  # of the same bytes
    ]  # fmt: skip
    file = tmp_path / "prefbench.prom"
    write_gauges(file, rows, watcher="w", when=12.5, seconds=0.25, n_unsent=3)
    families = {one.name: one for one in text_string_to_metric_families(file.read_text())}

    def value(name: str, **labels: str) -> float:
        (found,) = (
            one.value
            for one in families[f"prefbench_watch_{name}"].samples
            if labels.items() <= one.labels.items()
        )
        return found

    assert value("checkpoints", state="failed") == value("checkpoints", state="measured") == 1
    assert value("checkpoints", state="pruned") == 0
    assert (value("cells"), value("cells_measured"), value("cells_failed")) == (3, 2, 1)
    assert (value("look_seconds"), value("look_timestamp_seconds")) == (0.25, 12.5)
    assert value("success_timestamp_seconds") == 1767225600
    assert (value("tries_failed"), value("webhook_unsent")) == (2, 3)
    name = HOSTILE.replace("\udce9", "\\udce9")
    assert value("gate", checkpoint=name, outcome="pass") == 1
    assert value("score", checkpoint=name, task=name) == 0.25
    assert [path.name for path in tmp_path.iterdir()] == ["prefbench.prom"]


def test_a_regression_is_told_once_as_the_gate_itself_finds_it(
    small_zoo: Path, tmp_path: Path, port: int
) -> None:
    runs, results, policy = (tmp_path / name for name in ("runs", "results", "policy.yaml"))
    ignored = shutil.ignore_patterns("checkpoint-*")
    for name in ("sft", "dpo"):
        shutil.copytree(small_zoo / "checkpoints" / name, runs / name, ignore=ignored)
    weights = runs / "dpo" / "model.safetensors"
    rng = np.random.default_rng(0)
    spoilt = {
        k: v + rng.normal(0, 0.1, v.shape).astype(v.dtype) for k, v in load_file(weights).items()
    }
    save_file(spoilt, weights, metadata={"format": "pt"})
    rule = "{task: demo_dialogues, metric: perplexity, max_rise: 20%}"
    policy.write_text(f"{{baseline: sft, rules: [{rule}]}}")
    lines: list[str] = []

    def look() -> dict[str, Row]:
        watch(
            runs,
            Measuring(
                ["demo_dialogues"], results, Settings(engine="hf", limit=60),
                mirrors=[small_zoo / "data"],
            ),
            Policy(interval=0.05, quiet=0.0, once=True),
            log=lines.append,
            ears=Ears(
                gate=lambda: by_checkpoint(policy, results, None),
                metrics=tmp_path / "prefbench.prom",
                webhook=f"http://127.0.0.1:{port}/",
            ),
        )  # fmt: skip
        return {row.name: row for row in read_status(results).rows}

    with serving(port, []) as came:
        for _ in range(2):
            rows = look()
            said = CliRunner().invoke(app, ["gate", "-p", str(policy), str(results), "--json"])
            assert rows["sft"].gate is None
            assert rows["dpo"].gate is not None
            assert rows["dpo"].gate["checks"] == json.loads(said.stdout)["checks"]
        assert "gate beside sft: regression: demo_dialogues perplexity.v1" in as_text(
            read_status(results)
        )
        shutil.copyfile(runs / "sft" / "model.safetensors", weights)
        assert look()["dpo"].gate["outcome"] == "pass"  # type: ignore[index]
        until(lambda: len(came) == 2)
    assert [body["event"] for _, body in came] == ["regression", "recovered"]
    assert came[0][1]["gate"]["checks"] == json.loads(said.stdout)["checks"]
    assert "dpo: gate: regression: demo_dialogues perplexity.v1" in lines
    told = (tmp_path / "prefbench.prom").read_text()
    assert 'prefbench_watch_gate{checkpoint="dpo",outcome="pass"} 1.0' in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--webhook-env", "NOT_SET"], "the variable NOT_SET is not set"),
        (["--webhook-env", f"https://{SECRET}"], "takes the name of a variable"),
        (["--baseline", "sft"], "name its policy by --gate"),
        (["--min-free-memory", "much"], "is a size such as 20GiB"),
        (["--gate", "missing.yaml"], "missing.yaml: cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    found = CliRunner().invoke(app, ["watch", str(tmp_path), *arguments])
    assert isinstance(found.exception, InputError)
    assert said in str(found.exception)
    assert SECRET not in str(found.exception)
