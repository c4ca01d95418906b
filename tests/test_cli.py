from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prefbench.cli import app


def prefbench(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prefbench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


@pytest.fixture(scope="module")
def results(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a run of the whole zoo, made through the command line."""
    folder = tmp_path_factory.mktemp("cli") / "results"
    done = run_zoo(small_zoo, folder)
    assert done.returncode == 0, done.stderr
    assert "DPO+ExMATE" in done.stdout
    assert "22 cells measured" in done.stderr
    return folder


def run_zoo(zoo: Path, results: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return prefbench(
        "run", zoo / "checkpoints", "--final", "--task", "demo_dialogues", "--task",
        "demo_everyday", "--limit", 8, "--mirror", zoo / "data", "--results", results, *more,
    )  # fmt: skip


def imported(told: str) -> set[str]:
    """The modules that `-X importtime` tells of."""
    return {line.rpartition("|")[2].strip() for line in told.splitlines()}


def test_a_finished_run_repeats_its_table_and_loads_no_torch(
    small_zoo: Path, results: Path
) -> None:
    arguments = ["run", str(small_zoo / "checkpoints"), "--final", "--task", "demo_dialogues"]
    arguments += ["--task", "demo_everyday", "--limit", "8", "--mirror", str(small_zoo / "data")]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "prefbench", *arguments, "-r", str(results)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == prefbench("table", results).stdout
    assert not imported(done.stderr) & {"torch", "lm_eval", "transformers", "datasets"}


@pytest.mark.parametrize("style", ["text", "markdown", "csv", "json"])
def test_tables_in_every_format(results: Path, style: str, tmp_path: Path) -> None:
    done = prefbench("table", results, "--format", style, "--out", tmp_path / "table")
    assert done.returncode == 0, done.stderr
    assert "demo_dialogues" in (tmp_path / "table").read_text().replace("\\_", "_")
    if style == "json":
        rows = json.loads((tmp_path / "table").read_text())["rows"]
        assert len({row["checkpoint"] for row in rows}) == 11


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["table", "{results}", "--format", "latex", "--standalone"], "\\documentclass"),
        (["table", "{results}", "--format", "html"], "prefbench-table"),
        (["table", "{results}", "--all", "--correction", "bh"], "Benjamini and Hochberg"),
        (["table", "{results}", "--format", "lm-eval", "--out", "{out}"], "results_"),
        (["table", "{results}", "--format", "model-index", "--out", "{out}"], "README.md"),
        (["compare", "dpo", "dpop", "-r", "{results}"], "dpo − dpop"),
        (["compare", "-r", "{results}"], "interquartile mean"),
        (["why", "dpo", "demo_everyday", "-r", "{results}"], "prefbench run"),
        (["trajectory", "dpo", "-r", "{results}"], "demo_dialogues"),
        (["report", "{results}", "--html", "{out}/page.html"], "page.html"),
        (["report", "{results}", "--figures", "{out}", "--format", "svg"], "differences.svg"),
        (["push", "{results}", "--to", "tensorboard", "--dir", "{out}"], "dpo"),
        (["gate", "{results}", "-p", "{out}/policy.yaml"], "inconclusive"),
    ],
)  # fmt: skip
def test_what_reads_results_answers_and_loads_no_torch(
    results: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    (tmp_path / "policy.yaml").write_text(
        "rules: [{task: demo_everyday, metric: acc_norm, max_drop: 1}]\n"
    )
    filled = [argument.format(results=results, out=tmp_path) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "prefbench", *filled],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (2 if arguments[0] == "gate" else 0), done.stderr[-2000:]
    assert told in done.stdout
    if "lm-eval" not in arguments:  # whose own functions say what its files hold
        assert not imported(done.stderr) & {"torch", "transformers", "datasets", "vllm"}


def test_scan_tells_methods_and_where_they_were_learnt(small_zoo: Path) -> None:
    done = prefbench("scan", small_zoo / "checkpoints")
    assert done.returncode == 0, done.stderr
    assert "33 ready" in done.stdout
    rows = json.loads(prefbench("scan", small_zoo / "checkpoints", "--json").stdout)
    assert {row["method"] for row in rows} >= {"sft", "dpo", "dpop", "ipo", "slic", "exmate"}
    assert all(row["origins"]["method"] for row in rows)


def test_help_has_examples_and_every_verb() -> None:
    done = prefbench("--help")
    assert done.returncode == 0
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    assert {"demo", "run", "table", "compare", "report", "gate", "why", "import"} <= set(verbs)
    for verb in verbs:
        assert verb in done.stdout
        assert "Example" in prefbench(verb, "--help").stdout


def test_tasks_lists_suites_and_tasks() -> None:
    done = prefbench("tasks")
    for name in ("paper", "quick", "demo", "gsm8k_5shot", "arc_challenge_25shot"):
        assert name in done.stdout


def test_mirror_writes_what_run_can_read(small_zoo: Path, results: Path, tmp_path: Path) -> None:
    done = prefbench("mirror", tmp_path / "mirror", "--suite", "demo", "--from", small_zoo / "data")
    assert done.returncode == 0, done.stderr
    shutil.copytree(small_zoo / "checkpoints" / "sft", tmp_path / "runs" / "sft")
    measured = prefbench(
        "run", tmp_path / "runs", "--final", "--task", "demo_everyday", "--limit", 4,
        "--mirror", tmp_path / "mirror", "-r", tmp_path / "results",
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "{runs}", "--task", "demo_everydy"], 1, "did you mean demo_everyday"),
        (["run", "{empty}", "--task", "demo_everyday", "--mirror", "{data}"], 2, "no checkpoints"),
        (["run", "{runs}", "--limit", "0", "--mirror", "{data}"], 2, "limit must be at least 1"),
        (["run", "{runs}", "--baseline", "rlhf"], 2, "'rlhf' names no checkpoint"),
        (["run", "{runs}", "--ray-address", "auto"], 2, "--executor here knows no --ray-address"),
        (["run", "{runs}", "--executor", "slurm", "--slurm", "time=1:00"], 2, "in minutes"),
        (["scan", "{empty}/nowhere"], 1, "nowhere"),
        (["scan", "{empty}"], 2, "no checkpoints"),
        (["table", "{empty}"], 1, "no results here"),
        (["table", "{empty}", "--format", "lm-eval"], 2, "say --out DIR"),
        (["compare", "a", "b", "-r", "{empty}"], 1, "no results here"),
        (["report", "{empty}"], 2, "--html FILE"),
        (["run", "{runs}", "--suite", "demo", "--mirror", "{empty}/no"], 1, "no such mirror"),
    ],
)  # fmt: skip
def test_errors_are_one_clear_line_and_an_exit_code(
    small_zoo: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {
        "runs": small_zoo / "checkpoints",
        "data": small_zoo / "data",
        "empty": tmp_path / "empty",
    }
    done = prefbench(*(argument.format(**places) for argument in arguments), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_cannot_steer_the_terminal(tmp_path: Path) -> None:
    done = prefbench("scan", tmp_path / "evil\x1b[2J\u202e")
    assert done.returncode == 1
    assert "evil [2J " in done.stderr


def test_a_broken_checkpoint_is_told_in_the_table_and_by_the_exit_code(
    small_zoo: Path, tmp_path: Path
) -> None:
    for name in ("sft", "dpo"):
        shutil.copytree(small_zoo / "checkpoints" / name, tmp_path / "runs" / name)
    shutil.rmtree(tmp_path / "runs" / "dpo" / "checkpoint-1")
    shutil.rmtree(tmp_path / "runs" / "dpo" / "checkpoint-2")
    with (tmp_path / "runs" / "dpo" / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    done = prefbench(
        "run", tmp_path / "runs", "--final", "--task", "demo_everyday", "--limit", 4,
        "--mirror", small_zoo / "data", "-r", tmp_path / "results",
    )  # fmt: skip
    assert done.returncode == 1
    assert "SFT" in done.stdout
    assert "model.safetensors" in done.stdout
    assert "not measured: dpo" in done.stderr


def test_ctrl_c_stops_with_a_word_and_the_same_command_goes_on(
    small_zoo: Path, results: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "prefbench", "run", str(small_zoo / "checkpoints"), "--final",
        "--task", "demo_dialogues", "--task", "demo_everyday", "--limit", "8",
        "--mirror", str(small_zoo / "data"), "--results", str(tmp_path / "results"),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("dpo × "):  # it has measured a cell
                break
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
    assert running.returncode == 130
    assert "stopped; the same command goes on from here" in rest
    assert "Traceback" not in rest
    done = run_zoo(small_zoo, tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert "0 were done already" not in done.stderr
    assert done.stdout == prefbench("table", results).stdout


def test_a_full_disk_is_told_and_nothing_is_lost(
    small_zoo: Path, results: Path, tmp_path: Path
) -> None:
    program = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))\n"
        "from prefbench.cli import main; main()"
    )
    arguments = [
        "run", str(small_zoo / "checkpoints"), "--final", "--task", "demo_dialogues", "--task",
        "demo_everyday", "--limit", "8", "--mirror", str(small_zoo / "data"),
        "--results", str(tmp_path / "results"),
    ]  # fmt: skip
    (tmp_path / "results").mkdir()
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    done = run_zoo(small_zoo, tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert done.stdout == prefbench("table", results).stdout


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "prefbench", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not imported(done.stderr) & {
        "torch",
        "pandas",
        "numpy",
        "pyarrow",
        "pydantic",
        "scipy",
        "lm_eval",
    }


def test_a_zoo_of_other_settings_is_not_passed_off_as_the_demo(
    small_zoo: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_zoo, tmp_path / "zoo")
    done = prefbench("demo", tmp_path / "zoo", "--only-train")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert str(tmp_path / "zoo") in done.stderr


def test_the_judges_can_be_listed_and_their_own_help_is_there() -> None:
    listed = prefbench("judges")
    assert listed.returncode == 0, listed.stderr
    assert "helpful_dialogue" in listed.stdout
    for words in (("judges", "check", "--help"), ("winrate", "--help")):
        shown = prefbench(*words)
        assert shown.returncode == 0
        assert "Examples: prefbench" in shown.stdout
