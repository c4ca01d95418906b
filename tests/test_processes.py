from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from prefbench.processes import end_group, ending

CHILD = """
import os, subprocess, sys, time
from prefbench.processes import end_with_parent
end_with_parent(0, os.getppid())
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("begun", flush=True)
time.sleep(600)
"""
PARENT = f"""
import os, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", {CHILD!r}],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
)
child.stdout.readline()
print("begun", flush=True)
time.sleep(600)
"""


def start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent_however_that_ended(sign: int) -> None:
    with start(PARENT) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "begun\n"
        (child, *_) = psutil.Process(parent.pid).children()
        parent.send_signal(sign)
    _, alive = psutil.wait_procs([child], timeout=60)
    assert alive == []


def test_a_child_whose_connection_closes_ends_with_all_it_started() -> None:
    with start(CHILD) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "begun\n"
        started = psutil.Process(child.pid).children()
        assert len(started) == 1
        child.stdin.close()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []


def test_an_ending_is_told_with_the_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("words of another\n")
    start_of_log = log.stat().st_size
    with log.open("a") as out, start("import sys; sys.exit(3)") as quiet:
        quiet.wait()
        assert ending(quiet, log, start_of_log) == f"with code 3; its log: {log}"
        out.write("first\nno room left\n")
    told = ending(quiet, log, start_of_log)
    assert told == f"with code 3, its last words: no room left; its log: {log}"


def test_a_process_is_ended_with_what_it_started(tmp_path: Path) -> None:
    with start(CHILD) as child:
        assert child.stdout is not None
        child.stdout.readline()
        started = psutil.Process(child.pid).children()
        end_group(child)
        assert ending(child, tmp_path / "none").startswith("by signal SIGKILL")
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
