"""Tasks and suites: lm-eval YAML with our recipe in `metadata.prefbench`, read without lm-eval."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from prefbench import plain_yaml
from prefbench.data import Source
from prefbench.errors import DataError, TaskError
from prefbench.objectives import OBJECTIVES
from prefbench.sweeps import refusal, suffix, sweep, sweep_refusal

Fewshot = Literal["fixed", "parity"]
Temperature = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
M = TypeVar("M", bound=BaseModel)


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Measure = Literal["answers", "comparison", "margins", "gradients", "divergence", "ranking"]
OF_PAIRS = ("margins", "gradients", "ranking")
"""Measures of texts that the data have, which a checkpoint scores."""
BESIDE = ("margins", "gradients", "divergence")
"""Measures of a checkpoint beside what it was tuned from."""
OF_TEXTS = ("comparison", "divergence")
"""Measures of texts that a checkpoint generates."""
BELONGS = {
    "beta": "margins",
    "objective": "gradients",
    "parameters": "gradients",
    "sample": "gradients",
    "heat_maps": "gradients",
    "untrained": "gradients",
}

Names = Annotated[tuple[str, ...], BeforeValidator(_several)]
"""One name, or a list of them."""


class Recipe(BaseModel):
    """What is measured once a checkpoint has answered; unknown keys are refused.

    `metrics` are the columns a table shows first. `pairs` marks documents with chosen and rejected
    texts. `fewshot_fallback` names the split that examples come from where a mirror lacks the
    few-shot split. `supplied` says how a user gets data that the hub does not have. `temperatures`
    make several tasks of one. A `comparison` has its answers judged against each `opponent`: the
    data's `reference`, a checkpoint by name or method, or all others in a `round_robin`.

    `margins` are what tuning did to the log-probs of pairs beside the reference's, with rewards at
    `beta`; `gradients` are those of `sample` pairs, drawn by a seed, in which `parameters` count
    and a step of `objective` (None: the checkpoint's own) is tried, with cosines token by token of
    the first `heat_maps` pairs, and with an `untrained` model of the same shape beside it;
    `divergence` is that of a checkpoint's own samples from its reference; `ranking` that of several
    candidates, by their rewards or a judge's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    measure: Measure = "answers"
    judge: Names = ()
    opponent: Names = ()
    pairs: bool = False
    metrics: tuple[str, ...] = ()
    fewshot_fallback: str | None = None
    supplied: str | None = None
    temperatures: tuple[Temperature, ...] = ()
    beta: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    objective: str | None = None
    parameters: Literal["all", "lora", "last_layer"] = "all"
    sample: int | None = Field(default=None, ge=1)
    heat_maps: int = Field(default=0, ge=0)
    untrained: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_pairs(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("measure") in OF_PAIRS:
            return {"pairs": True, **given}
        return given

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.measure in OF_TEXTS and self.pairs:
            raise ValueError(f"a {self.measure} needs texts that are generated; leave pairs out")
        if self.measure in OF_PAIRS and not self.pairs:
            raise ValueError(f"{self.measure} are measured on pairs; leave out `pairs: false`")
        if self.measure == "comparison" and not (self.judge and self.opponent):
            raise ValueError("a comparison names its judge and its opponent")
        if self.judge and self.measure not in ("comparison", "ranking"):
            raise ValueError("a judge belongs to measure: comparison or ranking")
        if len(self.judge) > 1 and self.measure == "ranking":
            raise ValueError("a ranking has one judge")
        if self.opponent and self.measure != "comparison":
            raise ValueError("an opponent belongs to measure: comparison")
        for name, measure in BELONGS.items():
            if name in self.model_fields_set and self.measure != measure:
                raise ValueError(f"{name} belongs to measure: {measure}")
        if self.objective is not None and self.objective not in OBJECTIVES:
            raise ValueError(f"objective is one of {', '.join(OBJECTIVES)}")
        return self

    @field_validator("temperatures")
    @classmethod
    def _differ(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        names = [suffix(one) for one in temperatures]
        for one, name in zip(temperatures, names, strict=True):
            if names.count(name) > 1:
                raise ValueError(f"{one:g} is there twice")
        return temperatures


class SuiteRecipe(BaseModel):
    """What a suite sets for its tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int | None = None


@dataclass(frozen=True)
class Function:
    """A `!function module.name` of a YAML file, not yet imported."""

    name: str
    folder: Path

    def resolve(self) -> Any:
        """The function itself, from a file beside the YAML or from an importable module."""
        from lm_eval.tasks._yaml_loader import _import_func_in_yml

        try:
            return _import_func_in_yml(self.name, self.folder)
        except (ImportError, AttributeError, ValueError, SyntaxError, NameError) as error:
            raise TaskError(f"{self.folder}: !function {self.name}: {error}") from error

    @property
    def source(self) -> str:
        """What it is, for the task's hash: its name, and the content of its file and of those of
        ours that it builds on.
        """
        module = self.name.rpartition(".")[0].replace(".", "/") + ".py"
        places = [self.folder]
        if module.startswith("prefbench/"):
            places.append(Path(__file__).parents[1])
        for place in places:
            if (place / module).is_file():
                content = (place / module).read_bytes()
                below = b"".join(file.read_bytes() for file in _builds_on(content))
                return f"{self.name}:{hashlib.sha256(content + below).hexdigest()}"
        return self.name


BUILDS_ON = re.compile(rb"^from prefbench\.(\w*documents) import ", re.MULTILINE)


def _builds_on(content: bytes) -> list[Path]:
    """Files of ours whose functions a file of functions takes over."""
    found = BUILDS_ON.findall(content)
    return [Path(__file__).parent / f"{os.fsdecode(name)}.py" for name in sorted(set(found))]


@dataclass(frozen=True)
class Task:
    """An lm-eval task and our recipe for it; `config` is the YAML with its includes resolved.

    `sweep` names the task of the YAML where this one is it at one temperature of several.
    """

    name: str
    config: Mapping[str, Any]
    recipe: Recipe
    file: Path
    sweep: str = ""

    @property
    def n_shots(self) -> int:
        return int(self.config.get("num_fewshot") or 0)

    @property
    def kind(self) -> str:
        """lm-eval's output type."""
        return str(self.config["output_type"])

    @property
    def n_texts(self) -> int:
        """Texts that are generated for an item: lm-eval's `repeats`."""
        return int(self.config.get("repeats") or 1)

    @property
    def eval_split(self) -> str:
        split = self.config.get("test_split") or self.config.get("validation_split")
        if not split:
            raise TaskError(f"{self.file}: neither test_split nor validation_split is set")
        return str(split)

    @property
    def shot_split(self) -> str | None:
        """The split that examples are drawn from; none without examples."""
        if not self.n_shots:
            return None
        split = self.config.get("fewshot_split") or self.config.get("training_split")
        return str(split) if split else self.eval_split

    @property
    def definition(self) -> str:
        """Hash of everything that the YAML says and of lm-eval's version, which carries it out.

        Of pairs, and of texts that are measured once they are generated, only what the answers
        depend on: tasks that ask the same share them.
        """
        config = dict(self.config)
        what: list[Any] = [config, importlib.metadata.version("lm_eval")]
        if self.recipe.pairs or self.recipe.measure in OF_TEXTS:
            for name in ("task", "metadata", "metric_list"):
                config.pop(name, None)
            what.append("with tokens")
        text = json.dumps(what, sort_keys=True, default=lambda f: f.source)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Suite:
    """Tasks that are run together."""

    name: str
    tasks: tuple[str, ...]
    recipe: SuiteRecipe = field(default_factory=SuiteRecipe)
    title: str = ""


def tasks_folder() -> Path:
    """The shipped tasks: of the checkout this file stands in, else of the installed package.

    Raises:
        TaskError: neither is there.
    """
    return shipped_folder("tasks")


def shipped_folder(name: str) -> Path:
    """A folder that stands at the top of a checkout and inside an installed package."""
    package = Path(__file__).parent
    for folder in (package / "_shipped" / name, package.parent / name):
        if folder.is_dir() and any(folder.iterdir()):
            return folder
    raise TaskError(f"{package}: the shipped {name}/ are missing; install prefbench again")


def load_index(folders: Sequence[Path]) -> tuple[dict[str, Task], dict[str, Suite]]:
    """All tasks and suites of some folders; a later folder's task replaces one of the same name.

    Raises:
        TaskError: a YAML file that cannot be read, has unknown keys in our block, names no task, or
            asks for texts that cannot be drawn so.
    """
    found: dict[str, list[Task]] = {}
    suites: dict[str, Suite] = {}
    for folder in folders:
        if not folder.is_dir():
            raise TaskError(f"{folder}: no such tasks folder")
        for file in sorted(folder.rglob("*.yaml")):
            if file.name.startswith("_"):
                continue
            config = _read_yaml(file)
            if "group" in config:
                suites[str(config["group"])] = _suite(config, file)
            else:
                several = _tasks(config, file)
                found[config["task"]] = several
    return {task.name: task for several in found.values() for task in several}, suites


def load_tasks(names: Sequence[str], folders: Sequence[Path]) -> list[tuple[Task, int | None]]:
    """Tasks by name, by sweep or by suite, each with the limit that its suite sets.

    Raises:
        TaskError: a name that is none of these, with the nearest names.
    """
    tasks, suites = load_index(folders)
    wanted: dict[str, int | None] = {}
    for name in names:
        if name in suites:
            for member in suites[name].tasks:
                for meant in _meant(member, tasks, suites):
                    wanted.setdefault(meant, suites[name].recipe.limit)
        else:
            wanted.update(dict.fromkeys(_meant(name, tasks, suites)))
    return [(tasks[name], limit) for name, limit in wanted.items()]


def splits_of(task: Task, source: Source) -> list[str]:
    """The splits that the task reads from this source, the scored one first."""
    shots = shot_split(task, source)
    return [task.eval_split] + ([shots] if shots and shots != task.eval_split else [])


def shot_split(task: Task, source: Source) -> str | None:
    """The split that examples come from here: the task's, or its stated fallback.

    Raises:
        DataError: the mirror has neither.
    """
    wanted = task.shot_split
    if wanted is None or source.has(wanted):
        return wanted
    fallback = task.recipe.fewshot_fallback
    if fallback and source.has(fallback):
        return fallback
    raise DataError(
        f"{source.title}: the mirror has no {wanted} split, which the {task.n_shots} examples of "
        f"{task.name} come from"
    )


def _meant(name: str, tasks: Mapping[str, Task], suites: Mapping[str, Suite]) -> list[str]:
    """The task of a name, or those of a sweep."""
    swept = [task.name for task in tasks.values() if task.sweep == name]
    if name in tasks or swept:
        return [name] if name in tasks else swept
    import difflib

    known = dict.fromkeys([*tasks, *(t.sweep for t in tasks.values() if t.sweep), *suites])
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise TaskError(f"no task or suite is named {name!r}; {hint}`prefbench tasks` lists them")


def _tasks(config: dict[str, Any], file: Path) -> list[Task]:
    """The task of a YAML file, or one for each of its temperatures."""
    if not isinstance(config.get("task"), str):
        raise TaskError(f"{file}: no `task:` name (a file to include begins with an underscore)")
    if "output_type" not in config or "dataset_path" not in config:
        raise TaskError(f"{file}: a task needs output_type and dataset_path")
    _check_values(config, file)
    recipe = _checked(Recipe, config, file)
    if not recipe.temperatures:
        return [_task(config, recipe, file)]
    if reason := sweep_refusal(config):
        raise TaskError(f"{file}: metadata.prefbench.temperatures: {reason}")
    one = recipe.model_copy(update={"temperatures": ()})
    return [
        dataclasses.replace(_task(each, one, file), sweep=config["task"])
        for each in sweep(config, recipe.temperatures)
    ]


def _check_values(config: Mapping[Any, Any], file: Path) -> None:
    """That a task can be identified by what its YAML says, and has a kind and a number of shots."""
    for key, value in config.items():
        if not isinstance(key, str):
            raise TaskError(f"{file}: the key {key!r:.40} is no text; put it in quotes")
        try:
            json.dumps(value, sort_keys=True, default=_name_of)
        except TypeError as error:
            raise TaskError(f"{file}: {key}: {error}; put dates, and keys, in quotes") from error
    if not isinstance(config["output_type"], str):
        raise TaskError(f"{file}: output_type: is a name, not {config['output_type']!r:.40}")
    shots = config.get("num_fewshot")
    if shots is not None and (type(shots) is not int or shots < 0):
        raise TaskError(f"{file}: num_fewshot: is a whole number from 0 on, not {shots!r:.40}")


def _name_of(value: Any) -> str:
    if isinstance(value, Function):
        return value.name
    raise TypeError(f"a {type(value).__name__} is no text, number, list or mapping")


def _task(config: dict[str, Any], recipe: Recipe, file: Path) -> Task:
    if reason := refusal(config):
        raise TaskError(f"{file}: {reason}")
    if recipe.measure in OF_TEXTS and config["output_type"] != "generate_until":
        raise TaskError(f"{file}: a {recipe.measure} has output_type: generate_until")
    if recipe.measure == "divergence" and (reason := _not_its_own(config)):
        raise TaskError(f"{file}: generation_kwargs: {reason}")
    return Task(config["task"], config, recipe, file)


def _not_its_own(config: Mapping[str, Any]) -> str | None:
    """Why texts that are generated so are no samples of the checkpoint's own distribution."""
    settings = config.get("generation_kwargs") or {}
    own = {"do_sample": True, "temperature": 1, "top_p": 1, "top_k": 0}
    given = {"do_sample": False, "temperature": 0, "top_p": 1, "top_k": 0, **settings}
    wrong = [f"{name}: {own[name]}" for name in own if given[name] != own[name]]
    return f"a divergence is that of plain samples; set {', '.join(wrong)}" if wrong else None


def _suite(config: dict[str, Any], file: Path) -> Suite:
    members = config.get("task") or []
    members = [members] if isinstance(members, str) else members
    if not isinstance(members, list) or not all(isinstance(name, str) for name in members):
        raise TaskError(f"{file}: task: a suite lists its tasks by name")
    recipe = _checked(SuiteRecipe, config, file)
    return Suite(str(config["group"]), tuple(members), recipe, str(config.get("group_alias", "")))


def _checked(kind: type[M], config: Mapping[str, Any], file: Path) -> M:
    """Our block of a YAML file."""
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise TaskError(f"{file}: metadata: is not a mapping of keys to values")
    try:
        return kind.model_validate(metadata.get("prefbench") or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("metadata.prefbench", *first["loc"]))
        raise TaskError(f"{file}: {where}: {first['msg']}") from error


def _read_yaml(file: Path, seen: frozenset[Path] = frozenset()) -> dict[str, Any]:
    """A YAML file with its `include:` files below it, as lm-eval reads it."""
    file = file.resolve()
    if file in seen:
        raise TaskError(f"{file}: includes itself")

    class Loader(plain_yaml.Loader):
        pass

    def function(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Function:
        return Function(str(loader.construct_scalar(node)), file.parent)

    Loader.add_constructor("!function", function)
    try:
        config = plain_yaml.load(file.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{file}: cannot be read as YAML: {error}") from error
    if not isinstance(config, dict):
        raise TaskError(f"{file}: is not a mapping of keys to values")
    merged: dict[str, Any] = {}
    includes = config.pop("include", [])
    includes = [includes] if isinstance(includes, str) else includes
    if not isinstance(includes, list) or not all(isinstance(name, str) for name in includes):
        raise TaskError(f"{file}: include: is the name of a file, or a list of them")
    for name in includes:
        if (file.parent / name).is_dir():
            raise TaskError(f"{file}: include: {name!r} is a folder, not a file")
        merged.update(_read_yaml(file.parent / name, seen | {file}))
    merged.update(config)
    return merged
