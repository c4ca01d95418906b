"""A leaderboard as records of Every Eval Ever, one file per checkpoint and benchmark.

Written to version 0.3.0 of its schema (github.com/evaleval/every_eval_ever, MIT) and the checks of
its validator: files lie at data/<benchmark>/<developer>/<model>/<version-4 UUID>.json, every score
inside its bounds, further details as texts.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefbench.interchange.exported import (
    Notice,
    Result,
    Value,
    file_name,
    file_names,
    hub_dataset,
    json_text,
    write_text,
)
from prefbench.metrics import Metric

SCHEMA = "0.3.0"
UNKNOWN = "unknown"
"""The developer of a checkpoint on a disk is nobody that a file could tell."""

IDS = {"acc": "accuracy", "exact_match": "exact-match"}
"""Canonical ids of metrics that other harnesses have too; all others are ours or lm-eval's."""

RULES = {"majority": "majority_vote", "mean": "average"}
UNITS = {"percent": "proportion", "number": None}


def write_every_eval_ever(
    results: Sequence[Result], confidence: float, folder: Path, notice: Notice
) -> list[Path]:
    """Writes the records below `folder`; the same results give the same files.

    Args:
        results: what there is.
        confidence: of the intervals.
        folder: where `data/` goes.
        notice: told of metrics that the schema has no place for.

    Raises:
        InputError: a file cannot be written.
    """
    names = file_names(one.row.name for one in results)
    names = {text: f"{name}-" if name == "data" else name for text, name in names.items()}
    paths: list[Path] = []
    undirected: dict[str, None] = {}
    for one in results:
        values = [value for value in one.values if value.metric.higher_is_better is not None]
        undirected.update({v.metric.name: None for v in one.values if v not in values})
        if not values:
            continue
        benchmark = f"{name}-" if (name := file_name(one.group.task)) == "data" else name
        record = _record(one, values, confidence)
        identity = f"{one.cell} {one.group.name} {one.row.name}"
        code = uuid.UUID(bytes=hashlib.sha256(identity.encode()).digest()[:16], version=4)
        place = folder / "data" / benchmark / UNKNOWN / names[one.row.name]
        paths.append(write_text(place / f"{code}.json", [json_text(record, indent=2)]))
    if undirected:
        told = ", ".join(undirected)
        notice(f"left out: {told}: Every Eval Ever asks which side is better, and neither is")
    if paths:
        notice(
            "who developed the checkpoints and who evaluated them is not known here: before you "
            f"submit the files, rename data/*/{UNKNOWN} and fill in source_metadata"
        )
    return paths


def _record(one: Result, values: Sequence[Value], confidence: float) -> dict[str, Any]:
    """The content of one file."""
    manifest, when = one.manifest, str(int(one.finished.timestamp()))
    imported = manifest.get("imported", {})
    # Not how lm-eval was called, which tells of a machine.
    source = {key: imported[key] for key in ("source", "sha256", "lm_eval") if key in imported}
    versions = manifest.get("versions", {})
    library = {"name": "prefbench", "version": versions.get("prefbench", UNKNOWN)}
    if imported:
        library = {"name": "lm_eval", "version": imported["lm_eval"]}
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{one.group.name}/{one.row.name}/{when}",
        "evaluation_timestamp": when,
        "retrieved_timestamp": when,
        "source_metadata": {
            "source_name": "prefbench",
            "source_type": "evaluation_run",
            "source_organization_name": UNKNOWN,
            "evaluator_relationship": "other",
            "additional_details": texts({"cell": one.cell, "imported": source}),
        },
        "eval_library": {**library, "additional_details": texts(versions)},
        "model_info": _model(one),
        "evaluation_results": [_result(one, value, confidence) for value in values],
    }


def _model(one: Result) -> dict[str, Any]:
    """Who was measured."""
    row, engine = one.row, one.manifest["engine"]
    kind = str(engine["kind"])
    versions = one.manifest.get("versions", {})
    version = versions.get("vllm" if kind == "vllm" else "transformers")
    return {
        "name": row.name,
        "id": row.name,
        "inference_engine": {
            "name": "transformers" if kind == "hf" else kind,
            **({"version": version} if version and kind in ("hf", "vllm") else {}),
        },
        "additional_details": {
            "deployment_type": "self_deployed" if kind in ("hf", "vllm") else UNKNOWN,
            "model_availability": UNKNOWN,
            **texts(
                {
                    "fingerprint": row.fingerprint,
                    "method": row.method,
                    "step": row.step,
                    "seed": row.seed,
                    "architecture": row.architecture,
                    "dtype": one.manifest["identity"].get("dtype"),
                    "n_parameters": row.n_parameters,
                }
            ),
        },
    }


def _result(one: Result, value: Value, confidence: float) -> dict[str, Any]:
    """One metric."""
    pipeline = value.metric.name.partition(",")[2]
    judged = f" against {one.group.opponent} by {one.group.judge}" if one.group.opponent else ""
    result = {
        "evaluation_result_id": f"{one.cell}.{value.metric.name}",
        "evaluation_name": f"{one.group.task}{judged}" + (f"/{pipeline}" if pipeline else ""),
        "source_data": _source(one),
        "evaluation_timestamp": str(int(one.finished.timestamp())),
        "metric_config": _metric(one, value.metric),
        "score_details": _score(one, value, confidence),
    }
    settings = _generation(one)
    return result | ({"generation_config": settings} if settings else {})


def _source(one: Result) -> dict[str, Any]:
    """The data set: on the hub, or of no place that others could look at."""
    details = texts({"title": one.manifest["data"]["title"], "limit": _limit(one)})
    found = hub_dataset(one)
    name = file_name(one.group.task)
    if not found:
        return {"dataset_name": name, "source_type": "other", "additional_details": details}
    return {
        "dataset_name": name,
        "source_type": "hf_dataset",
        "hf_repo": found.dataset,
        **({"hf_split": one.split} if one.split else {}),
        "samples_number": one.manifest["n_items"],
        "additional_details": details
        | texts({"configuration": found.configuration, "revision": found.revision}),
    }


def _metric(one: Result, metric: Metric) -> dict[str, Any]:
    name = metric.name.partition(",")[0]
    unit = UNITS.get(metric.unit, metric.unit)
    ours = "prefbench" if ".v" in name or name in ("cut", "unfinished") else "lm_eval"
    config = {
        "evaluation_description": f"{metric.name} of {one.group.name}",
        "metric_id": IDS.get(name, f"{ours}.{name}"),
        "metric_name": metric.name,
        "metric_kind": IDS.get(name, name.partition(".v")[0]),
        **({"metric_unit": unit} if unit else {}),
        "lower_is_better": metric.higher_is_better is False,
    }
    bounds = bounds_of(metric)
    if bounds:
        config |= {"score_type": "continuous", "min_score": bounds[0], "max_score": bounds[1]}
    else:
        config["additional_details"] = {"bounds_status": UNKNOWN}
    scoring = _judges(one) if one.group.opponent else None
    return config | ({"llm_scoring": scoring} if scoring else {})


def bounds_of(metric: Metric) -> tuple[float | str, float | str] | None:
    """Between which numbers a metric lies, infinity as the schema writes it; None where unknown."""
    name = metric.name.partition(",")[0]
    if metric.proportion:
        return 0.0, 1.0
    if name.startswith("agility"):
        return "-Infinity", "Infinity"
    if metric.unit == "perplexity":
        return 1.0, "Infinity"
    if name.startswith("logp_"):
        return "-Infinity", 0.0
    if metric.unit == "bits" or name.startswith("mean_chars"):
        return 0.0, "Infinity"
    return None


def _score(one: Result, value: Value, confidence: float) -> dict[str, Any]:
    """The value, and how sure it is."""
    estimate, gap = value.estimate, value.entry.difference
    uncertainty: dict[str, Any] = {"num_samples": estimate.n}
    if math.isfinite(estimate.se):
        method = "bootstrap" if estimate.method != "imported" else "as imported"
        uncertainty["standard_error"] = {"value": estimate.se, "method": method}
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        uncertainty["confidence_interval"] = {
            "lower": estimate.low,
            "upper": estimate.high,
            "confidence_level": confidence,
            "method": estimate.method,
        }
    details: dict[str, Any] = {"n_missing": estimate.n_missing, "conditions": one.group.conditions}
    if gap is not None and math.isfinite(gap.value):
        details |= {
            "difference_to_the_baseline": gap.value,
            "difference_low": gap.low,
            "difference_high": gap.high,
        }
    return {"score": estimate.value, "uncertainty": uncertainty, "details": texts(details)}


def _judges(one: Result) -> dict[str, Any] | None:
    """Who judged, by which prompt; None where the judges are not language models."""
    judge = one.manifest.get("judging", {}).get("judge") or {}
    members = [each["recipe"] for each in judge.get("members") or () if "recipe" in each]
    recipe = judge.get("recipe") or {}
    asked = members if recipe.get("kind") == "panel" else [recipe]
    prompts = {each.get("prompt") for each in asked}
    if len(prompts) != 1 or not all(isinstance(prompt, str) for prompt in prompts):
        return None
    scoring: dict[str, Any] = {
        "judges": [
            {
                "model_info": {
                    "name": str(each["model"]),
                    "id": str(each["model"]),
                    "additional_details": {
                        "deployment_type": UNKNOWN,
                        "model_availability": UNKNOWN,
                    },
                },
                "temperature": each["sampling"]["temperature"],
            }
            for each in asked
        ],
        "input_prompt": "\n\n".join(
            part for part in (asked[0].get("system"), asked[0]["prompt"]) if part
        ),
    }
    rule = RULES.get(str(recipe.get("rule"))) if len(asked) > 1 else None
    return scoring | ({"aggregation_method": rule} if rule else {})


def _generation(one: Result) -> dict[str, Any] | None:
    """How answers were drawn, and with how many examples."""
    sampling = one.manifest.get("sampling") or {}
    arguments = {
        "temperature": sampling.get("temperature"),
        "top_p": sampling.get("top_p"),
        "top_k": sampling.get("top_k") or None,
        "max_tokens": sampling.get("max_gen_toks"),
    }
    details = texts(
        {
            "num_fewshot": one.manifest["task"].get("n_shots"),
            "until": sampling.get("until"),
            "seed": sampling.get("seed"),
            "chat_template": one.manifest["identity"].get("chat"),
        }
    )
    return {
        "generation_args": {key: value for key, value in arguments.items() if value is not None},
        "additional_details": details,
    }


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Further details as the schema takes them: texts only; what is not known is left out."""
    return {
        key: value if isinstance(value, str) else json_text(value).rstrip("\n")
        for key, value in values.items()
        if value not in (None, "", [], {})
        if not isinstance(value, float) or math.isfinite(value)
    }


def _limit(one: Result) -> int | None:
    limit: int | None = one.manifest["identity"].get("limit")
    return limit
