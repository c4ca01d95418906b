"""What is tried in processes of its own, with packages that fail in every way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from prefbench.doctor.children import attempt, outcome, started

FAILURES = {
    "raise ImportError('libcudart.so.13: cannot open\\nmore')": "ImportError: libcudart.so.13",
    "import os; os.kill(os.getpid(), 11)": "ended by SIGSEGV",
    "raise SystemExit(3)": "exit code 3",
    "import os; os._exit(0)": "ended without a word",
    "print('{}'); print('garbage', flush=True); 1 / 0": "ZeroDivisionError: division by zero",
    "try:\n  import nowhere\nexcept ImportError as e:\n  raise RuntimeError('outer') from e": (
        "RuntimeError: outer (from ModuleNotFoundError: No module named 'nowhere')"
    ),
}


@pytest.mark.parametrize("code", FAILURES)
def test_why_a_trial_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    (tmp_path / "vllm.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with attempt("vllm", time_limit=20) as child:
        assert FAILURES[code] in outcome(child)["error"]


def test_a_trial_that_hangs_ends_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vllm.py").write_text(
        "import subprocess, time, pathlib\n"
        "helper = subprocess.Popen(['sleep', '60'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(helper.pid))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with attempt("vllm", time_limit=1.5) as child:
        assert outcome(child) == {"error": "did not end within 1.5 s"}
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_trial_ends_when_nobody_waits_any_more() -> None:
    with started(["sleep", "60"], time_limit=60) as child:
        pass
    assert gone(child.process.pid)


def test_files_of_the_working_directory_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("here", "installed"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "vllm.py").write_text(f"raise ImportError({place!r})")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    with attempt("vllm", time_limit=20) as child:
        assert outcome(child) == {"error": "ImportError: installed"}


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False
