"""The rows of lm-eval's `samples_*.jsonl`: what was asked for an item, answered and scored."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prefbench.errors import StoreError, TaskError
from prefbench.interchange.exported import Result, sha256
from prefbench.records import Answer
from prefbench.store import Store

if TYPE_CHECKING:
    from prefbench.harness import HarnessTask
    from prefbench.tasks import Function, Task

WHERE_FUNCTIONS_STAND = (
    "doc_to_text", "doc_to_target", "doc_to_choice", "process_results", "filter_fn",
)  # fmt: skip
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*\.\w+:[0-9a-f]{64}|lm_eval\.[\w.]+")


@dataclass
class Written:
    """What was written of a task's samples: the rows' hashes, and the metrics all rows have."""

    hashes: list[str] = field(default_factory=list)
    metrics: set[str] | None = None

    @property
    def task_hash(self) -> str:
        """What lm-eval calls a task by, which changes with any of its rows."""
        return sha256("".join(self.hashes))

    def add(self, row: Mapping[str, Any]) -> None:
        self.hashes.append(row["doc_hash"] + row["prompt_hash"] + row["target_hash"])
        names = set(row["metrics"])
        self.metrics = names if self.metrics is None else self.metrics & names


def samples_of(one: Result, store: Store, written: Written) -> Iterator[dict[str, Any]]:
    """A row per filter pipeline and item that was answered, in lm-eval's order.

    Args:
        one: the result.
        store: where its answers are.
        written: is told of each row.
    """
    if one.manifest.get("work") == "gradients":  # lm-eval has no place for them
        return
    try:
        answers = [a for a in store.answers(store.behind(one.cell)) if not a.reason]
        items = {row["item"]: row for row in store.items(one.manifest["items"]).to_pylist()}
    except StoreError:
        return
    documents = {item: json.loads(row["fields"]) for item, row in items.items()}
    harness = _harness(one, list(documents.values()))
    pipelines = [each["name"] for each in one.config.get("filter_list") or ()] or ["none"]
    scores = _scores(one, store)
    for pipeline in pipelines:
        filtered = _filtered(one, harness, pipeline, answers, documents)
        for answer, kept in zip(answers, filtered, strict=True):
            row, document = items[answer.item], documents[answer.item]
            values = scores.get(pipeline, {}).get(answer.item, {})
            target = str(harness.doc_to_target(document)) if harness else ""
            asked = _arguments(one, row)
            sample = {
                "doc_id": answer.item,
                "doc": document,
                "target": target,
                "arguments": {
                    f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(several)}
                    for i, several in enumerate(asked)
                },
                "resps": _responses(one, answer),
                **({} if kept is None else {"filtered_resps": kept}),
                "filter": pipeline,
                "metrics": list(values),
                "doc_hash": sha256(json.dumps(document, indent=2, ensure_ascii=False)),
                "prompt_hash": sha256(asked[0][0]),
                "target_hash": sha256(target),
                **values,
            }
            written.add(sample)
            yield sample


def _arguments(one: Result, row: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What lm-eval's requests for an item hold."""
    kind = one.config["output_type"]
    if kind == "generate_until":
        return [(row["prompt"], one.config.get("generation_kwargs") or {})]
    if kind == "loglikelihood_rolling":
        return [(text,) for text in row["continuations"]]
    return [(row["prompt"], text) for text in row["continuations"]]


def _responses(one: Result, answer: Answer) -> list[Any]:
    """An answer as lm-eval writes it: every number as text."""
    if one.config["output_type"] == "generate_until":
        return [list(answer.texts)]
    if one.config["output_type"] == "loglikelihood_rolling":
        return [[str(logp)] for logp in answer.logps]
    return [[_scored(answer, i)] for i in range(len(answer.logps))]


def _scored(answer: Answer, i: int) -> list[str]:
    return [str(answer.logps[i]), str(answer.greedy[i])]


def _filtered(
    one: Result,
    harness: HarnessTask | None,
    pipeline: str,
    answers: Sequence[Answer],
    documents: Mapping[int, Mapping[str, Any]],
) -> list[list[Any] | None]:
    """What the filters leave of each answer; None where they cannot be carried out here."""
    kind = one.config["output_type"]
    if kind == "loglikelihood_rolling":
        return [[str(answer.logps[0])] for answer in answers]
    if kind != "generate_until":
        return [[_scored(answer, i) for i in range(len(answer.logps))] for answer in answers]
    if harness is None:
        return [None] * len(answers)
    from lm_eval.api.instance import Instance

    instances = [
        Instance(kind, dict(documents[answer.item]), (), 0, resps=list(answer.texts))
        for answer in answers
    ]
    (ensemble,) = (each for each in harness._filters if each.name == pipeline)
    ensemble.apply(instances)
    return [[_text(instance.filtered_resps[pipeline])] for instance in instances]


def _text(response: Any) -> Any:
    """A response as text, in lists where a pipeline leaves several."""
    return [_text(each) for each in response] if isinstance(response, list) else str(response)


def _scores(one: Result, store: Store) -> dict[str, dict[int, dict[str, Any]]]:
    """By pipeline and item, what each metric sums up.

    A metric that is a mean has the item's value; one that divides a sum by a sum has both, as
    lm-eval writes its weighted perplexities. What is made of more than that has no value by item.
    """
    table = store.records(one.cell)
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "cluster"}
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for value in one.values:
        metric = value.metric
        used = [name for name in metric.quantities if name != "1"]
        if len(metric.quantities) != 2 or not set(used) <= set(columns):
            continue
        name, _, pipeline = metric.name.partition(",")
        several = np.stack([columns[quantity] for quantity in used], axis=1)
        rows = found.setdefault(pipeline or "none", {})
        for item, numbers in zip(columns["item"].tolist(), several.tolist(), strict=True):
            if np.isfinite(numbers).all():
                rows.setdefault(item, {})[name] = numbers if len(used) > 1 else numbers[0]
    return found


def _harness(one: Result, documents: Sequence[Mapping[str, Any]]) -> HarnessTask | None:
    """lm-eval's side of the task, for its targets and filters; None where it cannot be had here."""
    from prefbench.tasks import Recipe, Task

    config = _restored(one)
    if config is None:
        return None
    recipe = (config.get("metadata") or {}).get("prefbench") or {}
    told = one.manifest["task"]
    try:
        task = Task(told["name"], config, Recipe.model_validate(recipe), Path(told["file"]))
        config |= {"num_fewshot": 0, "test_split": task.eval_split, "validation_split": None}
        return _built(task, documents)
    except (TaskError, ValueError, TypeError):  # settings or documents that JSON has changed
        return None


def _built(task: Task, documents: Sequence[Mapping[str, Any]]) -> HarnessTask:
    from datasets import Dataset

    from prefbench.data import Source
    from prefbench.harness import build_task

    split = Dataset.from_list([dict(document) for document in documents[:1]])
    source = Source("export", files={task.eval_split: Path()})
    return build_task(task, source, {task.eval_split: split}, "fixed")


def _restored(one: Result) -> dict[str, Any] | None:
    """A task's settings with the functions they name; None where one is not what it was."""
    config: dict[str, Any] = json.loads(json.dumps(one.config))
    config.pop("process_docs", None)  # the documents are kept as it made them
    steps = [step for each in config.get("filter_list") or () for step in each["filter"]]
    for place in (config, *steps):
        for key in WHERE_FUNCTIONS_STAND:
            value = place.get(key)
            if not isinstance(value, str) or not _is_code(key, value):
                continue
            function = _same_function(value, one)
            if function is None:
                return None
            place[key] = function
    return config


def _is_code(key: str, value: str) -> bool:
    """Whether a setting is what JSON has left of a function: its name, or its code."""
    if key == "filter_fn" or _FUNCTION.fullmatch(value):
        return True
    return value.lstrip().startswith(("def ", "lambda", "@", "<function", "functools.partial"))


def _same_function(told: str, one: Result) -> Function | None:
    """The function of a manifest, if its code here is what it was there."""
    from prefbench.tasks import Function, tasks_folder

    if not _FUNCTION.fullmatch(told):
        return None
    name, _, code = told.partition(":")
    function = Function(name, tasks_folder())
    if name.startswith("prefbench.") and code and function.source == told:
        return function
    version = one.manifest.get("versions", {}).get("lm_eval")
    if name.startswith("lm_eval.") and version == importlib.metadata.version("lm_eval"):
        return function
    return None
