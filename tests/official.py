"""lm-eval's own task files over local data, to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lm_eval.tasks
import yaml
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from prefbench.tasks import Fewshot

FOLDER = Path(lm_eval.tasks.__file__).parent

TASKS: Mapping[str, tuple[str, Mapping[str, str], str | None]] = {
    # our name: the official file, the data by split, and the split that examples come from
    "arc_easy": (
        "arc/arc_easy.yaml",
        {"train": "arc/arc_easy_train.parquet", "test": "arc/arc_easy_test.parquet"},
        "train",
    ),
    "arc_challenge": (
        "arc/arc_challenge.yaml",
        {"train": "arc/arc_challenge_train.parquet", "test": "arc/arc_challenge_test.parquet"},
        "train",
    ),
    # The mirror's validation split alone: lm-eval then draws from it, without the item.
    "hellaswag": (
        "hellaswag/hellaswag.yaml",
        {"validation": "hellaswag/validation.parquet"},
        None,
    ),
    "hellaswag_train": (
        "hellaswag/hellaswag.yaml",
        {"train": "hellaswag/train.parquet", "validation": "hellaswag/validation.parquet"},
        "train",
    ),
    "gsm8k": (
        "gsm8k/gsm8k.yaml",
        {"train": "gsm8k/train.parquet", "test": "gsm8k/test.parquet"},
        "train",
    ),
}


def official(
    name: str, n_shots: int, fewshot: Fewshot, mirror: Path, scratch: Path, **more: Any
) -> ConfigurableTask:
    """A task from lm-eval's own file; `fixed` takes lm-eval's first_n sampler."""
    folder = scratch / f"{name}-{n_shots}-{fewshot}"
    folder.mkdir(exist_ok=True)
    config = task_file(name, n_shots, fewshot, mirror, folder, **more)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    task: ConfigurableTask = manager.load([config["task"]])["tasks"][config["task"]]
    task.set_fewshot_seed(1234)  # as simple_evaluate does
    return task


def task_file(
    name: str, n_shots: int, fewshot: Fewshot, mirror: Path, folder: Path, **more: Any
) -> dict[str, Any]:
    """Writes a YAML file for lm-eval that includes its own over local data."""
    file, data, shots = TASKS[name]
    config: dict[str, Any] = {
        "include": str(FOLDER / file),
        "task": f"official_{name}_{n_shots}",
        "tag": None,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: str(mirror / path) for split, path in data.items()},
            "cache_dir": str(folder.parent / "cache"),
        },
        "num_fewshot": n_shots,
        "training_split": shots,
        "validation_split": "validation" if "validation" in data else None,
        **more,
    }
    if fewshot == "fixed" and n_shots:
        config["fewshot_config"] = {"sampler": "first_n"}
    (folder / f"{config['task']}.yaml").write_text(yaml.safe_dump(config))
    return config


def sent(task: ConfigurableTask, limit: int, **chat: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Prompt and continuations of the first documents, as lm-eval builds them."""
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=limit, rank=0, world_size=1, **chat)
    items: dict[int, list[Any]] = {}
    for instance in task.instances:
        items.setdefault(instance.doc_id, []).append(instance)
    return [
        (
            several[0].args[0],
            tuple(one.args[1] for one in several)
            if several[0].request_type == "loglikelihood"
            else (),
        )
        for several in items.values()
    ]
