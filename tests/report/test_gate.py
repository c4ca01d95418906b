from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner, Result

from prefbench.files import write_json, write_table
from prefbench.gate.checks import Check
from prefbench.gate.gating import Gate, Verdict
from prefbench.gate.policies import Amount
from prefbench.leaderboard import Group
from prefbench.metrics import metric_named
from prefbench.report.gate import EXAMPLES, GateCommand, gate
from prefbench.report.gate_ci import as_github, as_junit, without_commands
from prefbench.report.gate_text import as_json, as_markdown, as_text, moved, sentence_of
from prefbench.store import Store

HOSTILE = (
    "::error::x,y:%\r\n::set-env name=A::b ##[add-mask]z \x1b[31m\u202e<b>&]]>\ud800\uffff\x00|"
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """SFT, a checkpoint as good, a worse one, and one with a name that would like to act."""
    return make_store(
        tmp_path / "results", {"sft": 300, "same": 300, "bad": 250, "near": 291, HOSTILE: 250}
    )


def make_store(folder: Path, n_right: dict[str, int], **identity: Any) -> Path:
    store, n = Store(folder), 400
    checkpoints, cells = [], []
    for place, (name, right) in enumerate(n_right.items()):
        safe = name.encode("utf-8", "replace").decode()
        checkpoints.append(
            {"name": safe, "path": f"/{place}", "state": "ready", "fingerprint": safe,
             "method": "sft" if name == "sft" else "dpo"}
        )  # fmt: skip
        items = np.arange(n, dtype=np.int32)
        table = pa.table(
            {
                "item": items,
                "cluster": pa.array(items.astype(str)).dictionary_encode(),
                "reason": pa.nulls(n, pa.string()),
                "acc": (items < right).astype(float),
            }
        )
        facts = {
            "checkpoint": safe, "task": "t", "data": "d", "shots": None, "limit": None,
            "fewshot": None, "chat": False, "dtype": "float32", "engine": "hf",
            "max_length": None, **identity,
        }  # fmt: skip
        manifest = {
            "identity": facts, "checkpoint": {"name": safe}, "n_items": n, "missing": {},
            "n_missing": 0, "n_cut": 0, "n_unfinished": 0, "items": "i", "task": {"config": {}},
            "engine": {"kind": "hf"}, "higher_is_better": {"acc": True},
        }  # fmt: skip
        write_table(folder / "cells" / f"c{place}" / "records.parquet", table)
        write_json(folder / "cells" / f"c{place}" / "manifest.json", manifest)
        cells.append(
            {"cell": f"c{place}", "checkpoint": safe, "task": "quiz", "shown": ["acc"],
             "missing": None, "identity": facts}
        )  # fmt: skip
    store.write_plan("p", {"id": "p", "when": "0", "checkpoints": checkpoints, "cells": cells})
    return folder


def call(*arguments: Any) -> Result:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    app.command(cls=GateCommand, epilog=EXAMPLES)(gate)
    return CliRunner().invoke(app, ["gate", *map(str, arguments)])


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text("rules: [{task: quiz, metric: acc, max_drop: 2}]")
    return file


def only(policy: Path, name: str) -> Path:
    policy.write_text(f"checkpoints: [{name}]\n{policy.read_text()}")
    return policy


@pytest.mark.parametrize(
    ("name", "code", "outcome"),
    [("same", 0, "pass"), ("bad", 1, "regression"), ("near", 2, "inconclusive")],
)
def test_the_exit_code_answers(
    results: Path, policy: Path, name: str, code: int, outcome: str
) -> None:
    found = call("--policy", only(policy, name), results)
    assert found.exit_code == code
    assert found.stdout.splitlines()[-1] == f"{outcome}: 1 {outcome}; beside sft"


def test_the_text_to_the_letter(results: Path, policy: Path) -> None:
    lines = call("-p", only(policy, "same, bad"), results).stdout.splitlines()
    assert lines[:5] == [
        "              what         baseline  value  difference           asked"
        "                         why",
        "── same " + "─" * 90,
        "✓ pass        quiz: acc ↑  75.0      75.0   0.0 [-1.0, +1.0]     "
        "may fall by at most 2 points",
        "── bad " + "─" * 91,
        "✗ regression  quiz: acc ↑  75.0      62.5   -12.5 [-16.1, -9.2]  "
        "may fall by at most 2 points  fell by more",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing option '--policy'"),
        (("-p", "policy.yaml", "--nonsense"), "No such option: --nonsense"),
        (("-p", "none.yaml"), "error: none.yaml: cannot be read: No such file"),
        (("-p", "policy.yaml", "nothing"), "error: nothing: no results here"),
        (("-p", "policy.yaml", "results", "--baseline", "kto"), "the baseline 'kto' names no"),
        (("-p", "policy.yaml", "results", "--junit", "no/x.xml"), "no/x.xml: cannot be written"),
        (("-p", "policy.yaml", "results", "--against", "nothing"), "nothing: no results here"),
        (("-p", "wrong.yaml", "results"), "error: rule 1: no task 'quizz' was measured"),
    ],
)
def test_errors_are_exit_code_3(
    results: Path, policy: Path, monkeypatch: Any, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(results.parent)
    Path("wrong.yaml").write_text("rules: [{task: quizz, max_drop: 1}]")
    found = call(*arguments)
    assert found.exit_code == 3
    assert said in found.stderr
    assert found.stdout == ""


def test_a_crash_is_no_regression(results: Path, policy: Path) -> None:
    """The interpreter's own exit code is 1."""
    for file in results.glob("cells/*/records.parquet"):
        write_table(file, pa.table({"unknown": [1]}))
    found = call("-p", policy, results)
    assert found.exit_code == 3
    assert "KeyError" in found.stderr


def test_a_missing_cell_is_an_error(results: Path, policy: Path) -> None:
    (results / "cells" / "c1" / "manifest.json").unlink()
    found = call("-p", only(policy, "same"), results)
    assert found.exit_code == 3
    assert "! error" in found.stdout
    assert "same has no value: not measured yet" in found.stdout


def test_json_holds_everything(results: Path, policy: Path) -> None:
    whole = json.loads(call("-p", only(policy, "bad"), results, "--json").stdout)
    (check,) = whole.pop("checks")
    assert whole == {
        "outcome": "regression", "exit_code": 1, "baseline": "sft", "confidence": 0.95,
        "n_checks": 1, "notes": [],
    }  # fmt: skip
    assert check["low"] < check["difference"] == -0.125 < check["high"] < check["threshold"]
    assert (check["value"], check["baseline"], check["n"]) == (0.625, 0.75, 400)


def test_a_baseline_of_last_week(results: Path, policy: Path, tmp_path: Path) -> None:
    week = make_store(tmp_path / "week", {"sft": 350})
    found = call("-p", only(policy, "sft"), results, "--against", week)
    assert found.exit_code == 1
    assert f"beside sft in {week}" in found.stdout
    other = make_store(tmp_path / "other", {"sft": 350}, task="another")
    found = call("-p", policy, results, "--against", other)
    assert found.exit_code == 3
    assert "it was measured with another definition of the task" in found.stdout


# --- what machines read


def test_junit_can_be_read_back(results: Path, policy: Path, tmp_path: Path) -> None:
    file = tmp_path / "gate.xml"
    assert call("-p", policy, results, "--junit", file).exit_code == 1
    root = ElementTree.parse(file).getroot()
    assert root.tag == "testsuites"
    assert {k: root.get(k) for k in ("tests", "failures", "errors")} == {
        "tests": "4", "failures": "2", "errors": "1",
    }  # fmt: skip
    suites = {suite.get("name"): suite for suite in root}
    assert suites["bad"].find("testcase/failure").get("type") == "regression"  # type: ignore[union-attr]
    assert suites["near"].find("testcase/error").get("type") == "inconclusive"  # type: ignore[union-attr]
    case = suites["same"].find("testcase")
    assert case is not None
    assert (case.get("classname"), case.get("name")) == (
        "same", "quiz: acc ↑ may fall by at most 2 points",
    )  # fmt: skip
    assert [child.tag for child in case] == ["system-out"]


def hostile() -> Gate:
    group = Group(HOSTILE, HOSTILE, notes=(HOSTILE,))
    check = Check(HOSTILE, group, metric_named("acc"), True, Amount(2.0), "no_worse", 1)
    verdicts = (
        Verdict(check, "regression", HOSTILE, 0.5, 0.6, -0.1, -0.2, -0.05, -0.2, -0.05, 9),
        Verdict(check, "error", HOSTILE),
    )
    return Gate(HOSTILE, 0.95, verdicts, (HOSTILE,))


def test_hostile_names_stay_text_in_junit() -> None:
    root = ElementTree.fromstring(as_junit(hostile()).encode())
    for node in root.iter():
        for text in (*node.attrib.values(), node.text or ""):
            assert "\x1b" not in text
            assert "\u202e" not in text
    assert [node.tag for node in root.iter("b")] == []
    assert "<b>&]]>" in root.find("testsuite").get("name")  # type: ignore[union-attr,operator]


def commands(text: str) -> list[str]:
    """The commands that GitHub's runner finds: `::` first in a line, or `##[` anywhere."""
    lines = text.replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip().startswith("::") or "##[" in line]


def test_names_give_github_no_commands() -> None:
    said = as_github(hostile())
    assert len(commands(said)) == len(hostile().verdicts) == len(said.splitlines())
    first = said.splitlines()[0]
    assert first.startswith("::error title=regression%3A ")
    _, properties, message = first.split("::", 2)
    assert "%3A%3Aerror%3A%3Ax%2Cy%3A%25" in properties
    assert "," not in properties
    assert "%25" in message
    assert commands(without_commands(as_text(hostile()))) == []
    assert commands(without_commands(f"a\n {HOSTILE}\n::b::c")) == []


def test_github_gets_annotations_and_a_summary(
    results: Path, policy: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    found = call("-p", policy, results, "--github")
    assert found.exit_code == 1
    said = commands(found.stdout)
    assert [line.split(" ")[0] for line in said] == ["::error", "::error", "::warning"]
    assert "title=regression%3A bad%2C quiz%3A acc ↑::bad, quiz: acc ↑ may fall" in said[1]
    text = summary.read_text()
    assert text.startswith("before\n**regression: 1 pass, 2 regression, 1 inconclusive")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "<b>" not in text
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    found = call("-p", only(policy, "same"), results, "--github")
    assert found.exit_code == 0
    assert "GITHUB_STEP_SUMMARY: " in found.stderr
    assert commands(found.stdout) == ["::notice title=prefbench gate::pass: 1 pass; beside sft"]


def test_no_control_character_reaches_a_terminal() -> None:
    for text in (as_text(hostile()), as_markdown(hostile()), as_json(hostile())):
        assert "\x1b" not in text
        assert "\u202e" not in text
    json.loads(as_json(hostile()))


def test_words_of_a_relative_difference() -> None:
    group = Group("pairs", "pairs")
    metric = metric_named("perplexity")
    check = Check("dpo", group, metric, False, Amount(0.05, relative=True), "no_worse", 1)
    one = Verdict(check, "pass", "", 2.1, 2.0, 0.05, -0.01, 0.11, -0.02, 0.12, 9)
    assert moved(one) == "+5.0% [-1.0%, +11.0%]"
    tiny = dataclasses.replace(one, difference=-0.0001, low=-0.0002, high=0.0004)
    assert moved(tiny) == "0.0% [0.0%, 0.0%]"
    assert moved(dataclasses.replace(one, difference=None)) == "—"
    assert moved(dataclasses.replace(one, low=math.nan)) == "+5.0%"
    assert sentence_of(one) == (
        "dpo, pairs: perplexity ↓ may rise by at most 5% of the baseline; "
        "it moved by +5.0% [-1.0%, +11.0%], from 2.00: pass"
    )
