"""The steps from a task's name to a checkpoint's answers, as a run takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefbench import data
from prefbench.engines.base import Engine, TokenRequest
from prefbench.harness import HarnessTask, build_task
from prefbench.measures.answers import ask, item_metrics, plan
from prefbench.measures.requests import Requests, build_requests
from prefbench.records import Answer, Checkpoint
from prefbench.tasks import Fewshot, Task, load_tasks, splits_of, tasks_folder


def task_named(name: str, folder: Path | None = None) -> Task:
    folders = [tasks_folder(), *([folder] if folder else [])]
    ((task, _),) = load_tasks([name], folders)
    return task


def build(task: Task, mirror: Path | None, fewshot: Fewshot = "fixed") -> HarnessTask:
    source = data.find_source(task.config, [mirror] if mirror else [], task.file.parent)
    return build_task(task, source, data.load(source, splits_of(task, source)), fewshot)


def requests_of(
    name: str,
    mirror: Path | None,
    engine: Engine,
    *,
    fewshot: Fewshot = "fixed",
    limit: int | None = None,
    chat: bool = False,
    folder: Path | None = None,
) -> Requests:
    """All built."""
    task = task_named(name, folder)
    requests = build_requests(task, build(task, mirror, fewshot), engine, chat=chat, limit=limit)
    with requests.built_by(engine):
        tokens_of(requests)
    return requests


def tokens_of(requests: Requests) -> list[list[TokenRequest]]:
    """Of all items, as lists, which are equal where their ids are."""
    return [
        [TokenRequest(list(one.context), list(one.continuation)) for one in requests.tokens(i)]
        for i in range(len(requests))
    ]


def answers_of(requests: Requests, engine: Engine, size: int = 8) -> list[Answer]:
    """In the order of the items."""
    with requests.built_by(engine):
        return [a for batch in plan(requests, size) for a in ask(requests, engine, batch)]


def quantities_of(requests: Requests, answers: Sequence[Answer]) -> dict[str, list[float]]:
    """Every quantity's values in the order of the answers; reasons are left out."""
    columns: dict[str, list[float]] = {}
    for record in item_metrics(requests, answers):
        if record.value is not None:
            columns.setdefault(record.quantity, []).append(record.value)
    return columns


def checkpoint_at(path: Path, base: Path | None = None) -> Checkpoint:
    return Checkpoint(
        path.name, path, "ready", base=str(base) if base else None, adapter=base is not None
    )
