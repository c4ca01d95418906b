"""The demo's language model as a judge, by a server from a script in the place of vLLM."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from prefbench.cells import Settings
from prefbench.cli import main
from prefbench.demo import court
from prefbench.demo.court import judge_by_both
from prefbench.engines.serving import HOST, free_port
from prefbench.judges.recipe import EndpointRecipe
from prefbench.listener import Listener
from prefbench.report.collect import collect
from prefbench.report.tables import render
from prefbench.runner import Outcome
from tests.judges.test_chat import completion
from tests.serving import Said, ScriptedServer, scripted

SETTINGS = Settings(engine="hf", limit=3)


class Court:
    """A small demo, and the servers that were started for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: ScriptedServer | None = None
        self.ports: list[int] = []
        self.notices: list[str] = []

    def judge(self) -> Outcome:
        listener = Listener(on_notice=self.notices.append)
        return judge_by_both(self.folder, settings=SETTINGS, listener=listener)

    @contextlib.contextmanager
    def serve(self, checkpoint: Path, *, name: str, port: int, **_: Any) -> Iterator[str]:
        assert checkpoint == self.folder / "data" / "models" / name
        self.ports.append(port)
        with scripted(lambda path, body, n: Said(completion("Better: A")), port) as (url, server):
            self.server = server
            yield url


@pytest.fixture
def asked(small_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Court:
    for name in ("checkpoints/sft", "checkpoints/dpo", "data"):
        shutil.copytree(small_zoo / name, tmp_path / "demo" / name)
    # Two steps of training change no reply, and equal replies are not judged.
    weights = tmp_path / "demo" / "checkpoints" / "dpo" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].flip(0)
    save_file(tensors, weights, metadata={"format": "pt"})
    made = Court(tmp_path / "demo")
    recipe = court.demo_judge()
    # Not port 8000, on which anybody may listen.
    free = EndpointRecipe(base_url=f"http://{HOST}:{free_port()}/v1")
    monkeypatch.setattr(court, "demo_judge", lambda: recipe.model_copy(update={"endpoint": free}))
    monkeypatch.setattr(court, "serve", made.serve)
    return made


def test_both_judges_columns_and_no_call_for_what_was_judged(asked: Court) -> None:
    outcome = asked.judge()
    assert not outcome.failed
    assert asked.server
    assert {path for path, _ in asked.server.requests} == {"/chat/completions"}
    assert {body["model"] for _, body in asked.server.requests} == {"prefbench/demo-judge"}
    table = render(collect(asked.folder / "results", plan=outcome.plan), "text")
    for column in ("vs sft, demo_reward", "vs sft, demo_llm"):
        assert column in table
    again = asked.judge()
    assert (len(asked.ports), again.measured, again.plan) == (1, (), outcome.plan)


def test_what_was_judged_at_another_port_is_found_again(asked: Court) -> None:
    recipe = court.demo_judge()
    assert recipe.endpoint
    own = int(recipe.endpoint.base_url.rpartition(":")[2].removesuffix("/v1"))
    with socket.create_server((HOST, own)):
        outcome = asked.judge()
    assert asked.ports != [own]
    assert any(f"port {own} is taken by another program" in text for text in asked.notices)
    again = asked.judge()
    assert (len(asked.ports), again.measured, again.plan) == (1, (), outcome.plan)


def test_without_vllm_the_command_says_so_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("prefbench.engines.serving.installed", lambda: None)
    monkeypatch.setattr("sys.argv", ["prefbench", "demo", str(tmp_path / "demo"), "--llm-judge"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("error: vLLM is not installed: ")
    assert "pip install" in told
    assert not (tmp_path / "demo").exists()
