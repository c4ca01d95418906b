"""vLLM's own server, started and ended by us."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from prefbench.engines.serving import HOST, free_port, is_free, need_vllm, serve
from prefbench.errors import EngineError
from tests.serving import ALONE, make_served

pytestmark = pytest.mark.xdist_group("server")

SMALL = ["--dtype", "float32", "--enforce-eager", "--block-size", "32"]
SMALL += ["--kv-cache-memory-bytes", str(64 << 20)]

PARENT = f"""
import sys
from pathlib import Path
from prefbench.engines.serving import serve

if __name__ == "__main__":
    with serve(
        Path(sys.argv[1]), name="taught", log=Path(sys.argv[2]), flags={SMALL}, environment={ALONE}
    ) as url:
        print(url, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_served(tmp_path_factory.mktemp("served") / "taught")


def test_it_serves_and_ends_with_whoever_started_it(taught: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(taught), str(tmp_path / "server.log")]
    with subprocess.Popen(
        command,
        env=os.environ | {"VLLM_API_KEY": "sesame"},  # it would lock us out
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout
        url = parent.stdout.readline().strip()
        assert url.startswith(f"http://{HOST}:"), (tmp_path / "server.log").read_text()
        with urllib.request.urlopen(f"{url}/models", timeout=10) as response:
            assert [one["id"] for one in json.load(response)["data"]] == ["taught"]
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) >= 2  # the server and its engine
        parent.kill()
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    assert is_free(int(url.rpartition(":")[2].removesuffix("/v1")))


def test_what_it_cannot_serve_it_says(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "server.log"
    (tmp_path / "nothing").mkdir()
    with (
        pytest.raises(EngineError) as caught,
        serve(tmp_path / "nothing", name="nothing", log=log, environment=ALONE),
    ):
        pass
    text = str(caught.value)
    assert f"vLLM does not serve {tmp_path / 'nothing'}: it ended with code 1" in text
    assert str(log) in text
    assert log.read_text().strip().endswith(text.rpartition("\n")[2])


def test_a_start_has_a_limit_and_leaves_nothing(taught: Path, tmp_path: Path) -> None:
    before = psutil.Process().children(recursive=True)
    with (
        pytest.raises(EngineError, match=r"it was not ready after 1 s; its log: .*server\.log"),
        serve(taught, name="taught", log=tmp_path / "server.log", longest_start=1.0),
    ):
        pass
    assert psutil.Process().children(recursive=True) == before


def test_without_vllm_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefbench.engines.serving.installed", lambda: None)
    with pytest.raises(EngineError, match=r"vLLM is not installed: .*pip install"):
        need_vllm()


def test_a_log_that_cannot_be_written_is_told(taught: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(EngineError, match=r"log .* cannot be written"),
        serve(taught, name="taught", log=tmp_path / "file" / "server.log"),
    ):
        pass


def test_a_port_is_free_until_somebody_listens() -> None:
    port = free_port()
    assert is_free(port)
    for address in (HOST, ""):
        with socket.create_server((address, port)):
            assert not is_free(port)
    assert is_free(port)
