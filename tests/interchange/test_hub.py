"""Results for model pages of the hub, read back with huggingface_hub's own readers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, eval_result_entries_to_yaml, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results

from prefbench.files import write_json
from prefbench.report.collect import collect
from prefbench.report.exports import export
from prefbench.store import Store

REVISION = "e53f048856ff4f594e959d75785d2c2d37b678ee"


@pytest.fixture
def on_hub(measured: Path) -> Path:
    """Results as if the sums were GSM8K, and all items had been measured."""
    for path in (measured / "cells").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        if manifest["task"]["name"] in ("demo_sums", "demo_facts"):
            manifest["identity"]["limit"] = None
            manifest["data"]["revision"] = REVISION
        if manifest["task"]["name"] == "demo_sums":
            manifest["task"]["config"]["dataset_path"] = "openai/gsm8k"
            manifest["task"]["config"]["dataset_name"] = "main"
        write_json(path, manifest)
    return measured


def test_made_up_sets_are_left_out_and_said(measured_once: Path, tmp_path: Path) -> None:
    told: list[str] = []
    assert export("hf-eval-results", measured_once, tmp_path / "out", notice=told.append) == []
    assert len(told) == 5
    assert all("left out of .eval_results: the hub has no data set prefbench/" in t for t in told)
    assert not (tmp_path / "out").exists()


def test_a_benchmark_of_the_hub_is_read_back(on_hub: Path, tmp_path: Path) -> None:
    told: list[str] = []
    paths = export("hf-eval-results", on_hub, tmp_path, notice=told.append)
    names = {path.relative_to(tmp_path).as_posix() for path in paths}
    assert names == {
        f"{row}/.eval_results/{task}.yaml"
        for row in ("sft", "dpo")
        for task in ("demo_sums", "demo_facts")
    }
    board = collect(on_hub)
    for row in board.rows:
        (column,) = (
            c for c in board.columns if c.metric.name == "exact_match,strict-match"
        )  # fmt: skip
        entry = board.entry(row, column)
        assert entry is not None
        read = yaml.safe_load((tmp_path / row.name / ".eval_results/demo_sums.yaml").read_text())
        (result,) = parse_eval_result_entries(read)
        assert (result.dataset_id, result.task_id) == ("openai/gsm8k", "gsm8k")
        assert result.dataset_revision == REVISION
        assert result.value == pytest.approx(100 * entry.score.estimate.value)
        assert isinstance(result.date, str)
        assert result.notes is not None
        assert "exact_match,strict-match, 5-shot, 95% interval" in result.notes
        assert eval_result_entries_to_yaml([result]) == read
    assert any("task_id is the configuration's name, default" in sentence for sentence in told)
    assert any("demo_dialogues" in sentence for sentence in told)


def test_a_part_of_a_benchmark_is_none(on_hub: Path, tmp_path: Path) -> None:
    for path in (on_hub / "cells").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        manifest["identity"]["limit"] = 8
        write_json(path, manifest)
    told: list[str] = []
    assert export("hf-eval-results", on_hub, tmp_path, notice=told.append) == []
    assert sum("not all items were measured" in sentence for sentence in told) == 2


def cards(paths: list[Path]) -> dict[str, Any]:
    return {path.parent.name: ModelCard.load(path) for path in paths}


def test_a_model_card_holds_what_the_table_shows(measured_once: Path, tmp_path: Path) -> None:
    board = collect(measured_once)
    loaded = cards(export("model-index", measured_once, tmp_path))
    assert set(loaded) == {"sft", "dpo"}
    for row in board.rows:
        card = loaded[row.name]
        assert card.data.model_name == row.name
        found = {result.metric_name: result for result in card.data.eval_results}
        compared = 0
        for column in board.columns:
            entry = board.entry(row, column)
            name = f"{column.group.task}: {column.metric.name}"
            if column.group.opponent:
                name += f", against {column.group.opponent} by {column.group.judge}"
            if not column.shown:
                assert name not in found
                continue
            assert entry is not None
            factor = 100 if column.metric.unit == "percent" else 1
            result, estimate = found[name], entry.score.estimate
            assert result.metric_value == pytest.approx(factor * estimate.value, abs=1e-6)
            assert result.metric_args["n"] == estimate.n
            if not math.isnan(estimate.low):
                low, high = result.metric_args["low"], result.metric_args["high"]
                assert low == pytest.approx(factor * estimate.low, abs=1e-6)
                assert high == pytest.approx(factor * estimate.high, abs=1e-6)
            compared += 1
        assert compared == len(found)


def test_made_up_sets_stay_in_the_model_index_by_title(measured_once: Path, tmp_path: Path) -> None:
    (path, _) = export("model-index", measured_once, tmp_path, tasks=["demo_facts"])
    head = yaml.safe_load(path.read_text().split("---\n")[1])
    name, results = model_index_to_eval_results(head["model-index"])
    assert name == "sft"
    (result,) = results
    assert result.dataset_name == "prefbench/demo-facts"
    assert result.dataset_revision is None
    assert result.dataset_split == "test"


def test_hostile_names_stay_texts_and_in_the_folder(measured: Path, tmp_path: Path) -> None:
    evil = "../../x\x1b[31m\n---\nlicense: mit\n- &a !!python/object:os.system {{0}}"
    (plan,) = Store(measured, create=False).plans()
    renamed = json.dumps(plan).replace('"dpo"', json.dumps(evil))
    write_json(measured / "plans" / f"{plan['id']}.json", json.loads(renamed))
    paths = export("model-index", measured, tmp_path / "out")
    names = set()
    for path in paths:
        assert path.resolve().is_relative_to((tmp_path / "out").resolve())
        assert "\x1b" not in path.read_text()
        card = ModelCard.load(path)
        names.add(card.data.model_name)
        assert card.data.license is None
    assert names == {"sft", evil}
