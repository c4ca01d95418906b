"""What a run sets out to measure: cells, each a checkpoint × a task with all that identifies it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prefbench import data
from prefbench.addresses import unusable
from prefbench.checkpoints import find_checkpoints, tokenizer_folder
from prefbench.engines import ENGINES, SERVER_DTYPE
from prefbench.engines.adapters import beyond_lora
from prefbench.engines.builds import installed
from prefbench.engines.swapping import likeness
from prefbench.errors import CheckpointError, DataError, InputError
from prefbench.records import Checkpoint
from prefbench.tasks import Fewshot, Task, load_tasks, shot_split, splits_of, tasks_folder

ChatTemplate = Literal["auto", "on", "off"]
ServerApi = Literal["completions", "chat"]
Work = Literal["answers", "gradients", "scores"]
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Settings:
    """What a run is told besides its checkpoints and tasks.

    What identifies a cell is taken from it; the rest says where and how fast the work is done.
    """

    limit: int | None = None
    fewshot: Fewshot = "fixed"
    chat_template: ChatTemplate = "auto"
    engine: str = "auto"
    """`auto` generates by vLLM where it is installed, and does all else by hf."""
    dtype: str = "auto"
    max_length: int | None = None
    device: str = "auto"
    batch_size: int | None = None
    """Items that are answered, and kept, at once; None leaves it to the engine."""
    trust_remote_code: bool = False
    allow_pickle: bool = False
    tensor_parallel_size: int = 1
    """GPUs that vLLM spreads one checkpoint over."""
    data_parallel_size: int = 1
    """Engines that measure at the same time, each on GPUs of its own."""
    gpu_memory_utilization: float = 0.9
    engine_timeout: float = 900.0
    """Seconds without progress after which vLLM counts as hung."""
    base_url: str | None = None
    """Of the OpenAI-compatible endpoint that the engine `server` asks."""
    served_model: str | None = None
    """The name it serves the checkpoint under; None is the one that is the checkpoint's."""
    server_api: ServerApi = "completions"
    api_key_env: str | None = None
    """The environment variable that holds the endpoint's key."""
    concurrency: int = 32
    """Requests to the endpoint under way at once."""
    twice: tuple[str, ...] = ()
    """Rows, or methods, that are measured a second time, in other batches and with other seeds: by
    what the two times differ, the engine and the draws do."""
    reference: str | None = None
    """A row, a method or a directory: what all others count as tuned from; else what each was."""

    def __post_init__(self) -> None:
        counts = (
            "limit",
            "max_length",
            "batch_size",
            "tensor_parallel_size",
            "data_parallel_size",
            "concurrency",
        )
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise InputError(
                f"gpu_memory_utilization is a share above 0, not {self.gpu_memory_utilization}"
            )
        if self.engine_timeout <= 0:
            raise InputError(f"engine_timeout must be above 0 seconds, not {self.engine_timeout}")
        engines = ("auto", *ENGINES)
        if self.engine not in engines:
            raise InputError(f"engine is one of {', '.join(engines)}, not {self.engine!r}")
        if self.engine == "server" and not self.base_url:
            raise InputError("the engine server needs a base_url, e.g. http://127.0.0.1:8000/v1")
        if self.base_url and (why := unusable(self.base_url)):
            raise InputError(f"base_url {why}")


@dataclass(frozen=True)
class PlannedTask:
    """A task with its limit and its data, or the reason why it cannot be asked here."""

    task: Task
    limit: int | None
    source: data.Source | None = None
    data: str | None = None
    shots: str | None = None
    missing: str | None = None


@dataclass(frozen=True)
class PlannedCell:
    """One checkpoint × one task, and all that identifies the result."""

    cell: str
    checkpoint: Checkpoint
    planned: PlannedTask
    identity: Mapping[str, Any]
    work: Work = "answers"
    """`answers`; `gradients` of pairs; or `scores`: log-probs of texts that another cell has."""
    beside: PlannedCell | None = None
    """The cell whose answers that work needs: the reference's of the same pairs, or the texts."""

    @property
    def task(self) -> Task:
        return self.planned.task

    @property
    def repeat(self) -> int:
        """How many times it is measured before."""
        return int(self.identity.get("repeat", 0))

    @property
    def title(self) -> str:
        more = {"answers": "", "gradients": ": gradients", "scores": ": samples scored"}
        again = " again" if self.repeat else ""
        return f"{self.checkpoint.name} × {self.task.name}{more[self.work]}{again}"


def plan_tasks(
    names: Sequence[str],
    *,
    limit: int | None = None,
    mirrors: Sequence[Path] = (),
    folders: Sequence[Path] = (),
) -> list[PlannedTask]:
    """Tasks and suites by name, each with where its data come from; loads no model.

    Args:
        names: of tasks and suites.
        limit: first n items of each task; a suite's own limit stays where it is lower.
        mirrors: local directories with data sets; PREFBENCH_MIRROR comes after them.
        folders: of further task YAML files.

    Raises:
        TaskError: an unknown name, or a task file that cannot be read.
        DataError: names every set that is missing, at once.
    """
    places = mirror_places(mirrors)
    planned, lost = [], []
    for task, suite_limit in load_tasks(names, [tasks_folder(), *folders]):
        limits = [n for n in (limit, suite_limit) if n is not None]
        try:
            planned.append(_plan_task(task, min(limits, default=None), places))
        except DataError as error:
            lost.append(f"{error} (for {task.name})")
    if lost:
        raise missing_data(lost)
    return planned


def mirror_places(mirrors: Sequence[Path]) -> list[Path]:
    """The mirrors that a user names, then those of PREFBENCH_MIRROR."""
    environment = os.environ.get("PREFBENCH_MIRROR", "").split(os.pathsep)
    return [*mirrors, *(Path(place) for place in environment if place)]


def missing_data(lost: Sequence[str]) -> DataError:
    """One error for all data sets that are missing, with what to do."""
    return DataError(
        "data are missing:\n  "
        + "\n  ".join(dict.fromkeys(lost))
        + "\npass --mirror DIR or set PREFBENCH_MIRROR; `prefbench mirror DIR` writes a mirror "
        "where there is a network; HF_HUB_OFFLINE=1 uses what the hub's cache has"
    )


def _plan_task(task: Task, limit: int | None, places: Sequence[Path]) -> PlannedTask:
    source = data.find_source(task.config, places, task.file.parent)
    if not source.files and not source.revision:
        if task.recipe.supplied:
            return PlannedTask(task, limit, missing=task.recipe.supplied)
        raise DataError(f"{source.title}: in no mirror, and the task pins no revision on the hub")
    if not source.has(task.eval_split):
        raise DataError(f"{source.title}: the mirror lacks the {task.eval_split} split")
    identity = data.identity(source, splits_of(task, source))
    return PlannedTask(task, limit, source, identity, shot_split(task, source))


def plan_cells(
    checkpoints: Sequence[Checkpoint], tasks: Sequence[PlannedTask], settings: Settings
) -> list[PlannedCell]:
    """The cells of all ready checkpoints, checkpoint by checkpoint; gradients are not among them.

    Raises:
        InputError: a checkpoint that is to be measured twice is not there.
    """
    for wanted in settings.twice:
        if not any(_is_meant(checkpoint, wanted) for checkpoint in checkpoints):
            raise InputError(f"--twice {wanted}: no checkpoint has this name or method")
    return [
        plan_cell(checkpoint, planned, settings, repeat=repeat)
        for checkpoint in checkpoints
        if checkpoint.state == "ready"
        for planned in tasks
        if planned.task.recipe.measure != "gradients"
        for repeat in _repeats(checkpoint, planned.task, settings)
    ]


def _repeats(checkpoint: Checkpoint, task: Task, settings: Settings) -> range:
    """Once, or twice; what others are worked out from, and judges paid for, once."""
    again = task.recipe.measure == "answers" and any(
        _is_meant(checkpoint, wanted) for wanted in settings.twice
    )
    return range(2 if again else 1)


def _is_meant(checkpoint: Checkpoint, wanted: str) -> bool:
    return wanted == checkpoint.name or wanted.lower() == checkpoint.method


def plan_cell(
    checkpoint: Checkpoint,
    planned: PlannedTask,
    settings: Settings,
    *,
    repeat: int = 0,
    like: PlannedCell | None = None,
    engine: str | None = None,
    sample: int | None = None,
) -> PlannedCell:
    """One checkpoint on one task.

    Args:
        checkpoint: that is asked.
        planned: the task.
        settings: of the run.
        repeat: how many times it is measured before.
        like: another checkpoint's cell, whose chat template decides about this one's.
        engine: instead of that of the settings.
        sample: so many items, drawn by a fixed seed; None for all.
    """
    kind = engine or _engine_for(planned.task, settings.engine)
    dtype = checkpoint.dtype or "float32" if settings.dtype == "auto" else settings.dtype
    if kind == "server":
        dtype = SERVER_DTYPE
    identity: dict[str, Any] = {
        "checkpoint": checkpoint.fingerprint,
        "task": planned.task.definition,
        "data": planned.data,
        "shots": planned.shots,
        "limit": planned.limit,
        "fewshot": settings.fewshot if planned.task.n_shots else None,
        "chat": like.identity["chat"] if like else _uses_chat(checkpoint, settings.chat_template),
        "engine": kind,
        "dtype": dtype,
        "max_length": settings.max_length,
    }
    if kind == "server":
        identity["server"] = [settings.server_api, settings.served_model]
    if repeat:
        identity["repeat"] = repeat
    if sample is not None:
        identity["sample"] = sample
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return PlannedCell(digest[:24], checkpoint, planned, identity)


def _engine_for(task: Task, asked: str) -> str:
    """What `auto` stands for: vLLM generates faster, hf scores faster, and each is exact."""
    if asked != "auto":
        return asked
    return "vllm" if task.kind == "generate_until" and installed() else "hf"


def once(cells: Sequence[PlannedCell]) -> dict[str, PlannedCell]:
    """Each cell under its name, as the first that asks for it: several tasks may ask the same."""
    found: dict[str, PlannedCell] = {}
    for cell in cells:
        found.setdefault(cell.cell, cell)
    return found


class Unit(NamedTuple):
    """Cells of one task that are measured together, and the group whose engines are open then."""

    group: tuple[str, ...]
    cells: tuple[PlannedCell, ...]


def in_units(cells: Sequence[PlannedCell]) -> list[Unit]:
    """Cells in the order in which engines are best opened, in groups that are open together.

    One engine kind after the other, since two would share a GPU's memory; checkpoints whose
    weights can take each other's place one after the other. vLLM has the adapters of one base open
    together, and asks them the same task at once; any other group is a checkpoint's cells, also
    that of an adapter which is left to another engine, beside which a GPU has no room for vLLM.
    """
    groups: dict[tuple[str, ...], list[PlannedCell]] = {}
    alike: dict[str, str] = {}
    for cell in cells:
        kind, checkpoint = str(cell.identity["engine"]), cell.checkpoint
        if kind == "vllm" and checkpoint.adapter and _is_plain_lora(checkpoint):
            key = (kind, f"adapters of {checkpoint.base}", str(cell.identity["dtype"]))
        else:
            if kind == "vllm" and checkpoint.fingerprint not in alike:
                alike[checkpoint.fingerprint] = likeness(checkpoint.path)
            key = (kind, alike.get(checkpoint.fingerprint, ""), checkpoint.fingerprint)
        groups.setdefault(key, []).append(cell)
    kinds = list(dict.fromkeys(kind for kind, *_ in groups))
    families = list(dict.fromkeys(key[:2] for key in groups))
    ordered = sorted(groups, key=lambda key: (kinds.index(key[0]), families.index(key[:2])))
    return [Unit(key, alike) for key in ordered for alike in _by_task(groups[key])]


def _is_plain_lora(checkpoint: Checkpoint) -> bool:
    try:
        return beyond_lora(checkpoint.path) is None
    except (CheckpointError, OSError):  # opening it will say so
        return False


def _by_task(cells: Sequence[PlannedCell]) -> list[tuple[PlannedCell, ...]]:
    """Cells of one task together, tasks in the order in which they came; repeats apart."""
    tasks: dict[tuple[str, int, str], list[PlannedCell]] = {}
    for cell in cells:
        beside = cell.work if cell.work == "answers" else cell.cell  # each by itself
        tasks.setdefault((cell.task.name, cell.repeat, beside), []).append(cell)
    return [tuple(alike) for alike in tasks.values()]


def find(root: Path | Sequence[Path], settings: Settings, *, final_only: bool) -> list[Checkpoint]:
    """The checkpoints under one directory or several.

    Raises:
        InputError: there are none.
    """
    roots = [root] if isinstance(root, Path) else list(root)
    found = []
    for one in roots:
        for checkpoint in find_checkpoints(
            one,
            allow_pickle=settings.allow_pickle,
            allow_remote_code=settings.trust_remote_code,
        ):
            name = checkpoint.name if len(roots) == 1 else f"{one.name}/{checkpoint.name}"
            found.append(dataclasses.replace(checkpoint, name=name))
    if not found:
        where = ", ".join(map(str, roots))
        raise InputError(f"{where}: no checkpoints found; a checkpoint has a config.json")
    return final_checkpoints(found) if final_only else found


def final_checkpoints(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Of each training run its final model, else its last `checkpoint-N`; all other ones as is."""
    runs: dict[Path, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        inside = checkpoint.path.name.startswith("checkpoint-")
        runs.setdefault(checkpoint.path.parent if inside else checkpoint.path, []).append(
            checkpoint
        )
    kept = []
    for folder, members in runs.items():
        whole = [c for c in members if c.path == folder and c.state == "ready"]
        ready = [c for c in members if c.state == "ready"] or members
        kept.append(whole[0] if whole else max(ready, key=lambda c: c.step or 0))
    return kept


def _uses_chat(checkpoint: Checkpoint, choice: ChatTemplate) -> bool:
    """Whether prompts go through the chat template; `auto` does where the tokenizer has one."""
    if choice != "auto":
        return choice == "on"
    folder = tokenizer_folder(checkpoint)
    if (folder / "chat_template.jinja").is_file():
        return True
    with contextlib.suppress(OSError, ValueError):
        facts = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return bool(facts.get("chat_template"))
    return False
