"""Where the data of tasks would come from: a mirror, the hub's cache, the hub, or nowhere yet."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefbench.cells import PlannedTask, plan_tasks
from prefbench.data import is_offline
from prefbench.doctor.findings import Finding, State, joined
from prefbench.doctor.questions import Reply
from prefbench.errors import DataError
from prefbench.tasks import Task, load_tasks, splits_of, tasks_folder

FLAGS = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
HUB = "https://huggingface.co"
USE_MIRROR = "export PREFBENCH_MIRROR=data/   # or: prefbench run RUNS --mirror data/"


@dataclass(frozen=True)
class Asked:
    """Suites and tasks that were asked for by name, and where to look for their data."""

    suites: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    mirrors: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()

    @property
    def by_name(self) -> bool:
        return bool(self.suites or self.tasks)

    @property
    def names(self) -> list[str]:
        return [*self.suites, *self.tasks] or ["paper"]

    @property
    def mirror_command(self) -> str:
        """What copies the data of the same tasks."""
        words = ["prefbench", "mirror", "data/"]
        for suite in self.suites if self.by_name else ("paper",):
            words += ["--suite", suite]
        for task in self.tasks:
            words += ["--task", task]
        for folder in self.folders:
            words += ["--task-folder", str(folder)]
        return shlex.join(words)


@dataclass(frozen=True)
class Wanted:
    """A task and where a run would look for its data, or why it would not run."""

    task: Task
    planned: PlannedTask | None
    problem: str | None = None

    @property
    def supplied(self) -> bool:
        """Whether only the user can have these data, and has not said where."""
        return bool(self.planned and self.planned.missing)


def find_wanted(asked: Asked) -> list[Wanted]:
    """The tasks with what a run would find.

    Raises:
        TaskError: an unknown name, or a task file that cannot be read.
    """
    try:
        planned = plan_tasks(asked.names, mirrors=asked.mirrors, folders=asked.folders)
    except DataError:  # of some; each by itself tells which
        tasks = load_tasks(asked.names, [tasks_folder(), *asked.folders])
        return [_wanted(task, asked) for task, _ in tasks]
    return [Wanted(one.task, one, one.missing) for one in planned]


def _wanted(task: Task, asked: Asked) -> Wanted:
    try:
        [planned] = plan_tasks([task.name], mirrors=asked.mirrors, folders=asked.folders)
    except DataError as error:
        # The reason stands between a headline and advice.
        reason = (str(error).splitlines()[1:] or [str(error)])[0].strip()
        return Wanted(task, None, reason.removesuffix(f" (for {task.name})"))
    return Wanted(task, planned, planned.missing)


def to_read(wanted: Sequence[Wanted]) -> str:
    """What the attempt to read the data is told."""
    asked = []
    for one in wanted:
        if one.planned and (source := one.planned.source):
            fields = {key.name: getattr(source, key.name) for key in dataclasses.fields(source)}
            fields["files"] = {split: str(file) for split, file in source.files.items()}
            asked.append((one.task.name, fields, splits_of(one.task, source)))
    return json.dumps(asked)


def data_findings(
    asked: Asked, wanted: Sequence[Wanted], told: Mapping[str, Any] | None, hub: Reply | None
) -> list[Finding]:
    """The hub, then what is here, what is not, and what only the user can have.

    Args:
        asked: what was asked for.
        wanted: its tasks.
        told: what the attempt to read the data told; None if there was none.
        hub: what the hub answered; None when it was not asked.
    """
    findings = []
    lacking = False
    for one in sorted(wanted, key=lambda one: one.supplied):
        read = None
        if told is not None:
            failed = {"error": f"reading the data failed: {told.get('error')}"}
            read = told["tasks"].get(one.task.name) if "tasks" in told else failed
        state, detail, fix = _judged(one, asked, read, hub)
        lacking = lacking or (state != "ok" and not one.supplied)
        needed = one.task.name in asked.tasks or (asked.by_name and not one.supplied)
        facts = {"dataset": one.task.config["dataset_path"], **(read or {})}
        findings.append(Finding("data", one.task.name, state, detail, fix, needed, facts))
    findings.sort(key=lambda one: one.state != "ok")
    return [_hub_finding(hub, all_here=not lacking), *findings]


def _judged(
    one: Wanted, asked: Asked, read: Mapping[str, Any] | None, hub: Reply | None
) -> tuple[State, str, str | None]:
    away = "" if answers(hub) else "   # where there is a network"
    copy = f"{asked.mirror_command}{away}\n{USE_MIRROR}"
    if one.supplied:
        return "missing", str(one.problem), "export PREFBENCH_MIRROR=DIR   # that mirror"
    if one.problem or not one.planned or not one.planned.source:
        return "broken", str(one.problem), copy
    source = one.planned.source
    problem = (read or {}).get("error")
    if source.files:
        if problem:
            return "broken", problem, copy
        splits = splits_of(one.task, source)
        folders = sorted({str(source.files[split].parent) for split in splits})
        rows = (read or {}).get("rows") or dict.fromkeys(splits)
        return "ok", f"{source.title}, {_counted(rows)} in {joined(folders)}", None
    if read and not problem:
        return "ok", f"{source.title}, {_counted(read['rows'])} in the hub's cache", None
    if read is None:
        return "unknown", f"{source.title}: in no mirror; the hub's cache was not looked at", None
    absent = f"{source.title}: in no mirror and not in the hub's cache"
    if answers(hub):
        return "unknown", f"{absent}; a run fetches it from the hub", copy
    return "missing", absent, copy


def _counted(rows: Mapping[str, int | None]) -> str:
    """Splits with their rows, where they were read."""
    return joined([split if n is None else f"{split} ({n:,})" for split, n in rows.items()])


def answers(hub: Reply | None) -> bool:
    """Whether the hub can be had; an error may be a proxy's."""
    return hub is not None and hub.status is not None and hub.status < 400


def hub_address() -> str:
    """Where the hub is, as huggingface_hub reads it."""
    return os.environ.get("HF_ENDPOINT") or HUB


def _hub_finding(hub: Reply | None, *, all_here: bool) -> Finding:
    def found(state: State, detail: str, fix: str | None = None) -> Finding:
        return Finding("data", "hub", state, detail, fix)

    if is_offline():
        flags = [f"{name}={os.environ[name]}" for name in FLAGS if os.environ.get(name)]
        detail = f"{', '.join(flags)}: not asked; mirrors and the hub's cache must have all data"
        names = " ".join(flag.partition("=")[0] for flag in flags)
        return found("unused", detail, None if all_here else f"unset {names}")
    if hub is None:
        return found("unknown", "not asked")
    if answers(hub):
        return found("ok", f"{hub.address} answers")
    detail = f"{hub.address}: {hub.problem or f'HTTP {hub.status}'}"
    fix = "export HF_HUB_OFFLINE=1   # spares the waiting for it"
    if all_here:
        return found("unused", f"{detail}; not needed: what the hub has is here", fix)
    return found("missing", f"{detail}; mirrors and the hub's cache must have all data", fix)
