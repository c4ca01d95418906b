from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

import prefbench.cli
from prefbench.errors import InputError
from prefbench.report.collect import collect
from prefbench.report.explain.again import _quoted, again
from prefbench.report.explain.behind import look_up, values_of
from prefbench.report.explain.explained import as_text
from prefbench.report.explain.samples import samples_of
from prefbench.report.why import EXAMPLES, as_json, why
from prefbench.stats.bootstrap import Resampling
from prefbench.stats.estimates import estimate
from prefbench.store import Store
from tests.judged import TASK

N = 6
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command(epilog=EXAMPLES)(why)


def call(*words: str) -> None:
    """`prefbench` with some words, in this process; recorded as if it were its own."""
    told, sys.argv = sys.argv, ["prefbench", *words]
    try:
        prefbench.cli.app([*words], standalone_mode=False)
    finally:
        sys.argv = told


@pytest.fixture(scope="module")
def results(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints on three tasks: texts, log-probs, and judged answers. Leave it as it is."""
    place = tmp_path_factory.mktemp("why")
    for name in ("sft", "dpo"):
        ignored = shutil.ignore_patterns("checkpoint-*")
        shutil.copytree(small_zoo / "checkpoints" / name, place / "runs" / name, ignore=ignored)
    (place / "tasks").mkdir()
    (place / "tasks" / "drawn.yaml").write_text(TASK)
    common = [
        "run", str(place / "runs"), "--limit", str(N), "--engine", "hf",
        "--mirror", str(small_zoo / "data"), "--task-folder", str(place / "tasks"),
        "--results", str(place / "results"),
    ]  # fmt: skip
    call(*common, "--task", "demo_arithmetic", "--task", "demo_dialogues", "--task", "drawn")
    call(*common, "--task", "drawn", "--opponent", "round_robin")
    return place / "results"


@pytest.fixture
def own(results: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(results, tmp_path / "results")
    return tmp_path / "results"


WORDS = {
    "texts": ("dpo", "demo_arithmetic"),
    "log-probs": ("dpo", "demo_dialogues", "agility"),
    "judged": ("dpo", "drawn, against sft"),
}


# --- the command


@pytest.mark.parametrize("kind", WORDS)
def test_the_command_makes_the_same_cell_with_the_same_numbers(
    kind: str, results: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    first = look_up(results, WORDS[kind])
    command = again(first)
    assert command.remarks == ()
    monkeypatch.chdir(tmp_path)
    if kind == "texts":  # as a shell takes it
        assert command.line.startswith("prefbench run ")
        line = command.line.replace("prefbench", f"{sys.executable} -m prefbench", 1)
        subprocess.run(["bash", "-c", line], check=True, capture_output=True)
    else:
        call(*shlex.split(command.line)[1:])
    anew = look_up(Path("again"), [first.cell, first.column.metric.name])
    assert anew.cell == first.cell
    assert (tmp_path / "again" / "cells" / first.cell).is_dir()
    assert anew.entry.score.estimate == first.entry.score.estimate
    assert anew.manifest["identity"] == first.manifest["identity"]
    told, made = (json.loads(as_json(b, samples_of(b, n=N), command)) for b in (first, anew))
    assert made["samples"] == told["samples"]
    assert any(sample["value"] is not None for sample in made["samples"])


SETTINGS: list[dict[str, Any]] = [
    {"limit": 7, "max_length": 99, "batch_size": 3, "dtype": "float64"},
    {"fewshot": "parity", "chat_template": "off", "device": "cpu", "trust_remote_code": True},
    {
        "engine": "server",
        "base_url": "http://127.0.0.1:1/v1",
        "served_model": "it's",
        "server_api": "chat",
        "api_key_env": "MY_KEY",
    },
    {"engine": "vllm", "tensor_parallel_size": 2, "allow_pickle": True},
]


@pytest.mark.parametrize("changed", SETTINGS)
def test_every_setting_that_can_change_a_number_is_in_the_command(
    changed: dict[str, Any], results: Path
) -> None:
    behind = look_up(results, WORDS["texts"])
    found = json.loads(json.dumps(behind.manifest))
    found["settings"] |= {"limit": None, "engine": "auto", **changed}
    chosen = {key: changed[key] for key in changed.keys() & found["identity"].keys()}
    found["identity"] |= {"limit": None, **chosen}
    words = shlex.split(again(dataclasses.replace(behind, manifest=found)).line)
    run = typer.main.get_command(prefbench.cli.app).commands["run"]  # type: ignore[attr-defined]
    given = run.make_context("run", words[2:]).params
    expected = {"limit": None, "engine": "hf", **changed}
    said = {key: getattr(given[key], "value", given[key]) for key in expected}
    assert said == expected
    assert given["task"] == ["demo_arithmetic"]


def test_what_the_manifest_does_not_know_is_said(own: Path) -> None:
    behind = look_up(own, WORDS["judged"])
    found = {**behind.manifest, "command": ["python", "script.py"]}
    found["checkpoint"] = {**found["checkpoint"], "path": "/gone/dpo"}
    unknown = again(dataclasses.replace(behind, manifest=found))
    assert "--mirror DIR" in unknown.line
    assert "--task-folder DIR" in unknown.line
    said = "\n".join(unknown.remarks)
    assert "local directory with prefbench/demo-dialogues" in said
    assert "drawn is not found here" in said
    assert "/gone/dpo is not here any more" in said
    known = again(dataclasses.replace(behind, manifest=found), mirrors=[Path("data")])
    assert "--mirror data" in known.line
    imported = again(dataclasses.replace(behind, manifest={"checkpoint": {}}))
    assert imported.words == ()
    assert "imported" in imported.remarks[0]


def test_a_changed_definition_is_told(own: Path) -> None:
    behind = look_up(own, WORDS["texts"])
    found = {**behind.manifest, "identity": {**behind.manifest["identity"], "task": "0" * 64}}
    (remark,) = again(dataclasses.replace(behind, manifest=found)).remarks
    assert "has changed since" in remark


@pytest.mark.parametrize("word", ["plain", "two words", "it's", "\x1b[31m\u202ehé'\\\n$(id)"])
def test_a_shell_reads_each_word_as_it_was(word: str) -> None:
    quoted = _quoted(word)
    assert quoted.isprintable()
    shown = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True)
    assert shown.stdout.decode() == word


# --- the number


def test_the_number_is_the_tables(results: Path) -> None:
    board = collect(results, n_resamples=100)
    n = 0
    for row in board.rows:
        for column in board.columns:
            entry = board.entry(row, column)
            if entry and column.shown:
                words = [row.name, column.group.name, column.metric.name]
                behind = look_up(results, words, n_resamples=100)
                assert behind.column.key == column.key
                assert str(behind.entry) == str(entry)  # NaN equals itself here
                n += 1
    assert n > 8


def test_the_interval_is_made_as_it_says(results: Path) -> None:
    behind = look_up(results, WORDS["log-probs"], n_resamples=500)
    assert behind.measured is not None
    metric = behind.column.metric
    made = estimate(
        np.stack([behind.measured.quantities[name] for name in metric.quantities], axis=-1),
        metric.statistic,
        resampling=Resampling(behind.measured.clusters, n_resamples=500, seed=behind.seed),
    )
    assert made == behind.entry.score.estimate
    text = as_text(behind, [], again(behind))
    n_clusters = len(set(behind.measured.clusters))
    assert f"500 resamples of {n_clusters} clusters, seed {behind.seed}" in " ".join(text.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dpo", "demo"), "'demo' may be any of these.*demo_arithmetic.*demo_dialogues"),
        (("dpo", "drawn"), "(?s)may be any of these.*dpo × drawn, against sft.*round_robin"),
        (("kto", "drawn"), "(?s)no checkpoint here is named 'kto'; there are:\n  dpo\n  sft"),
        (("dpo", "gsm8k"), "(?s)no task here is named 'gsm8k'; there are:.*demo_arithmetic"),
        (("dpo", "demo_arithmetic", "f1"), "no metric here is named 'f1'"),
        (("dpo", "demo_arithmetic", "exact"), "'exact' may be any of these"),
        (("0000000000",), "no cell here begins with '0000000000'"),
        (("a", "b", "c", "d"), "name a cell by its id, or a checkpoint"),
    ],
)
def test_what_is_not_clear_is_refused_with_what_there_is(
    words: tuple[str, ...], said: str, results: Path
) -> None:
    with pytest.raises(InputError, match=said if said.startswith("(?s)") else f"(?s){said}"):
        look_up(results, words)


def test_a_cell_is_found_by_its_id_and_its_beginning(results: Path) -> None:
    cell = look_up(results, WORDS["log-probs"]).cell
    for word in (cell, cell[:8]):
        behind = look_up(results, [word])
        assert (behind.cell, behind.column.metric.name) == (cell, "perplexity.v1")
        assert look_up(results, [word, "agility"]).column.metric.name == "agility.v1"


def test_why_there_is_no_number(own: Path) -> None:
    behind = look_up(own, WORDS["texts"])
    folder = own / "cells" / behind.cell
    (folder / "manifest.json").unlink()
    (folder / "failure.json").write_text(json.dumps({"reason": "device lost"}))
    with pytest.raises(InputError, match=r"dpo has no .* on demo_arithmetic.*: device lost"):
        look_up(own, WORDS["texts"])
    with pytest.raises(InputError, match="dpo × demo_arithmetic: device lost"):
        look_up(own, [behind.cell])


def test_twins_are_told_apart_by_their_names(own: Path) -> None:
    (file,) = (f for f in (own / "plans").glob("*.json") if "round_robin" not in f.read_text())
    plan = json.loads(file.read_text())
    facts = next(c for c in plan["checkpoints"] if c["name"] == "dpo")
    plan["checkpoints"].append({**facts, "name": "twin", "path": "/elsewhere/twin"})
    plan["cells"] += [
        {**c, "checkpoint": "twin"} for c in plan["cells"] if c["checkpoint"] == "dpo"
    ]
    file.write_text(json.dumps(plan))
    first = look_up(own, WORDS["texts"])
    with pytest.raises(InputError, match=r"(?s)dpo × demo_arithmetic.*twin × demo_arithmetic"):
        look_up(own, [first.cell])
    twin = look_up(own, ["twin", "demo_arithmetic"])
    assert twin.cell == first.cell
    said = as_text(twin, [], again(twin))
    assert "now at /elsewhere/twin" in " ".join(said.split())


# --- round robins


def test_a_strength_names_the_comparisons_it_is_made_of(results: Path) -> None:
    for name, other in (("dpo", "sft"), ("sft", "dpo")):
        behind = look_up(results, [name, "round_robin", "strength"])
        assert list(behind.pairs) == [other]
        assert behind.manifest["checkpoint"]["name"] == name
        assert samples_of(behind) == []
        (cell,) = behind.pairs.values()
        assert f"{cell} with {other}" in " ".join(as_text(behind, [], again(behind)).split())
        assert "--opponent round_robin" in again(behind).line
    with pytest.raises(InputError, match="name one by its cell's id"):
        samples_of(behind, items=[0])


def test_a_comparison_of_a_round_robin_is_explained_by_its_id(results: Path) -> None:
    (cell,) = look_up(results, ["dpo", "round_robin", "strength"]).pairs.values()
    behind = look_up(results, [cell])
    assert behind.column.metric.name == "win_rate.v1"
    assert behind.entry.score.estimate.n == N
    assert any(sample.replies for sample in samples_of(behind, n=N))


# --- samples


def test_samples_are_the_worst_and_the_best(results: Path) -> None:
    behind = look_up(results, WORDS["log-probs"])
    assert behind.measured is not None
    values = values_of(behind.measured, behind.column.metric)
    found = [sample.value for sample in samples_of(behind, n=2)]
    assert found == [*sorted(values)[:2], *sorted(values)[-2:]]
    perplexity = look_up(results, ["dpo", "demo_dialogues", "perplexity"])
    falling = [sample.value for sample in samples_of(perplexity, n=1)]
    assert falling[0] == max(values_of(perplexity.measured, perplexity.column.metric))  # type: ignore[arg-type]
    assert falling[0] > falling[1]  # type: ignore[operator]
    assert len(samples_of(behind, n=50)) == N
    assert samples_of(behind, n=0) == []
    assert [sample.item for sample in samples_of(behind, items=[4, 0])] == [4, 0]
    with pytest.raises(InputError, match="has no item 99 here: items go from 0 to 5"):
        samples_of(behind, items=[99])


def test_a_sample_has_prompt_log_probs_and_numbers(results: Path) -> None:
    behind = look_up(results, WORDS["log-probs"])
    (sample,) = samples_of(behind, items=[1])
    assert sample.prompt.endswith("Assistant:")
    assert sample.answer is not None
    assert len(sample.continuations) == len(sample.answer.logps) == 2
    assert sample.numbers["sum_logp_chosen"] == sample.answer.logps[0]
    text = as_text(behind, [sample], again(behind), full=True)
    for part in (*sample.continuations, sample.prompt):
        for line in filter(str.strip, part.splitlines()):
            assert line in text
    assert f"{sample.answer.logps[1]:.3f} nats, {sample.answer.n_tokens[1]} tokens" in text


def test_a_judged_sample_has_both_answers_and_what_the_judge_said(results: Path) -> None:
    behind = look_up(results, WORDS["judged"])
    judging = behind.judging
    assert judging is not None
    store = Store(results, create=False)
    theirs = {a.item: a for a in store.answers(judging["opponent_answers"])}
    found = samples_of(behind, n=N)
    assert any(sample.replies for sample in found)
    for sample in found:
        assert sample.answer is not None
        assert sample.opponent == tuple(t.strip() for t in theirs[sample.item].texts)
        if sample.numbers["identical"]:
            assert not sample.replies
            continue
        (reply,) = sample.replies  # a reward model is asked once
        assert reply.preference is not None
        win = reply.preference if reply.ours_first else 1 - reply.preference
        assert win == sample.value
        assert set(reply.facts) >= {"score_first", "score_second"}
    text = as_text(behind, found, again(behind))
    assert "by demo_reward, a reward model" in text
    assert "score_first" in text


def test_nothing_is_written(own: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*")}
    behind = look_up(own, WORDS["judged"])
    as_text(behind, samples_of(behind), again(behind))
    assert {path: path.stat().st_mtime_ns for path in own.rglob("*")} == before


# --- as shown

EVIL = "evil\x1b]0;owned\x07\u202etxt\r"


def test_no_sign_that_acts_is_shown(own: Path) -> None:
    behind = look_up(own, WORDS["texts"])
    folder = own / "cells" / behind.cell
    manifest = json.loads((folder / "manifest.json").read_text())
    for facts, name in (
        (manifest["checkpoint"], "path"),
        (manifest["checkpoint"], "architecture"),
        (manifest["host"], "machine"),
        (manifest["data"], "title"),
    ):
        facts[name] = EVIL
    manifest["warnings"] = [EVIL]
    manifest["command"] = ["prefbench", "run", EVIL, "--mirror", EVIL]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    table = pq.read_table(folder / "answers.parquet")
    rows = [{**row, "texts": [EVIL]} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "answers.parquet")
    behind = look_up(own, WORDS["texts"])
    found = samples_of(behind)
    text = as_text(behind, found, again(behind), full=True)
    assert "evil" in text
    assert all(line.isprintable() for line in text.split("\n"))
    assert as_json(behind, found, again(behind)).isascii()


def test_json_has_no_number_that_json_does_not_know(results: Path) -> None:
    behind = look_up(results, ["dpo", "demo_dialogues", "perplexity"])
    (sample,) = samples_of(behind, items=[0])
    endless = dataclasses.replace(sample, value=float("inf"), numbers={"x": float("nan")})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    whole = json.loads(as_json(behind, [endless], again(behind)), parse_constant=refuse)
    assert whole["samples"][0]["value"] is None
    assert whole["value"] == behind.entry.score.estimate.value


def test_long_texts_are_shortened_unless_asked_for(results: Path) -> None:
    behind = look_up(results, WORDS["texts"])
    (sample,) = samples_of(behind, items=[0])
    assert len(sample.prompt) > 900
    short, whole = (as_text(behind, [sample], again(behind), full=full) for full in (False, True))
    assert "characters …]" in short
    assert "characters …]" not in whole
    asked = sample.prompt.splitlines()[-2]
    assert asked in short  # the end of a prompt is what was asked
    assert sample.prompt.splitlines()[0] in whole


def test_the_verb(results: Path) -> None:
    run = CliRunner().invoke
    shown = run(app, [*WORDS["texts"], "-r", str(results), "--samples", "1"])
    assert shown.exit_code == 0
    for part in ("DPO × demo_arithmetic", "again       prefbench run", "seed", "torch", "item 0"):
        assert part in shown.stdout
    cell = look_up(results, WORDS["judged"]).cell
    whole = json.loads(run(app, [cell[:10], "-r", str(results), "--item", "2", "--json"]).stdout)
    assert whole["cell"] == cell
    assert [sample["item"] for sample in whole["samples"]] == [2]
    assert whole["manifest"]["judging"]["judge"]["name"] == "demo_reward"
    assert whole["command"][:2] == ["prefbench", "run"]
    with pytest.raises(InputError, match="not -1"):
        run(app, [cell, "-r", str(results), "--samples", "-1"], catch_exceptions=False)
