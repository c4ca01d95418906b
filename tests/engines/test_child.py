from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from prefbench.engines.child import Child
from prefbench.errors import EngineError, StoppedError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def child(tmp_path):
    made = Child("tests.sleeping", log=tmp_path / "log", environment=environment(), timeout=3)
    yield made
    made.kill()
    assert not psutil.pid_exists(made.pid)


def environment():
    return {"PYTHONPATH": str(ROOT), "PREFBENCH_SAID": "yes"}


def test_calls_are_carried_out_in_another_process(child):
    assert child.call("say", 5) == "5"
    assert child.pid != os.getpid()
    assert "PREFBENCH_SAID" not in os.environ


def test_an_error_is_told_and_the_child_lives_on(child):
    with pytest.raises(EngineError, match="ValueError: a reason") as caught:
        child.call("fail", "a reason")
    assert not isinstance(caught.value, StoppedError)
    assert child.call("say", "a") == "a"
    assert "in fail" in child.log.read_text()


def test_a_crash_is_told_with_its_last_words(child):
    told = r"process ended \(by signal SIGSEGV, its last words: farewell; its log: "
    with pytest.raises(StoppedError, match=told):
        child.call("die", "farewell")
    assert not child.is_alive
    with pytest.raises(StoppedError):
        child.call("say", "a")


def test_a_hang_ends_and_work_that_goes_on_does_not(child):
    assert child.call("work", 4.0) == "done"
    with pytest.raises(StoppedError, match="no progress for 3 s in 'sleep'; ended it"):
        child.call("sleep", 60)
    assert not child.is_alive


def test_a_stopped_process_counts_as_hung(child):
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(StoppedError, match="no progress"):
        child.call("say", "a")


def test_an_interrupt_halfway_leaves_no_child_out_of_step(child):
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    with pytest.raises(KeyboardInterrupt):
        child.call("sleep", 60)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert not child.is_alive


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "logs").write_text("a file, not a directory")
    with pytest.raises(EngineError, match=r"its log .*/logs/log cannot be written: "):
        Child("tests.sleeping", log=tmp_path / "logs" / "log", environment={}, timeout=3)


PARENT = """
import os, sys
from pathlib import Path
from prefbench.engines.child import Child
child = Child("tests.sleeping", log=Path(sys.argv[1]), environment={}, timeout=60)
print(child.pid, flush=True)
if sys.argv[2] == "idle":
    child.call("say", "a")
    print("ready", flush=True)
    sys.stdin.read()
print("ready", flush=True)
child.call("sleep", 60)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("when", ["idle", "busy"])
def test_no_child_outlives_its_parent(tmp_path, how, when):
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log"), when]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment()},
    ) as parent:
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "ready\n"
        found = psutil.Process(pid)
        os.kill(parent.pid, how)
        parent.wait()
        psutil.wait_procs([found], timeout=60)
        assert not found.is_running() or found.status() == psutil.STATUS_ZOMBIE
