"""The main job: every ready checkpoint on every task, whatever of it is missing."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefbench import data
from prefbench.cells import (
    PlannedCell,
    PlannedTask,
    Settings,
    find,
    in_order,
    missing_data,
    plan_cells,
    plan_tasks,
)
from prefbench.engines import Engines
from prefbench.errors import (
    CheckpointError,
    DataError,
    PrefbenchError,
    StoppedError,
    StoreError,
)
from prefbench.manifest import manifest_of, now
from prefbench.opening import Opening
from prefbench.records import Answer, Checkpoint
from prefbench.store import Batch, Cell, Store
from prefbench.tasks import Task, splits_of

if TYPE_CHECKING:
    from prefbench.engines.base import Engine
    from prefbench.measures.requests import Requests


def _nothing(*args: Any) -> None:
    pass


@dataclass
class Listener:
    """Called as a run goes on; a face may show it."""

    on_plan: Callable[[int, int], None] = _nothing
    """Cells in all, and cells to be measured."""
    on_cell: Callable[[Checkpoint, Task], None] = _nothing
    on_step: Callable[[str, int, int], None] = _nothing
    """What is being done, items done, items in all."""
    on_cell_end: Callable[[Checkpoint, Task, str | None], None] = _nothing
    """With the reason where it failed."""
    on_notice: Callable[[str], None] = _nothing
    """What the user should know now: an engine that did not do, another that does instead."""


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    plan: str
    """Its id in the store."""
    measured: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    """Cells by checkpoint and task, and why."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Checkpoints that were not measured, by name, and why."""


def run(
    root: Path | Sequence[Path],
    *,
    tasks: Sequence[str] = ("paper",),
    results: Path = Path("results"),
    settings: Settings | None = None,
    mirrors: Sequence[Path] = (),
    task_folders: Sequence[Path] = (),
    final_only: bool = False,
    listener: Listener | None = None,
) -> Outcome:
    """Measures every cell of checkpoints × tasks that is not measured yet.

    Args:
        root: a directory of checkpoints, or several.
        tasks: task and suite names.
        results: where rows and manifests are kept.
        settings: everything else that can change a number.
        mirrors: local directories that hold data sets, besides PREFBENCH_MIRROR.
        task_folders: folders of further task YAML files.
        final_only: of each training run only the final model, or its last checkpoint without one.
        listener: told how the run goes on.

    Raises:
        PrefbenchError: nothing can be measured (no checkpoints, unknown tasks, data missing);
            whatever goes wrong with one cell is kept in its failure and in the outcome.
    """
    settings, listener = settings or Settings(), listener or Listener()
    planned = plan_tasks(tasks, limit=settings.limit, mirrors=mirrors, folders=task_folders)
    checkpoints = find(root, settings, final_only=final_only)
    cells = plan_cells(checkpoints, planned, settings)
    store = Store(results)
    plan = _write_plan(store, checkpoints, cells)
    unique = {cell.cell: cell for cell in cells}
    done = tuple(name for name in unique if store.is_sealed(name))
    todo = [c for name, c in unique.items() if name not in done and not c.planned.missing]
    listener.on_plan(len(cells), len(todo))
    _fetch([cell.planned for cell in todo], listener)
    failed: Mapping[str, str] = {}
    if todo:
        with Engines([cell.checkpoint for cell in todo]) as engines:
            failed = _Work(store, settings, listener, engines).carry_out(todo)
    return Outcome(
        plan=plan,
        measured=tuple(cell.cell for cell in todo if cell.cell not in failed),
        done=done,
        failed={unique[name].title: reason for name, reason in failed.items()},
        broken={c.name: c.reason or c.state for c in checkpoints if c.state != "ready"},
    )


def _write_plan(
    store: Store, checkpoints: Sequence[Checkpoint], cells: Sequence[PlannedCell]
) -> str:
    """Keeps what the run sets out to measure, under a name that the same run gets again."""
    plan = {
        "checkpoints": [dataclasses.asdict(checkpoint) for checkpoint in checkpoints],
        "cells": [
            {
                "cell": cell.cell,
                "checkpoint": cell.checkpoint.name,
                "task": cell.task.name,
                "sweep": cell.task.sweep,
                "shown": list(cell.task.recipe.metrics),
                "missing": cell.planned.missing,
                "identity": cell.identity,
            }
            for cell in cells
        ],
    }
    name = hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()[:16]
    store.write_plan(name, {**plan, "when": now(), "id": name})
    return name


def _fetch(tasks: Sequence[PlannedTask], listener: Listener) -> None:
    """Brings what the hub has into its cache.

    Raises:
        DataError: names every set that is not to be had, before a model is loaded.
    """
    wanted: dict[tuple[str, str | None], tuple[data.Source, list[str]]] = {}
    for planned in tasks:
        source = planned.source
        if source and not source.files:
            _, splits = wanted.setdefault((source.title, source.revision), (source, []))
            splits += splits_of(planned.task, source)
    lost: list[str] = []
    unreachable = False
    for i, (source, splits) in enumerate(wanted.values()):
        listener.on_step(f"fetching {source.title}", i, len(wanted))
        if unreachable:  # each try would take as long as the first
            lost.append(f"{source.title}: not tried, the hub cannot be reached")
            continue
        try:
            data.load(source, splits)
        except DataError as error:
            lost.append(str(error))
            unreachable = isinstance(error.__cause__, ConnectionError) and not data.is_offline()
    if lost:
        raise missing_data(lost)


class _Work:
    """The missing cells of one run, checkpoint by checkpoint."""

    def __init__(
        self, store: Store, settings: Settings, listener: Listener, engines: Engines
    ) -> None:
        self.engines = engines
        self.store = store
        self.settings = settings
        self.listener = listener
        self.failed: dict[str, str] = {}
        self._requests: dict[tuple[Any, ...], Requests] = {}

    def carry_out(self, cells: Sequence[PlannedCell]) -> dict[str, str]:
        """Measures cells and returns the reasons of those that failed.

        A cell that another process has claimed is left to it until the end, then waited for.
        """
        claimed = self._measure_all(cells, wait=False)
        self._measure_all(claimed, wait=True)
        return self.failed

    def _measure_all(self, cells: Sequence[PlannedCell], *, wait: bool) -> list[PlannedCell]:
        """Measures cells; returns those that another process has claimed, where not to wait."""
        others = []
        for group in in_order(cells):
            with contextlib.ExitStack() as stack:
                openings: dict[str, Opening] = {}
                for planned in group:
                    key = planned.checkpoint.fingerprint
                    if key not in openings:
                        openings[key] = stack.enter_context(self._opening(planned))
                for _, alike in itertools.groupby(group, key=lambda one: one.task.name):
                    others += self._measure_alike(list(alike), openings, wait=wait)
        return others

    def _opening(self, planned: PlannedCell) -> Opening:
        return Opening(
            planned,
            self.settings,
            self.engines,
            logs=self.store.folder / "logs",
            on_notice=self.listener.on_notice,
        )

    def _measure_alike(
        self, cells: Sequence[PlannedCell], openings: Mapping[str, Opening], *, wait: bool
    ) -> list[PlannedCell]:
        """One task's cells on engines that are open together; returns those that are claimed."""
        others, members = [], []
        with contextlib.ExitStack() as claims:
            for planned in cells:
                cell = claims.enter_context(self.store.claim(planned.cell, wait=wait))
                if cell is None:
                    others.append(planned)
                elif not self.store.is_sealed(planned.cell):
                    members.append((planned, cell, openings[planned.checkpoint.fingerprint]))
            if len(members) > 1:
                self._ask_together(members)
            for planned, cell, opening in members:
                self._measure_cell(planned, cell, opening)
        return others

    def _ask_together(self, members: Sequence[tuple[PlannedCell, Cell, Opening]]) -> None:
        """Fills the journals of several cells by joint calls, as far as that goes.

        What it does not get done, and whatever goes wrong, is left to each cell by itself.
        """
        from prefbench.measures.answers import ask_together, plan

        self.listener.on_cell(members[0][0].checkpoint, members[0][0].task)
        try:
            engines = [opening.engine() for _, _, opening in members]
            first = engines[0]
            requests = self._requests_for(members[0][0], first)
            alike = [
                (cell, engine)
                for (planned, cell, _), engine in zip(members, engines, strict=True)
                if self._requests_for(planned, engine) is requests
            ]
            size = self._batch_size(first)
            kept = [cell.resume({"batch_size": size}) for cell, _ in alike]
            with requests.built_by(first):
                for number, items in enumerate(plan(requests, size)):
                    texts = requests.digest(items)
                    lacking = [
                        pair
                        for pair, there in zip(alike, kept, strict=True)
                        if number not in there or there[number].texts != texts
                    ]
                    answers = ask_together(requests, [engine for _, engine in lacking], items)
                    for (cell, _), found in zip(lacking, answers, strict=True):
                        cell.append(number, Batch(texts, found))
                    done = min((number + 1) * size, len(requests))
                    self.listener.on_step(f"asking {len(alike)} together", done, len(requests))
        except StoreError:
            raise
        except PrefbenchError as error:
            self.listener.on_notice(f"{members[0][0].task.name}: asked one by one: {error}")

    def _batch_size(self, engine: Engine) -> int:
        return self.settings.batch_size or engine.batch_size

    def _measure_cell(self, planned: PlannedCell, cell: Cell, opening: Opening) -> None:
        """One cell; whatever goes wrong inside it is written down and the others go on."""
        self.listener.on_cell(planned.checkpoint, planned.task)
        reason = None
        try:
            try:
                self._fill(planned, cell, opening)
            except StoppedError as error:
                opening.reopen(error)
                self._fill(planned, cell, opening)
        except StoreError:
            raise  # a directory that cannot be written fails every cell alike
        except Exception as error:  # noqa: BLE001  # the one: a cell never takes others down
            known = isinstance(error, PrefbenchError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            self.failed[planned.cell] = reason
            opening.note(reason)
            if isinstance(error, CheckpointError):  # nor may its answers be gone on with
                cell.journal.unlink(missing_ok=True)
            cell.fail(reason, traceback.format_exc())
        self.listener.on_cell_end(planned.checkpoint, planned.task, reason)

    def _fill(self, planned: PlannedCell, cell: Cell, opening: Opening) -> None:
        """Asks what the journal does not have yet, then seals the cell."""
        from prefbench.measures.answers import item_metrics

        started = time.monotonic()
        engine = opening.engine()
        requests = self._requests_for(planned, engine)
        with requests.built_by(engine):
            answers, n_resumed = self._ask(requests, engine, cell)
        digest = requests.digest()
        self.store.write_items(
            digest,
            (
                {
                    "item": item.item,
                    "cluster": item.cluster,
                    "prompt": item.prompt,
                    "continuations": list(item.continuations),
                    "fields": json.dumps(item.fields, default=str, ensure_ascii=False),
                }
                for item in requests.items
            ),
        )
        manifest = manifest_of(
            planned,
            self.settings,
            engine,
            requests,
            answers,
            notes=[*opening.notes, *engine.notes],
            items=digest,
            seconds=time.monotonic() - started,
            resumed_batches=n_resumed,
        )
        records = item_metrics(requests, answers)
        opening.check_unchanged()
        cell.seal(answers, records, {i.item: i.cluster for i in requests.items}, manifest)

    def _ask(self, requests: Requests, engine: Engine, cell: Cell) -> tuple[list[Answer], int]:
        """All answers, and how many batches of them the journal had for the same texts."""
        from prefbench.measures.answers import ask, plan

        size = self._batch_size(engine)
        kept = cell.resume({"batch_size": size})
        answers: list[Answer] = []
        n_resumed = 0
        self.listener.on_step("asking", 0, len(requests))
        for number, items in enumerate(plan(requests, size)):
            texts = requests.digest(items)
            batch = kept.get(number)
            if batch and batch.texts == texts:
                n_resumed += 1
            else:
                batch = Batch(texts, ask(requests, engine, items))
                cell.append(number, batch)
            answers += batch.answers
            self.listener.on_step("asking", len(answers), len(requests))
        return answers, n_resumed

    def _requests_for(self, planned: PlannedCell, engine: Engine) -> Requests:
        """The task's prompts and token ids: one for all checkpoints with this tokenizer."""
        from prefbench.harness import build_task
        from prefbench.measures.requests import build_requests

        chat = bool(planned.identity["chat"])
        key = (planned.task.name, planned.planned.limit, chat, engine.tokenizer_key)
        if key not in self._requests:
            assert planned.planned.source is not None
            source = planned.planned.source
            harness = build_task(
                planned.task,
                source,
                data.load(source, splits_of(planned.task, source)),
                self.settings.fewshot,
            )
            self._requests[key] = build_requests(
                planned.task,
                harness,
                engine,
                chat=chat,
                limit=planned.planned.limit,
            )
        return self._requests[key]
