"""A leaderboard in lm-eval's own files: `results_*.json`, and `samples_*.jsonl` beside it.

Written from the result_schema and the loggers of lm-eval 0.4.13. What prefbench does not know, such
as a git hash, is left out or null.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefbench.interchange.exported import (
    Result,
    Value,
    by_checkpoint,
    common,
    file_name,
    file_names,
    json_text,
    write_text,
)
from prefbench.interchange.lm_eval_samples import Written, samples_of
from prefbench.metrics import Metric
from prefbench.store import Store

SERVED = {"completions": "local-completions", "chat": "local-chat-completions"}
"""What lm-eval calls an endpoint, by its kind."""


def write_lm_eval(results: Sequence[Result], store: Store, folder: Path) -> list[Path]:
    """Writes one folder per checkpoint, as lm-eval does; the same results give the same files.

    Raises:
        InputError: a file cannot be written.
    """
    several = by_checkpoint(results)
    names = file_names(several)
    paths = []
    for checkpoint, members in several.items():
        place = folder / names[checkpoint]
        stamp = _stamp(max(one.finished for one in members))
        written: dict[str, Written] = {}
        for key, one in task_keys(members).items():
            written[key] = Written()
            lines = (json_text(sample) for sample in samples_of(one, store, written[key]))
            path = write_text(place / f"samples_{key}_{stamp}.jsonl", lines)
            if written[key].hashes:
                paths.append(path)
            else:  # results without answers: imported ones, say
                path.unlink()
        whole = _whole(members, names[checkpoint], written)
        paths.append(write_text(place / f"results_{stamp}.json", [json_text(whole, indent=2)]))
    return paths


def task_keys(members: Sequence[Result]) -> dict[str, Result]:
    """A checkpoint's results by the name that stands for the task, in files' names too.

    It is the task's; with the opponent and the judge where it was judged, and with its conditions
    where it is there twice.
    """
    keys: dict[str, Result] = {}
    for one in members:
        group = one.group
        judged = f" against {group.opponent} by {group.judge}" if group.opponent else ""
        name = file_name(f"{group.task}{judged}".replace(" ", "_"))
        if name in keys:
            name = file_name(f"{name} {group.conditions}".replace(" ", "_"), keys)
        keys[name] = one
    return keys


def parts(value: Value) -> tuple[str, str]:
    """A metric's name and the filter pipeline it belongs to, in lm-eval's words."""
    name, _, pipeline = value.metric.name.partition(",")
    return name, pipeline or "none"


def is_mean(metric: Metric) -> bool:
    """Whether a metric is the mean of its items' values."""
    return metric.quantities[1:] == ("1",) and metric.unit != "perplexity"


def _whole(
    members: Sequence[Result], folder: str, written: Mapping[str, Written]
) -> dict[str, Any]:
    """The content of `results_*.json`."""
    keys = task_keys(members)
    manifests = [one.manifest for one in members]
    row = members[0].row
    started = [
        one.finished - datetime.timedelta(seconds=one.manifest.get("seconds") or 0)
        for one in members
    ]
    template = common([one["engine"].get("chat_template") for one in manifests])
    return {
        "results": {key: _metrics(key, one) for key, one in keys.items()},
        "group_subtasks": {key: [] for key in keys},
        "configs": {key: _config(key, one, written[key]) for key, one in keys.items()},
        "versions": {
            key: (one.config.get("metadata") or {}).get("version") for key, one in keys.items()
        },
        "n-shot": {key: one.manifest["task"].get("n_shots", 0) for key, one in keys.items()},
        "higher_is_better": {
            key: {parts(value)[0]: value.metric.higher_is_better for value in one.values}
            for key, one in keys.items()
        },
        "n-samples": {
            key: {
                "original": one.manifest["n_items"] if _limit(one) is None else None,
                "effective": one.n_scored,
            }
            for key, one in keys.items()
        },
        "config": _execution(members),
        "date": min(started).timestamp(),
        "transformers_version": common([_version(one, "transformers") for one in manifests]),
        "lm_eval_version": common([_version(one, "lm_eval") for one in manifests]),
        "prefbench_version": common([_version(one, "prefbench") for one in manifests]),
        "max_length": common([one["engine"].get("max_length") for one in manifests]),
        "task_hashes": {key: one.task_hash for key, one in written.items() if one.hashes},
        "prefbench_fingerprint": row.fingerprint or None,
        "model_source": _execution(members)["model"],
        "model_name": row.name,
        "model_name_sanitized": folder,
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": common([one["identity"].get("chat") for one in manifests]),
        "chat_template": None,
        "chat_template_sha": template,
        "total_evaluation_time_seconds": str(sum(one.get("seconds") or 0 for one in manifests)),
    }


def _metrics(key: str, one: Result) -> dict[str, Any]:
    """Values by `metric,filter`, with the standard error of the bootstrap over items."""
    found: dict[str, Any] = {"name": key, "alias": key, "sample_len": one.n_scored}
    for value in one.values:
        name, pipeline = parts(value)
        se = value.estimate.se
        found[f"{name},{pipeline}"] = value.estimate.value
        found[f"{name}_stderr,{pipeline}"] = se if math.isfinite(se) else "N/A"
    return found


def _config(key: str, one: Result, written: Written) -> dict[str, Any]:
    """The task's settings, with the metrics that all samples hold where they are not lm-eval's."""
    recipe = (one.config.get("metadata") or {}).get("prefbench") or {}
    config = {**one.config, "task": key}
    if recipe.get("pairs") or recipe.get("measure", "answers") != "answers":
        config["metric_list"] = [
            {
                "metric": parts(value)[0],
                "aggregation": "mean" if is_mean(value.metric) else "custom",
                "higher_is_better": value.metric.higher_is_better,
            }
            for value in one.values
            if parts(value)[0] in (written.metrics or ())
        ]
    return config


def _execution(members: Sequence[Result]) -> dict[str, Any]:
    """What ran, and how."""
    row, manifests = members[0].row, [one.manifest for one in members]
    dtype = common([one["identity"].get("dtype") for one in manifests])
    arguments: Any = {"pretrained": str(row.path)} | ({"dtype": dtype} if dtype else {})
    if row.adapter:
        arguments |= {"pretrained": str(row.base), "peft": str(row.path)}
    if all("imported" in one for one in manifests):  # the row's path is no place of weights
        arguments = common([one["imported"].get("model_args") for one in manifests]) or {}
    shot_seeds = [one.get("shot_seed") for one in manifests]
    return {
        "model": ", ".join(sorted({_source(one) for one in manifests})),
        "model_args": arguments,
        "model_num_parameters": row.n_parameters,
        "model_dtype": dtype,
        "batch_size": None,
        "device": common([one["engine"].get("device") for one in manifests]),
        "limit": common([_limit(one) for one in members]),
        "gen_kwargs": None,
        "fewshot_seed": common(shot_seeds),
    }


def _source(manifest: Mapping[str, Any]) -> str:
    kind = str(manifest["engine"]["kind"]).removeprefix("lm-eval ")
    if kind != "server":
        return kind
    return SERVED.get(manifest.get("settings", {}).get("server_api", ""), kind)


def _limit(one: Result) -> int | None:
    limit: int | None = one.manifest["identity"].get("limit")
    return limit


def _version(manifest: Mapping[str, Any], name: str) -> str | None:
    found: str | None = manifest.get("versions", {}).get(name)
    return found


def _stamp(when: datetime.datetime) -> str:
    """A time as lm-eval writes it in a file's name."""
    return when.replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")
