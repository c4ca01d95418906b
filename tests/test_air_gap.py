"""A node without any network: what a login node has mirrored is all that the paper suite needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PREFBENCH = [sys.executable, "-m", "prefbench"]
CUT_OFF = ["unshare", "--user", "--map-root-user", "--net", "--"]
"""In a network namespace of its own, with nothing in it but a loopback that is down."""
LOOPBACK = """
import fcntl, socket, struct
UP = struct.pack("16sH", b"lo", 0x1 | 0x40)
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, UP.ljust(40, bytes(1)))
"""
"""Brings the loopback up, as it is on a node without network: vLLM's own processes talk over it."""
ATTEMPT = """
import pathlib, socket
assert len(pathlib.Path("/proc/net/route").read_text().splitlines()) == 1
try:
    socket.create_connection(("192.0.2.1", 443), timeout=5)
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture(scope="module")
def mirrored(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper suite's data as `prefbench mirror` writes them on the login node."""
    folder = tmp_path_factory.mktemp("login") / "data"
    command = [*PREFBENCH, "mirror", folder, "--suite", "paper", "--from", real_data]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, check=True)
    files = [line.rpartition(": ")[2] for line in done.stdout.splitlines()]
    assert len(files) == len(set(files)) == 10  # a set that two tasks want is written once
    assert "Creating" not in done.stderr
    return folder


def cut_off(home: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Runs a program as on such a node, where nothing was cached before."""
    kept = ("PATH", "PYTHONPATH", "OMP_NUM_THREADS", "LANG")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    program = f"{LOOPBACK}\nimport os, sys\nos.execv(sys.argv[1], sys.argv[1:])"
    return subprocess.run(
        [*CUT_OFF, sys.executable, "-c", program, *map(str, command)],
        env={**environment, "HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        cwd=TOP,
    )


def test_the_paper_suite_without_any_route(mirrored: Path, small_zoo: Path, tmp_path: Path) -> None:
    home, runs, results = tmp_path / "home", tmp_path / "runs", tmp_path / "results"
    home.mkdir()
    for name in ("sft", "dpo"):
        shutil.copytree(
            small_zoo / "checkpoints" / name,
            runs / name,
            ignore=shutil.ignore_patterns("checkpoint-*"),
        )
    tried = cut_off(home, sys.executable, "-c", ATTEMPT)
    assert tried.stdout == "Network is unreachable\n", tried.stderr  # so the test can fail

    asked = ("--suite", "paper", "--limit", 1, "--mirror", mirrored, "--results", results)
    done = cut_off(home, *PREFBENCH, "run", runs, *asked)
    assert done.returncode == 0, done.stderr
    manifests = [json.loads(file.read_text()) for file in results.glob("cells/*/manifest.json")]
    assert len(manifests) == 20
    assert {one["task"]["name"] for one in manifests} >= {"gsm8k_5shot", "wikitext2"}
    engines = {one["engine"]["kind"] for one in manifests}
    assert engines == {"hf", "vllm"}  # what generates, too, starts without a network
    assert not list(results.rglob("failure.json"))

    again = cut_off(home, *PREFBENCH, "run", runs, *asked)
    assert "0 cells measured, 20 were done already" in again.stdout + again.stderr
    table = cut_off(home, *PREFBENCH, "table", results, "--format", "json")
    shown = [row for row in json.loads(table.stdout)["rows"] if row["shown"]]
    assert {row["checkpoint"] for row in shown} == {"sft", "dpo"}
    assert len({row["task"] for row in shown}) == 11
    missing = {row["task"]: row["missing"] for row in shown if row["value"] is None}
    assert list(missing) == ["causal_dialogue_pairs"]
    assert "put its test_dag.json into a mirror" in missing["causal_dialogue_pairs"]
    assert {row["n"] for row in shown} == {1, None}
    assert "hellaswag_10shot, first 1 items: examples come from the validation split" in done.stdout
    page = cut_off(home, *PREFBENCH, "report", results, "--html", tmp_path / "report.html")
    assert page.returncode == 0, page.stderr
    doctor = cut_off(
        home, *PREFBENCH, "doctor", "--quick", "--suite", "quick", "--mirror", mirrored
    )
    assert doctor.returncode == 0, doctor.stdout
