"""What is to be worked out beside a reference: log-probs, gradients and samples of a checkpoint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from prefbench.cells import PlannedCell, PlannedTask, Settings, Work, plan_cell
from prefbench.comparisons import facts_of
from prefbench.judges.opening import PlannedJudge
from prefbench.objectives import OBJECTIVE_OF
from prefbench.records import Checkpoint
from prefbench.references import References

FORMULAS = 1
"""Of margins, gradients, divergence and ranking; a new number has all worked out again."""
ONE_NAME = (
    "--served-model names one checkpoint for all: its reference cannot be asked; measure margins "
    "with the engine hf"
)
NEEDS_HF = "gradients need the checkpoint's own weights: the engine hf"


@dataclass(frozen=True)
class PlannedAnalysis:
    """What a checkpoint's answers are beside others, worked out without an engine.

    `others` are the reference's answers (margins), or the checkpoint's own samples as it and as
    its reference score them (divergence); a ranking has none.
    """

    cell: str
    answers: PlannedCell
    others: tuple[PlannedCell, ...]
    reference: Checkpoint | None
    judge: PlannedJudge | None
    identity: Mapping[str, Any]
    missing: str | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        return self.answers.checkpoint

    @property
    def title(self) -> str:
        return self.answers.title

    @property
    def measure(self) -> str:
        return self.answers.task.recipe.measure


class Beside(NamedTuple):
    """What a run does besides asking its own checkpoints, in the order in which it can be done."""

    cells: list[PlannedCell]
    """Of references that are no checkpoints of the run."""
    later: list[PlannedCell]
    """That need the answers of others: gradients, and samples that are scored."""
    analyses: list[PlannedAnalysis]


def plan_beside(
    cells: Sequence[PlannedCell],
    tasks: Sequence[PlannedTask],
    checkpoints: Sequence[Checkpoint],
    references: References,
    settings: Settings,
    judges: Mapping[str, PlannedJudge],
) -> Beside:
    """All that is to be done beside references, of ready checkpoints.

    Args:
        cells: the run's own, among which checkpoints' answers are.
        tasks: of the run.
        checkpoints: of the run.
        references: as `find_references` gives them.
        settings: of the run.
        judges: of rankings, by name.
    """
    own = {(cell.checkpoint.path, cell.task.name): cell for cell in cells if not cell.repeat}
    found = Beside([], [], [])
    for checkpoint in checkpoints:
        if checkpoint.state != "ready":
            continue
        reference = references.get(checkpoint.path, "its reference was not looked for")
        for planned in tasks:
            answers = own.get((checkpoint.path, planned.task.name))
            match planned.task.recipe.measure:
                case "margins" if answers:
                    _margins(answers, reference, settings, found)
                case "gradients":
                    found.later.append(_gradients(checkpoint, planned, reference, settings, found))
                case "divergence" if answers:
                    _divergence(answers, reference, settings, found)
                case "ranking" if answers:
                    found.analyses.append(_ranking(answers, judges))
    return found


def _margins(
    answers: PlannedCell, reference: Checkpoint | str, settings: Settings, found: Beside
) -> None:
    more = {"beta": answers.task.recipe.beta}
    if settings.engine == "server" and settings.served_model:
        reference = ONE_NAME  # it would be laid beside itself
    if isinstance(reference, str):
        found.analyses.append(_analysis(answers, (), None, more, reference))
        return
    theirs = _asked_alike(answers, reference, settings)
    found.cells.append(theirs)
    found.analyses.append(_analysis(answers, (theirs,), reference, more))


def _gradients(
    checkpoint: Checkpoint,
    planned: PlannedTask,
    reference: Checkpoint | str,
    settings: Settings,
    found: Beside,
) -> PlannedCell:
    """The cell of gradients; where no reference is known, of what needs none."""
    recipe = planned.task.recipe
    plain = plan_cell(checkpoint, planned, settings, engine="hf")
    theirs = None
    if not isinstance(reference, str) and settings.engine != "server":
        # Of the pairs that are drawn alone: there may be many more.
        theirs = _asked_alike(plain, reference, settings, sample=recipe.sample)
        found.cells.append(theirs)
    more = {
        "objective": recipe.objective or OBJECTIVE_OF.get(checkpoint.method or "", "dpo"),
        "parameters": recipe.parameters,
        "sample": recipe.sample,
        "heat_maps": recipe.heat_maps,
        "untrained": recipe.untrained,
    }
    cell = _working(plain, "gradients", theirs, more)
    if settings.engine == "server":
        missing = planned.missing or NEEDS_HF
        cell = dataclasses.replace(cell, planned=dataclasses.replace(planned, missing=missing))
    return cell


def _divergence(
    samples: PlannedCell, reference: Checkpoint | str, settings: Settings, found: Beside
) -> None:
    if isinstance(reference, str):
        found.analyses.append(_analysis(samples, (), None, {}, reference))
        return
    scores = []
    for scorer in (samples.checkpoint, reference):
        plain = plan_cell(scorer, samples.planned, settings, like=samples, engine="hf")
        scores.append(_working(plain, "scores", samples, {}))
    found.later.extend(scores)
    found.analyses.append(_analysis(samples, tuple(scores), reference, {}))


def _ranking(answers: PlannedCell, judges: Mapping[str, PlannedJudge]) -> PlannedAnalysis:
    name = next(iter(answers.task.recipe.judge), None)
    # Where --judge names others, the task's own is not planned.
    judge = (judges.get(name) or next(iter(judges.values()), None)) if name else None
    more = {"judge": judge.key if judge else None}
    return _analysis(answers, (), None, more, judge.missing if judge else None, judge)


def _asked_alike(
    answers: PlannedCell, reference: Checkpoint, settings: Settings, sample: int | None = None
) -> PlannedCell:
    """The reference on the same task, in the same words."""
    return plan_cell(reference, answers.planned, settings, like=answers, sample=sample)


def _working(
    plain: PlannedCell, work: Work, beside: PlannedCell | None, more: Mapping[str, Any]
) -> PlannedCell:
    """A cell of the same checkpoint and task that does other work than to answer."""
    identity = {
        **plain.identity,
        **more,
        "work": work,
        "beside": beside.cell if beside else None,
        "formulas": FORMULAS,
    }
    return dataclasses.replace(
        plain, cell=_digest(identity), identity=identity, work=work, beside=beside
    )


def _analysis(
    answers: PlannedCell,
    others: tuple[PlannedCell, ...],
    reference: Checkpoint | None,
    more: Mapping[str, Any],
    missing: str | None = None,
    judge: PlannedJudge | None = None,
) -> PlannedAnalysis:
    identity = {
        **answers.identity,
        **more,
        "measure": answers.task.recipe.measure,
        "beside": [other.cell for other in others],
        "formulas": FORMULAS,
    }
    missing = answers.planned.missing or missing
    return PlannedAnalysis(_digest(identity), answers, others, reference, judge, identity, missing)


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


def told(analysis: PlannedAnalysis) -> dict[str, Any]:
    """What a plan keeps of an analysis."""
    task = analysis.answers.task
    return {
        "cell": analysis.cell,
        "checkpoint": analysis.checkpoint.name,
        "task": task.name,
        "sweep": task.sweep,
        "shown": list(task.recipe.metrics),
        "missing": analysis.missing,
        "identity": dict(analysis.identity),
        "answers": analysis.answers.cell,
    }


def facts(analysis: PlannedAnalysis) -> dict[str, Any]:
    """What a manifest says of an analysis."""
    return {
        "measure": analysis.measure,
        "answers": analysis.answers.cell,
        "others": [other.cell for other in analysis.others],
        "reference": reference_facts(analysis.reference),
        "beta": analysis.identity.get("beta"),
        "judge": facts_of(analysis.judge) if analysis.judge else None,
    }


def reference_facts(reference: Checkpoint | None) -> dict[str, Any] | None:
    """What a manifest says of a reference."""
    if reference is None:
        return None
    return {
        "name": reference.name,
        "path": str(reference.path),
        "fingerprint": reference.fingerprint,
    }
