"""What is to be judged: each comparison a checkpoint's answers × an opponent × a judge."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefbench.addresses import unusable
from prefbench.cells import PlannedCell, final_checkpoints
from prefbench.errors import InputError, JudgeError, PrefbenchError
from prefbench.judges.models import find_model
from prefbench.judges.opening import PlannedJudge
from prefbench.judges.recipe import JudgeFile, JudgeRecipe, find_judge, load_judges
from prefbench.leaderboard import row_order
from prefbench.records import REFERENCE, ROUND_ROBIN, Checkpoint
from prefbench.tasks import Task

Mode = Literal["online", "batch"]


@dataclass(frozen=True)
class Judging:
    """How answers are judged, besides what tasks and judges say themselves.

    Attributes:
        judges: by name, instead of those that the tasks name.
        opponents: instead of those that the tasks name.
        folders: of further judge YAML files.
        models: asked instead of the judges' own: a model for all, or `judge=model`.
        base_url: asked instead of the judges' own endpoints.
        api_key_env: the variable with the key for `base_url`, where it needs one.
        concurrency: requests under way at once, instead of the endpoints' own.
        mode: online, or batch: files of requests are written, and files of replies read.
        max_cost: US dollars that this run may spend on judges.
        max_calls: calls that this run may make.
        stop_when_sure: ask no more about a comparison once it is decided at the confidence of 95 %.
    """

    judges: tuple[str, ...] = ()
    opponents: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    models: tuple[str, ...] = ()
    base_url: str | None = None
    api_key_env: str | None = None
    concurrency: int | None = None
    mode: Mode = "online"
    max_cost: float | None = None
    max_calls: int | None = None
    stop_when_sure: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("online", "batch"):
            raise InputError(f"the judge mode is online or batch, not {self.mode!r}")
        if self.mode == "batch" and self.stop_when_sure:
            raise InputError("a batch is asked as a whole: it cannot stop when it is sure")
        for name in ("max_cost", "max_calls", "concurrency"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a number above 0, not {value}")
        if self.base_url and (why := unusable(self.base_url)):
            raise InputError(f"the judges' base_url {why}")


@dataclass(frozen=True)
class PlannedComparison:
    """A checkpoint's answers against an opponent's, by a judge; `cell` names the result."""

    cell: str
    answers: PlannedCell
    judge: PlannedJudge
    against: str
    """How the task or the user names the opponent."""
    opponent: str
    """The opponent itself: a checkpoint's name, or `reference`."""
    opponent_answers: PlannedCell | None
    identity: Mapping[str, Any]
    missing: str | None = None
    may_stop: bool = False
    """Judged until it is sure, not to its end; no part of what it is."""

    @property
    def task(self) -> Task:
        return self.answers.task

    @property
    def checkpoint(self) -> Checkpoint:
        return self.answers.checkpoint

    @property
    def title(self) -> str:
        return f"{self.answers.title} against {self.opponent} by {self.judge.name}"


def plan_judges(
    tasks: Sequence[Task], judging: Judging, mirrors: Sequence[Path]
) -> dict[str, PlannedJudge]:
    """The judges that some tasks need, by name; each is looked for, none is opened.

    Raises:
        JudgeError: a name that no judge has, a YAML file that cannot be read, or a model for a
            judge that is not asked.
    """
    names = dict.fromkeys(name for task in tasks for name in judging.judges or task.recipe.judge)
    known = load_judges(judging.folders) if names else {}
    found = {name: find_judge(name, known) for name in names}
    _check_models(judging, found)
    return {name: _planned(one, known, judging, mirrors) for name, one in found.items()}


def _check_models(judging: Judging, judges: Mapping[str, JudgeFile]) -> None:
    """Refuses a model for a judge that is not asked: it may be a slip, and the wrong one is paid.

    Raises:
        JudgeError: names it, and who is asked.
    """
    asked = {*judges, *(member for one in judges.values() for member in one.recipe.members)}
    for text in judging.models:
        name, sign, _ = text.partition("=")
        if sign and asked and name not in asked:
            raise JudgeError(
                f"the judge model {text}: no judge here is named {name!r}; asked are "
                f"{', '.join(sorted(asked))}"
            )


def plan_judge(name: str, judging: Judging, mirrors: Sequence[Path]) -> PlannedJudge:
    """The judge of a name, as the user wants it asked; it is looked for, not opened.

    Raises:
        JudgeError: as `plan_judges`.
    """
    known = load_judges(judging.folders)
    found = find_judge(name, known)
    _check_models(judging, {name: found})
    return _planned(found, known, judging, mirrors)


def _planned(
    found: JudgeFile, known: Mapping[str, JudgeFile], judging: Judging, mirrors: Sequence[Path]
) -> PlannedJudge:
    recipe = _overridden(found.recipe, judging)
    if recipe.kind == "panel":
        members = [_planned(known[name], known, judging, mirrors) for name in recipe.members]
        missing = next((f"{one.name}: {one.missing}" for one in members if one.missing), None)
        return PlannedJudge(recipe, found.file, members=tuple(members), missing=missing)
    if recipe.kind == "openai":
        return PlannedJudge(recipe, found.file)
    try:
        return PlannedJudge(recipe, found.file, find_model(recipe, found.file.parent, mirrors))
    except PrefbenchError as error:
        return PlannedJudge(recipe, found.file, missing=str(error))


def _overridden(recipe: JudgeRecipe, judging: Judging) -> JudgeRecipe:
    """The judge as the user wants it asked."""
    changes: dict[str, Any] = {}
    model = _model_for(recipe, judging)
    if model and recipe.kind == "openai":
        changes["model"] = model
    elif model and recipe.kind != "panel":  # a directory is meant from here
        changes["model"] = str(Path(model).resolve()) if Path(model).is_dir() else model
    if recipe.endpoint is not None:
        endpoint: dict[str, Any] = {}
        if judging.base_url:
            endpoint |= {"base_url": judging.base_url, "api_key_env": judging.api_key_env}
        elif judging.api_key_env:
            endpoint["api_key_env"] = judging.api_key_env
        if judging.concurrency:
            endpoint["concurrency"] = judging.concurrency
        changes["endpoint"] = recipe.endpoint.model_copy(update=endpoint)
    return recipe.model_copy(update=changes)


def _model_for(recipe: JudgeRecipe, judging: Judging) -> str | None:
    """The model that the user names for this judge, else for all."""
    named = {}
    for text in judging.models:
        name, sign, model = text.partition("=")
        named[name if sign else ""] = model if sign else text
    return named.get(recipe.judge) or named.get("")


def plan_comparisons(
    cells: Sequence[PlannedCell],
    checkpoints: Sequence[Checkpoint],
    judges: Mapping[str, PlannedJudge],
    judging: Judging,
) -> list[PlannedComparison]:
    """Everything that is to be judged of some cells.

    Args:
        cells: all cells of the run; those of comparisons are looked at.
        checkpoints: all checkpoints of the run, among which the opponents are.
        judges: as `plan_judges` gives them.
        judging: whom the user wants instead of those that the tasks name.
    """
    planned: list[PlannedComparison] = []
    by_task: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        if cell.task.recipe.measure == "comparison":
            by_task.setdefault(cell.task.name, []).append(cell)
    for members in by_task.values():
        recipe = members[0].task.recipe
        for name in judging.judges or recipe.judge:
            for against in judging.opponents or recipe.opponent:
                planned += _against(against, members, checkpoints, judges[name])
    return [dataclasses.replace(one, may_stop=judging.stop_when_sure) for one in planned]


def _against(
    against: str,
    cells: Sequence[PlannedCell],
    checkpoints: Sequence[Checkpoint],
    judge: PlannedJudge,
) -> Iterator[PlannedComparison]:
    """The comparisons of a task's cells with one opponent."""
    if against == REFERENCE:
        for cell in cells:
            yield _comparison(cell, judge, against, None)
        return
    if against == ROUND_ROBIN:
        ordered = sorted(cells, key=lambda cell: row_order(cell.checkpoint))
        for first, second in itertools.combinations(ordered, 2):
            yield _comparison(first, judge, against, second)
        return
    opponent, missing = _opponent(against, checkpoints)
    theirs = next((c for c in cells if opponent and c.checkpoint.path == opponent.path), None)
    for cell in cells:
        yield _comparison(cell, judge, against, theirs, missing)


def _opponent(name: str, checkpoints: Sequence[Checkpoint]) -> tuple[Checkpoint | None, str | None]:
    """The checkpoint that a name or a method means, or why none is."""
    named = [c for c in checkpoints if c.name == name]
    named = named or [c for c in final_checkpoints(checkpoints) if c.method == name.lower()]
    if not named:
        return None, f"no checkpoint here is the opponent {name}; --opponent names another"
    if len(named) > 1:
        who = ", ".join(checkpoint.name for checkpoint in named)
        return None, f"the opponent {name} may be {who}; --opponent names one of them"
    if named[0].state != "ready":
        why = named[0].reason or named[0].state
        return None, f"the opponent {named[0].name} cannot be asked: {why}"
    return named[0], None


def _comparison(
    answers: PlannedCell,
    judge: PlannedJudge,
    against: str,
    opponent: PlannedCell | None,
    missing: str | None = None,
) -> PlannedComparison:
    theirs = opponent.cell if opponent else None
    identity = {
        **answers.identity,
        "judge": judge.key,
        "against": theirs or against,
        "opponent": opponent.checkpoint.fingerprint if opponent else None,
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    missing = missing or answers.planned.missing or judge.missing
    return PlannedComparison(
        digest[:24],
        answers,
        judge,
        against,
        opponent.checkpoint.name if opponent else against,
        opponent,
        identity,
        missing,
    )


def told(comparison: PlannedComparison) -> dict[str, Any]:
    """What a plan keeps of a comparison."""
    return {
        "cell": comparison.cell,
        "checkpoint": comparison.checkpoint.name,
        "task": comparison.task.name,
        "sweep": comparison.task.sweep,
        "shown": list(comparison.task.recipe.metrics),
        "missing": comparison.missing,
        "identity": dict(comparison.identity),
        "against": comparison.against,
        "opponent": comparison.opponent,
        "judge": comparison.judge.name,
        "answers": comparison.answers.cell,
    }


def facts_of(judge: PlannedJudge) -> dict[str, Any]:
    """What a manifest keeps of a judge, but for the key's variable: some put the key there."""
    left_out: Any = {"examples": True, "endpoint": {"api_key_env"}}
    return {
        "name": judge.name,
        "key": judge.key,
        "recipe": judge.recipe.model_dump(mode="json", by_alias=True, exclude=left_out),
        "model": dataclasses.asdict(judge.model) if judge.model else None,
        "members": [facts_of(member) for member in judge.members],
    }
