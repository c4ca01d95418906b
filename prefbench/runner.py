"""The main job: every ready checkpoint on every task, whatever of it is missing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from prefbench import data
from prefbench.analyses import Beside, PlannedAnalysis, plan_beside
from prefbench.analyses import told as told_analysis
from prefbench.cells import (
    PlannedCell,
    PlannedTask,
    Settings,
    find,
    mirror_places,
    missing_data,
    once,
    plan_cells,
    plan_tasks,
)
from prefbench.comparisons import (
    Judging,
    PlannedComparison,
    plan_comparisons,
    plan_judges,
    told,
)
from prefbench.errors import DataError
from prefbench.judges.budget import Budget
from prefbench.judging import Court, is_judged
from prefbench.listener import Listener
from prefbench.manifest import now
from prefbench.parallel.executors import Executor, Here
from prefbench.parallel.job import Job
from prefbench.records import Checkpoint
from prefbench.references import References, find_references
from prefbench.store import Store
from prefbench.tasks import BESIDE, splits_of


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
    spent: Mapping[str, Any] = field(default_factory=dict)
    """What judges were asked and cost in this run, where any was asked."""
    left: str | None = None
    """Why something of it is not on the object store that the results are kept on."""


def run(
    root: Path | Sequence[Path],
    *,
    tasks: Sequence[str] = ("paper",),
    results: Path = Path("results"),
    settings: Settings | None = None,
    judging: Judging | None = None,
    mirrors: Sequence[Path] = (),
    task_folders: Sequence[Path] = (),
    final_only: bool = False,
    listener: Listener | None = None,
    executor: Executor | None = None,
) -> Outcome:
    """Measures every cell of checkpoints × tasks that is not measured yet, then judges answers.

    Args:
        root: a directory of checkpoints, or several.
        tasks: task and suite names.
        results: where rows and manifests are kept.
        settings: everything else that can change a number.
        judging: how answers are judged, and what that may cost.
        mirrors: local directories that hold data sets, besides PREFBENCH_MIRROR.
        task_folders: folders of further task YAML files.
        final_only: of each training run only the final model, or its last checkpoint without one.
        listener: told how the run goes on.
        executor: who measures the cells [this machine]; analyses and judging are done here.

    Raises:
        PrefbenchError: nothing can be measured (no checkpoints, unknown tasks, data missing);
            whatever goes wrong with one cell is kept in its failure and in the outcome.
    """
    settings, listener = settings or Settings(), listener or Listener()
    judging = judging or Judging()
    planned = plan_run(
        root,
        tasks=tasks,
        settings=settings,
        judging=judging,
        mirrors=mirrors,
        task_folders=task_folders,
        final_only=final_only,
    )
    store, begun = Store(results), now()
    store.tell(listener.on_notice)
    plan = write_plan(store, planned)
    left = what_is_left(planned, store)
    listener.on_plan(left.n, left.n_open)
    failed: dict[str, str] = {}
    if left.todo:
        job = Job(
            checkpoints=tuple(planned.checkpoints),
            references=tuple((str(path), one) for path, one in planned.references.items()),
            tasks=tuple(tasks),
            results=results,
            settings=settings,
            mirrors=tuple(mirror_places(mirrors)),
            task_folders=tuple(task_folders),
            command=tuple(sys.argv),
            folder=Path.cwd(),
            plan=plan,
            begun=begun,
        )
        with (executor or Here()).opened(settings, listener) as measure:
            _fetch([cell.planned for cell in left.todo], listener)
            for some in _in_turn(left.todo):
                failed |= measure(some, job, store, listener)
                store.refresh()  # others may have measured them
    budget = Budget(max_cost=judging.max_cost, max_calls=judging.max_calls)
    if left.to_analyse:
        from prefbench.analysing import Analyst  # with all that reads answers

        failed |= Analyst(store, judging, listener, budget).carry_out(left.to_analyse)
    if left.to_judge:
        with Court(store, judging, listener, budget) as court:
            failed |= court.carry_out(left.to_judge)
    asks = left.to_judge or any(one.judge for one in left.to_analyse)
    spent: Mapping[str, Any] = budget.facts if asks else {}
    return Outcome(
        plan=plan,
        measured=tuple(one.cell for one in left.open if one.cell not in failed),
        done=left.done,
        failed={title: failed[name] for name, title in left.titles.items() if name in failed},
        broken={c.name: c.reason or c.state for c in planned.checkpoints if c.state != "ready"},
        spent=spent,
        left=store.close(),
    )


@dataclass(frozen=True)
class Left:
    """What of a run is not done yet."""

    todo: list[PlannedCell]
    to_analyse: list[PlannedAnalysis]
    to_judge: list[PlannedComparison]
    done: tuple[str, ...]
    titles: Mapping[str, str]
    """Of all cells."""
    n: int
    """Cells in all, those whose data are missing among them."""

    @property
    def open(self) -> list[PlannedCell | PlannedAnalysis | PlannedComparison]:
        """All that is to be done."""
        return [*self.todo, *self.to_analyse, *self.to_judge]

    @property
    def n_open(self) -> int:
        return len(self.open)


def what_is_left(planned: PlannedRun, store: Store) -> Left:
    """Compares a plan with what the store has."""
    beside = planned.beside
    cells = once([*planned.cells, *beside.cells, *beside.later])
    analyses = {one.cell: one for one in beside.analyses if not one.missing}
    verdicts = {o.cell: o for o in planned.comparisons if not o.answers.planned.missing}
    measured = [name for name in cells if store.is_sealed(name)]
    analysed = [name for name in analyses if store.is_sealed(name)]
    judged = [name for name, one in verdicts.items() if is_judged(store, one)]
    done = {*measured, *analysed, *judged}
    titles = {name: cell.title for name, cell in cells.items()}
    titles |= {name: one.title for name, one in analyses.items()}
    titles |= {name: one.title for name, one in verdicts.items()}
    return Left(
        todo=[c for name, c in cells.items() if name not in done and not c.planned.missing],
        to_analyse=[one for name, one in analyses.items() if name not in done],
        to_judge=[one for name, one in verdicts.items() if name not in done],
        done=(*measured, *analysed, *judged),
        titles=titles,
        n=len(cells) + len(analyses) + len(verdicts),
    )


def _in_turn(cells: Sequence[PlannedCell]) -> list[list[PlannedCell]]:
    """Those that stand alone before those that need the answers of others."""
    alone = [cell for cell in cells if cell.work == "answers"]
    later = [cell for cell in cells if cell.work != "answers"]
    return [some for some in (alone, later) if some]


class PlannedRun(NamedTuple):
    """What a run sets out to measure."""

    checkpoints: list[Checkpoint]
    cells: list[PlannedCell]
    comparisons: list[PlannedComparison]
    beside: Beside
    references: References


def plan_run(
    root: Path | Sequence[Path],
    *,
    tasks: Sequence[str],
    settings: Settings,
    judging: Judging,
    mirrors: Sequence[Path],
    task_folders: Sequence[Path],
    final_only: bool,
) -> PlannedRun:
    """Finds checkpoints, tasks, data and judges; measures nothing and asks nobody."""
    planned = plan_tasks(tasks, limit=settings.limit, mirrors=mirrors, folders=task_folders)
    judges = plan_judges([one.task for one in planned], judging, mirror_places(mirrors))
    checkpoints = find(root, settings, final_only=final_only)
    cells = plan_cells(checkpoints, planned, settings)
    comparisons = plan_comparisons(cells, checkpoints, judges, judging)
    references: References = {}
    if any(one.task.recipe.measure in BESIDE for one in planned):
        references = find_references(
            find(root, settings, final_only=False) if final_only else checkpoints,
            wanted=settings.reference,
            allow_pickle=settings.allow_pickle,
            allow_remote_code=settings.trust_remote_code,
        )
    beside = plan_beside(cells, planned, checkpoints, references, settings, judges)
    return PlannedRun(checkpoints, cells, comparisons, beside, references)


def write_plan(store: Store, planned: PlannedRun) -> str:
    """Keeps what the run sets out to measure, under a name that the same run gets again."""
    gradients = [cell for cell in planned.beside.later if cell.work == "gradients"]
    plan: dict[str, Any] = {
        "checkpoints": [dataclasses.asdict(checkpoint) for checkpoint in planned.checkpoints],
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
            for cell in [*planned.cells, *gradients]
            # The numbers of others are those of their comparisons and analyses.
            if cell.task.recipe.measure in ("answers", "gradients")
        ],
        "comparisons": [told(one) for one in planned.comparisons],
    }
    if planned.beside.analyses:
        plan["analyses"] = [told_analysis(one) for one in planned.beside.analyses]
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
    if wanted:
        listener.on_step("fetched", len(wanted), len(wanted))
    if lost:
        raise missing_data(lost)
