"""Old lm-eval runs in a results directory: sealed cells and a plan, so that they join the table."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefbench.errors import InputError
from prefbench.interchange.imported_cell import Incoming, Target, digest, seal
from prefbench.interchange.imported_values import split
from prefbench.interchange.lm_eval_in import ModelRun, TaskRun, read_run, results_files
from prefbench.interchange.matching import match
from prefbench.records import Checkpoint
from prefbench.store import Store


@dataclass(frozen=True)
class Imported:
    """One cell that an import has made, or had made before."""

    checkpoint: str
    task: str
    """lm-eval's name of it."""
    column: str
    """The task whose column it joins."""
    source: Path
    cell: str
    new: bool
    n_items: int
    """Items with values of their own."""
    n_left_out: int
    """Documents that are none of our task's items."""
    n_missing: int
    """Items of our task that the run lacks."""
    by_item: tuple[str, ...]
    aggregates: tuple[str, ...]
    """Metrics without values by item: they are compared unpaired."""


def import_lm_eval(
    paths: Sequence[Path],
    results: Path,
    *,
    as_task: str | None = None,
    task: str | None = None,
    method: str | None = None,
    name: str | None = None,
) -> list[Imported]:
    """Takes lm-eval's results into a results directory, with samples where they lie beside them.

    Importing the same file again changes nothing; other content at its path makes a new cell, and
    the row shows that.

    Args:
        paths: `results_*.json`, or folders of them.
        results: the results directory; made if need be.
        as_task: a task that was measured here: documents that are its items are compared with them;
            a file without samples joins its columns unpaired.
        task: which of the files' tasks; None is all.
        method: of the row, e.g. dpo.
        name: of the row; by default the model's, with the remark that lm-eval measured it.

    Raises:
        InputError: a file is not what it should be, or none of its documents is an item of the
            task.
        StoreError: the directory cannot be read or written.
    """
    runs = [read_run(path) for path in results_files(paths)]
    if task is not None:
        told = ", ".join(dict.fromkeys(each for run in runs for each in run.tasks))
        runs = [
            dataclasses.replace(run, tasks={task: run.tasks[task]})
            for run in runs
            if task in run.tasks
        ]
        if not runs:
            raise InputError(f"no results file has a task named {task!r}; there are: {told}")
    if name is not None and len({(run.path.parent, run.model_name) for run in runs}) > 1:
        raise InputError(f"the files are of several models, which cannot all be named {name!r}")
    for run in runs:
        if as_task is not None and len(run.tasks) > 1:
            told = ", ".join(run.tasks)
            raise InputError(f"{run.path}: has several tasks ({told}); say which is {as_task}")
    store = Store(results, create=as_task is None)
    target = None if as_task is None else _target(store, as_task)
    prepared = []  # all, before anything is written
    for run in runs:
        row = _checkpoint(run, method, name)
        prepared.append([_incoming(run, one, row, target) for one in run.tasks.values()])
    done: list[Imported] = []
    plans: dict[str, dict[str, Any]] = {}
    for several in prepared:
        made, plan = _seal(store, several)
        name = digest(plan)[:16]
        if name not in {one["id"] for one in store.plans()}:
            _keep(store, name, plan)
        done += made
        plans[name] = plan
    names = list(plans)
    for i, name in enumerate(names):
        if not _counts(store, name, plans[name], after=names[i + 1 :]):
            _keep(store, name, plans[name])
    return done


def _incoming(run: ModelRun, task: TaskRun, row: Checkpoint, target: Target | None) -> Incoming:
    """A task of a file, held against the items of ours.

    Raises:
        InputError: its samples are of another run, or it has none of the target's items.
    """
    documents = {sample.doc_id: sample.document for sample in task.samples}
    columns, aggregates = split(run, task)
    if target is None:
        places = {doc_id: doc_id for doc_id in documents}
        return Incoming(run, task, row, None, places, columns, aggregates)
    if not documents:  # the user's word that it is the task is all there is
        return Incoming(run, task, row, target, {}, columns, aggregates)
    items = {item: json.loads(row["fields"]) for item, row in target.items.items()}
    places = match(documents, items)
    if not places:
        raise InputError(
            f"{run.path}: none of its {len(documents)} documents of {task.name} is an item of "
            f"{target.cell['task']}; is it another data set, or prepared in another way?"
        )
    return Incoming(run, task, row, target, places, columns, aggregates)


def _conditions(store: Store, one: Incoming) -> str:
    """How the column of a task that is none of ours is told from others.

    Files whose documents differ under the same number get different columns.
    """
    told = f"imported from lm-eval {one.run.lm_eval}"
    if one.task.version is not None:
        told += f", v{one.task.version}"
    if one.task.n_shots:
        told += f", {one.task.n_shots} shots"
    share = one.run.config.get("limit")
    if isinstance(share, float) and 0 < share < 1:
        told += f", {share:g} of the documents"
    texts = {item: row["fields"] for item, row in one.rows().items()}
    for cell in _cells(store):
        if cell["task"] == one.task.name and cell.get("conditions") == told and texts:
            manifest = store.manifest(cell["cell"])
            rows = store.items(manifest["items"]).to_pylist() if manifest else ()
            if any(texts.get(row["item"], row["fields"]) != row["fields"] for row in rows):
                return f"{told}, documents {digest(texts)[:6]}"
    return told


def _seal(store: Store, several: Sequence[Incoming]) -> tuple[list[Imported], dict[str, Any]]:
    """Seals the cells of one file; returns what was done, and the plan that they are part of."""
    several = [
        one if one.target else dataclasses.replace(one, conditions=_conditions(store, one))
        for one in several
    ]
    done = []
    for one in several:
        new = not store.is_sealed(one.cell)
        if new:
            seal(store, one)
        by_item = tuple(name for name in one.task.metrics if name not in one.aggregates)
        done.append(
            Imported(
                one.checkpoint.name,
                one.task.name,
                one.name,
                one.run.path,
                one.cell,
                new,
                len(one.places) if by_item else 0,
                one.n_left_out,
                one.n_missing,
                by_item,
                tuple(one.aggregates),
            )
        )
    plan = {
        "checkpoints": [dataclasses.asdict(several[0].checkpoint)],
        "cells": [one.planned() for one in several],
        "comparisons": [],
    }
    return done, plan


def _keep(store: Store, name: str, plan: Mapping[str, Any]) -> None:
    """Writes a plan as the latest word on what it names."""
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    store.write_plan(name, {**plan, "when": when, "id": name})


def _counts(store: Store, name: str, plan: Mapping[str, Any], *, after: Sequence[str]) -> bool:
    """Whether no later plan has taken any of the plan's places, but for those that may."""
    plans = store.plans()
    place = [one["id"] for one in plans].index(name)
    mine = _places(plan)
    return not any(
        mine & _places(later) for later in plans[place + 1 :] if later["id"] not in after
    )


def _places(plan: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    """The places in the table that a plan's cells take."""
    paths = {facts["name"]: str(facts["path"]) for facts in plan["checkpoints"]}
    return {
        (
            paths[cell["checkpoint"]],
            cell["task"],
            cell.get("conditions", ""),
            cell["identity"]["limit"],
        )
        for cell in plan["cells"]
    }


def _target(store: Store, task: str) -> Target:
    """The measured cell of a task with the most items, the latest of several.

    Raises:
        InputError: the task was not measured here.
    """
    found: list[tuple[Mapping[str, Any], dict[str, Any]]] = []
    for cell in _cells(store):
        manifest = store.manifest(cell["cell"]) if cell["task"] == task else None
        if manifest and "imported" not in manifest:
            found.append((cell, manifest))
    if not found:
        raise InputError(
            f"{store.name}: {task} was not measured here, so that there are no items to hold the "
            "documents against; measure a checkpoint on it first, or import without it"
        )
    cell, manifest = max(reversed(found), key=lambda pair: int(pair[1]["n_items"]))
    rows = store.items(manifest["items"]).to_pylist()
    return Target(cell, manifest, {row["item"]: row for row in rows})


def _cells(store: Store) -> Iterable[Mapping[str, Any]]:
    return (cell for plan in store.plans() for cell in plan["cells"])


def _checkpoint(run: ModelRun, method: str | None, name: str | None) -> Checkpoint:
    """The row: what lm-eval says of the model. Its path is a place in the table, not on a disk."""
    config = run.config
    told = [run.model, run.model_name, config.get("model_args"), config.get("model_sha")]
    place = Path(os.path.abspath(run.path)).parent  # noqa: PTH100  # links stay as they are
    own = run.model_name.replace("/", "__")
    absolute = Path(run.model_name).is_absolute()
    short = Path(run.model_name).name if absolute else run.model_name
    dtype = str(config.get("model_dtype") or "").removeprefix("torch.")
    n_parameters = config.get("model_num_parameters")
    return Checkpoint(
        name or f"{short} (lm-eval)",
        place if place.name == own else place / own,
        "ready",
        method=method.lower() if method else None,
        origins={"method": "given when it was imported"} if method else {},
        fingerprint=f"lm-eval:{digest(told)}",
        dtype=dtype or None,
        n_parameters=n_parameters if isinstance(n_parameters, int) else None,
    )
