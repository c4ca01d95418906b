"""Records of Every Eval Ever, held against its schema's rules and, where it is installed, its own
validator.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from prefbench.files import write_json
from prefbench.interchange.every_eval_ever import bounds_of
from prefbench.metrics import COMPARISON_METRICS, PAIR_METRICS
from prefbench.report.collect import collect
from prefbench.report.exports import export
from prefbench.store import Store

REQUIRED = {
    "schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info",
    "eval_library", "evaluation_results",
}  # fmt: skip
KNOWN = REQUIRED | {"evaluation_timestamp", "detailed_evaluation_results"}
DEPLOYMENTS = {"self_deployed", "externally_managed", "unknown"}
AVAILABILITIES = {"open_weights", "closed_weights", "unknown"}


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def exported(
    measured_once: Path, tmp_path_factory: pytest.TempPathFactory, told: list[str]
) -> list[Path]:
    return export(
        "every-eval-ever",
        measured_once,
        tmp_path_factory.mktemp("out"),
        baseline="sft",
        notice=told.append,
    )


def check(record: dict[str, Any]) -> None:
    """The schema's rules, in our own words."""
    assert REQUIRED <= set(record) <= KNOWN
    for key in ("schema_version", "evaluation_id", "retrieved_timestamp", "evaluation_timestamp"):
        assert isinstance(record[key], str)
    float(record["evaluation_timestamp"])
    source = record["source_metadata"]
    assert source["source_type"] in ("documentation", "evaluation_run")
    assert source["evaluator_relationship"] in (
        "first_party", "third_party", "collaborative", "other",
    )  # fmt: skip
    assert isinstance(source["source_organization_name"], str)
    assert {"name", "version"} <= set(record["eval_library"])
    check_model(record["model_info"])
    assert record["evaluation_results"]
    for result in record["evaluation_results"]:
        check_result(result)
    check_details(record)


def check_model(model: dict[str, Any]) -> None:
    assert isinstance(model["name"], str)
    assert isinstance(model["id"], str)
    assert model["additional_details"]["deployment_type"] in DEPLOYMENTS
    assert model["additional_details"]["model_availability"] in AVAILABILITIES


def check_result(result: dict[str, Any]) -> None:
    assert isinstance(result["evaluation_name"], str)
    data = result["source_data"]
    assert isinstance(data["dataset_name"], str)
    assert data["source_type"] in ("hf_dataset", "other")
    assert ("hf_repo" in data) == (data["source_type"] == "hf_dataset")
    metric = result["metric_config"]
    assert isinstance(metric["lower_is_better"], bool)
    score = result["score_details"]["score"]
    assert math.isfinite(score)
    assert ("score_type" in metric) == ("min_score" in metric) == ("max_score" in metric)
    if "score_type" in metric:
        assert metric["score_type"] == "continuous"
        assert float(metric["min_score"]) <= score <= float(metric["max_score"])
    if "llm_scoring" in metric:
        assert isinstance(metric["llm_scoring"]["input_prompt"], str)
        for judge in metric["llm_scoring"]["judges"]:
            check_model(judge["model_info"])
    uncertainty = result["score_details"]["uncertainty"]
    assert isinstance(uncertainty["num_samples"], int)
    if "confidence_interval" in uncertainty:
        interval = uncertainty["confidence_interval"]
        assert interval["lower"] <= score <= interval["upper"]
        assert 0 < interval["confidence_level"] < 1
    if "standard_error" in uncertainty:
        assert uncertainty["standard_error"]["value"] >= 0


def check_details(value: Any) -> None:
    """Further details are texts, wherever they stand."""
    if isinstance(value, dict):
        for key in ("additional_details", "details"):
            assert all(isinstance(one, str) for one in value.get(key, {}).values())
        for one in value.values():
            check_details(one)
    elif isinstance(value, list):
        for one in value:
            check_details(one)


def test_each_record_keeps_the_rules(exported: list[Path]) -> None:
    assert len(exported) == 2 * 5
    for path in exported:
        check(json.loads(path.read_text()))


def test_files_lie_where_the_datastore_wants_them(exported: list[Path]) -> None:
    for path in exported:
        *_, data, benchmark, developer, model, name = path.parts
        assert (data, developer) == ("data", "unknown")
        assert model in ("sft", "dpo")
        record = json.loads(path.read_text())
        assert record["evaluation_results"][0]["source_data"]["dataset_name"] == benchmark
        code = uuid.UUID(path.stem)
        assert code.version == 4
        assert name == f"{code}.json"


def test_values_and_their_uncertainty_are_the_boards(
    measured_once: Path, exported: list[Path]
) -> None:
    board = collect(measured_once, baseline="sft")
    found = {}
    for path in exported:
        record = json.loads(path.read_text())
        for result in record["evaluation_results"]:
            key = record["model_info"]["name"], result["evaluation_result_id"].partition(".")[2]
            found[(*key, path.parts[-4])] = result
    compared = 0
    for row in board.rows:
        for column in board.columns:
            entry = board.entry(row, column)
            assert entry is not None
            result = found.get((row.name, column.metric.name, column.group.task))
            assert (result is None) == (column.metric.higher_is_better is None)
            if result is None:
                continue
            estimate, score = entry.score.estimate, result["score_details"]
            assert score["score"] == estimate.value
            assert score["uncertainty"]["num_samples"] == estimate.n
            if "standard_error" in score["uncertainty"]:
                assert score["uncertainty"]["standard_error"]["value"] == estimate.se
            interval = score["uncertainty"].get("confidence_interval")
            assert (interval is None) == math.isnan(estimate.low)
            if interval:
                assert (interval["lower"], interval["upper"]) == (estimate.low, estimate.high)
            if entry.difference is not None:
                gap = float(score["details"]["difference_to_the_baseline"])
                assert gap == entry.difference.value
            compared += 1
    assert compared == len(found)


def test_what_has_no_place_is_said(exported: list[Path], told: list[str]) -> None:
    assert any("tie_rate.v1" in sentence for sentence in told)
    assert any("data/*/unknown" in sentence for sentence in told)


def test_the_same_results_give_the_same_files(measured_once: Path, tmp_path: Path) -> None:
    first = {path: path.read_bytes() for path in export("every-eval-ever", measured_once, tmp_path)}
    assert first == {
        path: path.read_bytes() for path in export("every-eval-ever", measured_once, tmp_path)
    }


def test_an_llm_judge_is_told_with_its_prompt(measured: Path, tmp_path: Path) -> None:
    recipe = {
        "kind": "openai",
        "model": "org/judge",
        "prompt": "{{ prompt }}?",
        "system": "Judge.",
        "rule": "majority",
        "sampling": {"temperature": 0.5},
    }
    for path in (measured / "cells").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        if "judging" in manifest:
            judge = manifest["judging"]["judge"]
            manifest["judging"]["judge"] = {**judge, "recipe": {**judge["recipe"], **recipe}}
            write_json(path, manifest)
    for path in export("every-eval-ever", measured, tmp_path, tasks=["demo_winrate"]):
        record = json.loads(path.read_text())
        check(record)
        scoring = record["evaluation_results"][0]["metric_config"]["llm_scoring"]
        assert scoring["input_prompt"] == "Judge.\n\n{{ prompt }}?"
        assert scoring["judges"][0]["model_info"]["name"] == "org/judge"
        assert scoring["judges"][0]["temperature"] == 0.5


def test_a_set_of_the_hub_is_named(measured: Path, tmp_path: Path) -> None:
    for path in (measured / "cells").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        manifest["data"]["revision"] = "abc"
        write_json(path, manifest)
    for path in export("every-eval-ever", measured, tmp_path, tasks=["demo_facts"]):
        (record,) = [json.loads(path.read_text())]
        check(record)
        data = record["evaluation_results"][0]["source_data"]
        assert (data["hf_repo"], data["hf_split"]) == ("prefbench/demo-facts", "test")
        assert data["additional_details"]["revision"] == "abc"


def test_every_known_metric_lies_in_its_bounds() -> None:
    for metric in (*PAIR_METRICS.values(), *COMPARISON_METRICS.values()):
        bounds = bounds_of(metric)
        assert bounds is not None
        assert float(bounds[0]) < float(bounds[1])


def test_hostile_names_stay_in_the_folder(measured: Path, tmp_path: Path) -> None:
    (plan,) = Store(measured, create=False).plans()
    renamed = json.dumps(plan).replace('"dpo"', '"../../\\u001b[31mx"').replace('"sft"', '"data"')
    write_json(measured / "plans" / f"{plan['id']}.json", json.loads(renamed))
    for path in export("every-eval-ever", measured, tmp_path / "out", tasks=["demo_facts"]):
        inside = path.resolve().relative_to((tmp_path / "out").resolve())
        assert len(inside.parts) == 5
        for part in inside.parts[1:4]:
            assert part != "data"
            assert re.fullmatch(r"[\w-][\w .,=@+()-]*", part)


def test_its_own_validator_passes(exported: list[Path]) -> None:
    core = pytest.importorskip(
        "every_eval_ever.validator.validation_core",
        reason="pip install every_eval_ever, which needs Python 3.12, to run its validator",
    )
    for path in exported:
        place = "/".join(path.parts[-5:])
        report = core.validate_file(path, repo_path=place, run_semantic_checks=True)
        assert report.valid, report.errors
        assert not report.warnings
