"""What a sealed cell carries beside its numbers: all that they came about by."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefbench import __version__
from prefbench.cells import PlannedCell, Settings
from prefbench.records import Answer
from prefbench.tasks import Task

if TYPE_CHECKING:
    from prefbench.engines.base import Engine
    from prefbench.measures.requests import Requests

LIBRARIES = ("torch", "transformers", "tokenizers", "lm_eval", "datasets", "numpy", "scipy", "peft")


def manifest_of(
    planned: PlannedCell,
    settings: Settings,
    engine: Engine,
    requests: Requests,
    answers: Sequence[Answer],
    *,
    notes: Sequence[str],
    warnings: Sequence[str],
    items: str,
    seconds: float,
    resumed_batches: int,
) -> dict[str, Any]:
    """The manifest of a cell whose answers are complete; `items` names its prompts."""
    from prefbench.harness import SHOT_SEED

    task, source = planned.task, planned.planned.source
    missing = Counter(answer.reason for answer in answers if answer.reason)
    beside = planned.beside
    return {
        "cell": planned.cell,
        "identity": dict(planned.identity),
        "checkpoint": dataclasses.asdict(planned.checkpoint),
        "task": task_facts(task),
        "data": {
            "title": source.title if source else None,
            "revision": source.revision if source else None,
            "from": "files" if source and source.files else "hub",
        },
        "higher_is_better": dict(requests.harness.higher_is_better()),
        "items": items,
        "n_items": len(answers),
        "work": planned.work,
        "beside": {
            "cell": beside.cell,
            "name": beside.checkpoint.name,
            "path": str(beside.checkpoint.path),
            "fingerprint": beside.checkpoint.fingerprint,
        }
        if beside
        else None,
        "n_missing": sum(missing.values()),
        "missing": dict(missing),
        "n_cut": sum(answer.n_cut > 0 for answer in answers),
        "n_tokens_cut": sum(answer.n_cut for answer in answers),
        "n_unfinished": sum(any(answer.unfinished) for answer in answers),
        "engine": {
            "kind": engine.kind,
            "dtype": planned.identity["dtype"],
            "device": str(engine.device),
            "max_length": engine.max_length,
            "tokenizer": engine.tokenizer_key,
            "chat_template": engine.template_digest if requests.chat else None,
            "notes": list(notes),
            **engine.facts,
        },
        "warnings": list(warnings),
        "sampling": dataclasses.asdict(requests.sampling) if requests.sampling else None,
        "shot_seed": SHOT_SEED if planned.identity["fewshot"] == "parity" else None,
        "settings": dataclasses.asdict(settings),
        "versions": {
            "prefbench": __version__,
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "host": {
            "machine": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
            "n_cpus": os.cpu_count(),
        },
        "command": sys.argv,
        "finished": now(),
        "seconds": round(seconds, 3),
        "resumed_batches": resumed_batches,
    }


def task_facts(task: Task) -> dict[str, Any]:
    """What a manifest says of a task."""
    return {
        "name": task.name,
        "file": task.file.name,
        "definition": task.definition,
        "config": json.loads(json.dumps(task.config, default=lambda f: f.source)),
        "n_shots": task.n_shots,
    }


def now() -> str:
    """The time, fine enough that two plans of one second keep their order."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
