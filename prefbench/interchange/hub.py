"""Results for a model's page on the Hugging Face hub: `.eval_results/*.yaml` and `model-index`.

The first is the hub's newer format (hub-docs, eval_results.yaml): one value per file for a
benchmark, which a data set of the hub keeps the leaderboard of. The second stands in the head of a
model's README.md and holds any results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from prefbench.interchange.exported import (
    Notice,
    Result,
    Value,
    by_checkpoint,
    file_name,
    file_names,
    hub_dataset,
    write_text,
)
from prefbench.metrics import Metric

BENCHMARKS = {"openai/gsm8k": "gsm8k"}
"""Data sets of our tasks that are known to be benchmarks of the hub, and their task's id there."""

METRIC_TYPES = {"acc": "accuracy"}
"""The hub's names of metrics, where lm-eval has another."""


def write_eval_results(
    results: Sequence[Result], confidence: float, folder: Path, notice: Notice
) -> list[Path]:
    """Writes `<checkpoint>/.eval_results/<task>.yaml`, the first metric that each task shows.

    Args:
        results: what there is.
        confidence: of the intervals, which the notes tell.
        folder: where the checkpoints' folders go.
        notice: told of what the hub would refuse, and of ids that may have to be set.

    Raises:
        InputError: a file cannot be written.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    names = file_names(by_checkpoint(results))
    paths: list[Path] = []
    told: dict[str, None] = {}
    for one in results:
        found, value = hub_dataset(one), headline(one)
        if reason := _refused(one, value):
            told[f"{one.group.name}: left out of .eval_results: {reason}"] = None
            continue
        assert found is not None
        assert value is not None
        task_id = BENCHMARKS.get(found.dataset)
        if task_id is None:
            task_id = found.configuration or "default"
            told[
                f"{one.group.task}: whether {found.dataset} has a leaderboard on the hub is not "
                f"known here; task_id is the configuration's name, {task_id}"
            ] = None
        entry = EvalResultEntry(
            dataset_id=found.dataset,
            task_id=task_id,
            value=shown(value.estimate.value, value.metric),
            dataset_revision=found.revision,
            date=one.finished.date().isoformat(),
            notes=_notes(one, value, confidence),
        )
        text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, width=10_000)
        place = folder / names[one.row.name] / ".eval_results"
        paths.append(write_text(place / f"{file_name(one.group.task)}.yaml", [text]))
    for sentence in told:
        notice(sentence)
    return paths


def write_model_index(results: Sequence[Result], confidence: float, folder: Path) -> list[Path]:
    """Writes `<checkpoint>/README.md` whose head holds the results that each task shows.

    Data sets that the hub does not have stand there by their title.

    Raises:
        InputError: a file cannot be written.
    """
    from huggingface_hub.repocard_data import eval_results_to_model_index

    several = by_checkpoint(results)
    names = file_names(several)
    paths = []
    for checkpoint, members in several.items():
        parts: list[dict[str, Any]] = []
        for one in members:  # one by one: those that share a data set would lose their task's name
            (index,) = eval_results_to_model_index(checkpoint, list(_entries(one, confidence)))
            parts += index["results"]
        head = yaml.safe_dump(
            {"model-index": [{"name": checkpoint, "results": parts}]}, sort_keys=False
        )
        place = folder / names[checkpoint] / "README.md"
        paths.append(write_text(place, ["---\n", head, "---\n", _BODY.format(100 * confidence)]))
    return paths


_BODY = """
Evaluated with prefbench. Each value in the head has its {:.6g}% bootstrap interval over items, its
standard error and the number of items in `args`; shares are percentages.
"""


def headline(one: Result) -> Value | None:
    """The first metric that the task shows."""
    return next((value for value in one.values if value.column.shown), None)


def shown(value: float, metric: Metric) -> float:
    """A value as the hub shows it: shares as percentages."""
    return round(100 * value if metric.unit == "percent" else value, 6)


def _refused(one: Result, value: Value | None) -> str | None:
    """Why the hub has no place for a result among its benchmarks."""
    recipe = (one.config.get("metadata") or {}).get("prefbench") or {}
    if hub_dataset(one) is None:
        return f"the hub has no data set {one.config.get('dataset_path')}"
    other = recipe.get("pairs") or recipe.get("measure", "answers") != "answers"
    if other or one.group.opponent or value is None or value.metric.unit != "percent":
        return "what it measures is no benchmark of the data set's"
    if one.manifest["identity"].get("limit") is not None:
        return "not all items were measured"
    return None


def _notes(one: Result, value: Value, confidence: float) -> str:
    estimate = value.estimate
    low, high = shown(estimate.low, value.metric), shown(estimate.high, value.metric)
    told = [value.metric.name, f"{one.manifest['task'].get('n_shots') or 0}-shot"]
    if math.isfinite(low):
        told.append(f"{100 * confidence:.6g}% interval {low:.2f} to {high:.2f}")
    told.append(f"{estimate.n} items")
    if one.manifest["identity"].get("chat"):
        told.append("chat template")
    if "imported" in one.manifest:
        told.append(f"lm-eval {one.manifest['imported']['lm_eval']}")
    else:
        told.append(f"prefbench {one.manifest.get('versions', {}).get('prefbench', '')}".rstrip())
    return ", ".join(told)


def _entries(one: Result, confidence: float) -> Iterator[Any]:
    """A result's shown metrics as huggingface_hub holds them."""
    from huggingface_hub import EvalResult

    found = hub_dataset(one)
    title = one.manifest["data"]["title"] or one.group.task
    judged = f", against {one.group.opponent} by {one.group.judge}" if one.group.opponent else ""
    for value in one.values:
        if not value.column.shown and value is not headline(one):
            continue
        estimate, metric = value.estimate, value.metric
        numbers = {
            "low": shown(estimate.low, metric),
            "high": shown(estimate.high, metric),
            "standard_error": shown(estimate.se, metric),
        }
        yield EvalResult(
            task_type="text-generation",
            task_name=one.group.name,
            dataset_type=found.dataset if found else str(one.config.get("dataset_path") or title),
            dataset_name=str(title),
            dataset_config=found.configuration if found else None,
            dataset_split=one.split,
            dataset_revision=found.revision if found else None,
            metric_type=METRIC_TYPES.get(metric.name, metric.name.partition(",")[0]),
            metric_name=f"{one.group.task}: {metric.name}{judged}",
            metric_value=shown(estimate.value, metric),
            metric_args={
                **{name: number for name, number in numbers.items() if math.isfinite(number)},
                "confidence": confidence,
                "n": estimate.n,
                "num_fewshot": one.manifest["task"].get("n_shots") or 0,
                **({"unit": "percent"} if metric.unit == "percent" else {}),
            },
        )
