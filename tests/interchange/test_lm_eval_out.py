"""Exports as lm-eval's files, held against lm-eval's readers and against what it writes itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from lm_eval.utils import (
    get_file_task_name,
    get_latest_filename,
    get_results_filenames,
    get_sample_results_filenames,
    make_table,
    sanitize_model_name,
)

from prefbench.errors import InputError
from prefbench.files import write_json, write_table
from prefbench.interchange.exported import file_name, file_names
from prefbench.report.collect import collect
from prefbench.report.exports import export
from prefbench.store import Store

HASHES = ("doc_hash", "prompt_hash", "target_hash")


@pytest.fixture(scope="module")
def exported(measured_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    export("lm-eval", measured_once, folder)
    return folder


def read(folder: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Results and samples by task, found as lm-eval finds them."""
    files = [path.as_posix() for path in folder.iterdir()]
    latest = get_latest_filename(get_results_filenames(files))
    samples = {
        get_file_task_name(Path(name).name): rows_of(Path(name))
        for name in get_sample_results_filenames(files)
    }
    return json.loads(Path(latest).read_text()), samples


def test_it_is_what_lm_eval_writes_of_the_same(exported: Path, theirs_once: Path) -> None:
    ours, our_samples = read(exported / "sft")
    official, samples = read(theirs_once)
    assert set(samples) == {"demo_facts", "demo_sums", "demo_text"}
    for task, rows in samples.items():
        assert ours["task_hashes"][task] == official["task_hashes"][task]
        compared = set()
        for name, value in official["results"][task].items():
            metric = name.partition(",")[0]
            if "," in name and not metric.endswith("_stderr"):
                assert ours["results"][task][name] == pytest.approx(value, rel=1e-5)
                compared.add(metric)
        assert compared == {entry["metric"] for entry in official["configs"][task]["metric_list"]}
        for key in ("versions", "n-shot"):
            assert ours[key][task] == official[key][task]
        assert ours["n-samples"][task]["effective"] == official["n-samples"][task]["effective"]
        assert official["higher_is_better"][task].items() <= ours["higher_is_better"][task].items()
        for mine, row in zip(our_samples[task], rows, strict=True):
            assert set(row) <= set(mine)
            for key in ("doc_id", "doc", "target", "filter", *HASHES):
                assert mine[key] == row[key], key
            assert numbers(mine["resps"]) == numbers(row["resps"])
            assert numbers(mine["filtered_resps"]) == numbers(row["filtered_resps"])
            sent = [list(each.values()) for each in row["arguments"].values()]
            assert [list(each.values())[:1] for each in mine["arguments"].values()] == [
                each[:1] for each in sent
            ]
            for metric in row["metrics"]:
                assert mine[metric] == pytest.approx(row[metric], rel=1e-5)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers(value: Any) -> Any:
    """Texts that are numbers as approximate numbers."""
    if isinstance(value, list):
        return [numbers(each) for each in value]
    try:
        return pytest.approx(float(value), rel=1e-4, abs=1e-4)
    except ValueError:
        return value


def test_lm_evals_table_shows_the_boards_values(measured_once: Path, exported: Path) -> None:
    board = collect(measured_once)
    for row in board.rows:
        whole, _ = read(exported / row.name)
        table = make_table(whole)
        for column in board.columns:
            entry = board.entry(row, column)
            assert entry is not None
            metric, _, pipeline = column.metric.name.partition(",")
            key = next(k for k in whole["results"] if k.startswith(column.group.task))
            values = whole["results"][key]
            assert values[f"{metric},{pipeline or 'none'}"] == entry.score.estimate.value
            assert f"{entry.score.estimate.value:.4f}" in table
            se, told = entry.score.estimate.se, values[f"{metric}_stderr,{pipeline or 'none'}"]
            if math.isnan(se):
                assert told == "N/A"
            else:
                assert told == se
                assert f"{se:.4f}" in table


def test_log_probs_of_pairs_are_there(measured_once: Path, exported: Path) -> None:
    whole, samples = read(exported / "dpo")
    store = Store(measured_once, create=False)
    cell = next(
        cell["cell"]
        for cell in store.plans()[-1]["cells"]
        if (cell["checkpoint"], cell["task"]) == ("dpo", "demo_dialogues")
    )
    answers = store.answers(cell)
    for answer, sample in zip(answers, samples["demo_dialogues"], strict=True):
        assert [float(each[0][0]) for each in sample["resps"]] == list(answer.logps)
        assert sample["arguments"]["gen_args_0"]["arg_1"] in sample["doc"]["chosen"]
        assert sample["perplexity.v1"] == [answer.logps[0], answer.n_tokens[0]]
    assert "agility.v1,none" in whole["results"]["demo_dialogues"]


def test_every_metric_of_a_tasks_settings_is_in_its_samples(exported: Path) -> None:
    whole, samples = read(exported / "dpo")
    for task, rows in samples.items():
        listed = {entry["metric"] for entry in whole["configs"][task]["metric_list"]}
        assert listed
        for row in rows:
            assert listed <= set(row)


def test_a_metric_that_an_item_lacks_is_not_promised(measured: Path, tmp_path: Path) -> None:
    store = Store(measured, create=False)
    for cell in store.plans()[-1]["cells"]:
        if cell["task"] == "demo_dialogues":
            table = store.records(cell["cell"])
            values = [None, *table["preferred"].to_pylist()[1:]]
            place = table.column_names.index("preferred")
            changed = table.set_column(place, "preferred", pa.array(values, pa.float64()))
            write_table(measured / "cells" / cell["cell"] / "records.parquet", changed)
    export("lm-eval", measured, tmp_path / "out", tasks=["demo_dialogues"])
    whole, samples = read(tmp_path / "out" / "dpo")
    listed = {entry["metric"] for entry in whole["configs"]["demo_dialogues"]["metric_list"]}
    rows = samples["demo_dialogues"]
    assert "agility_acc.v1" not in listed
    assert "agility_acc.v1" not in rows[0]
    assert "agility_acc.v1" in rows[1]
    assert "agility_acc.v1,none" in whole["results"]["demo_dialogues"]
    assert all(listed <= set(row) for row in rows)


def test_a_judged_task_has_its_opponent_in_its_name(exported: Path) -> None:
    whole, samples = read(exported / "dpo")
    name = "demo_winrate_against_sft_by_demo_reward"
    assert 0 <= whole["results"][name]["win_rate.v1,none"] <= 1
    assert all(sample["resps"][0][0] == sample["filtered_resps"][0] for sample in samples[name])


def test_samples_load_as_a_data_set(exported: Path) -> None:
    files = sorted((exported / "sft").glob("samples_*.jsonl"))
    assert len(files) == 5
    for path in files:
        loaded = datasets.load_dataset(
            "json", data_files=str(path), split="train", cache_dir=str(exported / "cache")
        )
        assert len(loaded) == len(rows_of(path))


def test_the_same_results_give_the_same_files(measured_once: Path, tmp_path: Path) -> None:
    first = {path: path.read_bytes() for path in export("lm-eval", measured_once, tmp_path)}
    second = {path: path.read_bytes() for path in export("lm-eval", measured_once, tmp_path)}
    assert first == second
    assert {path.parent.parent for path in first} == {tmp_path}


@pytest.mark.parametrize(
    "name",
    ["../../x", "..", ".", "", "/etc/passwd", "a\x00b", "\x1b[31mred", "a\nb", "CON", "nul.txt",
     "x" * 5000, "ä" * 200, "\u202egnp", "-rf", "~", "a/../b", "C:\\x", "trailing. "],
)  # fmt: skip
def test_no_name_leads_elsewhere(name: str, tmp_path: Path) -> None:
    safe = file_name(name)
    path = tmp_path / safe
    path.mkdir()
    assert path.resolve().parent == tmp_path.resolve()
    assert safe.isprintable()
    assert safe[0] not in ".- "


def test_ordinary_names_are_lm_evals_own() -> None:
    for name in ("sft", "dpo/checkpoint-10", "org/model:v1", "run?x", 'a"b'):
        assert file_name(name) == sanitize_model_name(name)


def test_names_that_become_alike_stay_apart() -> None:
    names = file_names(["a/b", "a__b", "A__B", "a:b"])
    assert len({name.casefold() for name in names.values()}) == 4


def test_a_hostile_checkpoint_stays_in_the_folder(measured: Path, tmp_path: Path) -> None:
    store = Store(measured, create=False)
    (plan,) = store.plans()
    renamed = json.loads(json.dumps(plan).replace('"dpo"', '"../../x\\u001b[31m"'))
    write_json(measured / "plans" / f"{plan['id']}.json", renamed)
    for path in export("lm-eval", measured, tmp_path / "out"):
        assert path.resolve().is_relative_to((tmp_path / "out").resolve())
        assert "\x1b" not in path.name
        assert "\x1b" not in path.read_text()


def test_what_cannot_be_written_is_said(measured_once: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        export("lm-eval", measured_once, tmp_path / "out")
    with pytest.raises(InputError, match="none of nothing"):
        export("lm-eval", measured_once, tmp_path / "out", tasks=["nothing"])
