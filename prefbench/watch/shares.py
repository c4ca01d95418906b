"""What one checkpoint's turn has to do: its cells first, then what is worked out and judged.

A run plans all checkpoints of a directory and measures them. Here each has a turn of its own, out
of the same pieces, so that a checkpoint that is still being written is not touched, and each keeps
the name that it has in the whole directory: opponents go by names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from prefbench.analyses import PlannedAnalysis, plan_beside
from prefbench.cells import PlannedCell, PlannedTask, Settings, in_units, once, plan_cells
from prefbench.comparisons import Judging, PlannedComparison, plan_comparisons
from prefbench.engines import Engines
from prefbench.errors import CheckpointError, InputError
from prefbench.judges.budget import Budget
from prefbench.judges.opening import PlannedJudge
from prefbench.judges.verdicts import Verdicts
from prefbench.judging import VERDICTS, Court, is_judged
from prefbench.listener import Listener
from prefbench.records import Checkpoint
from prefbench.references import References, find_references
from prefbench.runner import PlannedRun
from prefbench.store import Store
from prefbench.tasks import BESIDE
from prefbench.watch.spending import Spending
from prefbench.work import Work


class Share(NamedTuple):
    """All that is to be done about one checkpoint, and how far it is."""

    planned: PlannedRun
    """Of this checkpoint alone; its opponents stand behind it."""
    todo: list[PlannedCell]
    to_work_out: list[str]
    to_judge: list[PlannedComparison]
    cells: tuple[str, ...]
    """All that make it measured."""
    verdicts: tuple[str, ...]
    """All that make it judged, as far as the opponents are there."""
    missing: str | None
    """Why something of it cannot be judged yet."""

    @property
    def is_measured(self) -> bool:
        return not self.todo and not self.to_work_out

    @property
    def is_done(self) -> bool:
        return self.is_measured and not self.to_judge

    @property
    def awaits_judge(self) -> bool:
        """Whether verdicts are left to be had, of comparisons or of rankings."""
        analyses = self.planned.beside.analyses
        return bool(self.to_judge) or any(
            one.judge and one.cell in self.to_work_out for one in analyses
        )


def plan_shares(
    checkpoints: Sequence[Checkpoint],
    tasks: Sequence[PlannedTask],
    judges: Mapping[str, PlannedJudge],
    *,
    settings: Settings,
    judging: Judging,
    store: Store,
) -> dict[str, Share]:
    """The share of each ready checkpoint, by path; without those that vanish meanwhile.

    Args:
        checkpoints: that may be touched, among which opponents and references are.
        tasks: as `plan_tasks` gives them.
        judges: as `plan_judges` gives them.
        settings: of the measuring.
        judging: how answers are judged.
        store: where the cells are kept.
    """
    cells: dict[str, list[PlannedCell]] = {}
    for one in checkpoints:
        with contextlib.suppress(CheckpointError, OSError):
            cells[str(one.path)] = plan_cells([one], tasks, settings)
    here = [one for one in checkpoints if str(one.path) in cells]
    everything = [cell for some in cells.values() for cell in some]
    comparisons = plan_comparisons(everything, here, judges, judging)
    shares = {}
    for one in here:
        with contextlib.suppress(CheckpointError, OSError):
            mine = cells[str(one.path)]
            references: References = {}
            if any(task.task.recipe.measure in BESIDE for task in tasks):
                references = _references(here, settings)
            beside = plan_beside(mine, tasks, [one], references, settings, judges)
            planned = PlannedRun(
                [one],
                mine,
                [c for c in comparisons if c.checkpoint.path == one.path],
                beside,
                references,
            )
            names = {c.opponent for c in planned.comparisons}
            opponents = [c for c in here if c.name in names and c is not one]
            planned.checkpoints.extend(opponents)
            shares[str(one.path)] = share_of(planned, store)
    return shares


def _references(here: Sequence[Checkpoint], settings: Settings) -> References:
    """Of each checkpoint its reference; one that is named may be trained only later."""
    try:
        return find_references(
            here,
            wanted=settings.reference,
            allow_pickle=settings.allow_pickle,
            allow_remote_code=settings.trust_remote_code,
        )
    except InputError as error:
        return {one.path: str(error) for one in here}


def share_of(planned: PlannedRun, store: Store) -> Share:
    """How far the store is with what is planned."""
    beside = planned.beside
    cells = once([*planned.cells, *beside.cells, *beside.later])
    asked = {name: cell for name, cell in cells.items() if not cell.planned.missing}
    analyses = [one.cell for one in beside.analyses if not one.missing]
    possible = {one.cell: one for one in planned.comparisons if not one.missing}
    lacking = [one for one in planned.comparisons if one.missing]
    return Share(
        planned,
        todo=[cell for name, cell in asked.items() if not store.is_sealed(name)],
        to_work_out=[name for name in analyses if not store.is_sealed(name)],
        to_judge=[one for one in possible.values() if not is_judged(store, one)],
        cells=(*asked, *analyses),
        verdicts=tuple(possible),
        missing=f"{lacking[0].task.name}: {lacking[0].missing}" if lacking else None,
    )


def carry_out(
    share: Share, *, settings: Settings, spending: Spending, store: Store, listener: Listener
) -> dict[str, str]:
    """A checkpoint's turn: measures, works out and judges what is missing and can be had.

    What another process has claimed is left to it. An opponent's answers are asked for after the
    checkpoint's own; where they fail, that is the opponent's failure.

    Returns:
        Why cells failed, by cell.
    """
    todo = _to_ask(share, store)
    failed: dict[str, str] = {}
    for alone in (True, False):  # some need the answers of others
        some = [cell for cell in todo if (cell.work == "answers") == alone]
        if some:
            with (
                Engines([cell.checkpoint for cell in some]) as engines,
                Work(store, settings, listener, engines) as work,
            ):
                for unit in in_units(some):
                    work.measure(unit, wait=False)
            failed |= work.failed
    if due := _to_work_out(share, store, may_judge=True):
        with _judging_of(due, spending) as judging:
            from prefbench.analysing import Analyst  # with all that reads answers

            free = [one for one in due if judging or one.judge is None]
            asked = judging or spending.judging
            with _noted(spending, asked, listener) as (budget, told):
                worked = Analyst(store, asked, told, budget).carry_out(free)
            # At a cap none has failed that asks a judge.
            waits = {one.cell for one in free if one.judge and budget.has_refused}
            failed |= {name: why for name, why in worked.items() if name not in waits}
    if to_judge := _to_judge(share, store):
        with spending.left() as judging:
            if judging is not None:
                with (
                    _noted(spending, judging, listener) as (budget, told),
                    Court(store, judging, told, budget) as court,
                ):
                    judged = court.carry_out(to_judge)
                if not budget.has_refused:  # at a cap none has failed, though not all is judged
                    failed |= judged
    return failed


@contextlib.contextmanager
def _judging_of(due: Sequence[PlannedAnalysis], spending: Spending) -> Iterator[Judging | None]:
    """What is left for judges, where analyses ask any."""
    if not any(one.judge for one in due):
        yield None
        return
    with spending.left() as judging:
        yield judging


@contextlib.contextmanager
def _noted(
    spending: Spending, judging: Judging, listener: Listener
) -> Iterator[tuple[Budget, Listener]]:
    """A budget, and who is to be told of judging so that what it costs is written down."""
    sitting = os.urandom(6).hex()
    budget = Budget(max_cost=judging.max_cost, max_calls=judging.max_calls)

    def on_judge(name: str, done: int, n: int) -> None:
        spending.note(sitting, budget)
        listener.on_judge(name, done, n)

    try:
        yield budget, dataclasses.replace(listener, on_judge=on_judge)
    finally:
        spending.note(sitting, budget, now=True)


def progress(share: Share, store: Store) -> tuple[int, ...]:
    """How far a checkpoint is, to compare: sealed cells, then what open ones and judges have."""
    n_sealed = sum(map(store.is_sealed, (*share.cells, *share.verdicts)))
    n_begun = sum(store.n_begun(cell) for cell in places(share))
    if share.awaits_judge:
        with Verdicts(store.folder / VERDICTS) as verdicts:
            n_begun += len(verdicts)
    return n_sealed, n_begun


def places(share: Share) -> dict[str, Path]:
    """Each cell that a turn may seal or fail, and the checkpoint that it is of."""
    planned = share.planned
    cells = [*planned.cells, *planned.beside.cells, *planned.beside.later]
    cells += [one.opponent_answers for one in planned.comparisons if one.opponent_answers]
    found = {cell.cell: cell.checkpoint.path for cell in cells}
    found |= {one.cell: one.checkpoint.path for one in planned.comparisons}
    return found | {one.cell: one.checkpoint.path for one in planned.beside.analyses}


def can_go_on(share: Share, store: Store, *, may_judge: bool) -> bool:
    """Whether a turn would find anything to do that no other process is at."""
    asked = (cell.cell for cell in _to_ask(share, store))
    return (
        any(_is_free(cell, store) for cell in asked)
        or bool(_to_work_out(share, store, may_judge=may_judge))
        or (may_judge and bool(_to_judge(share, store)))
    )


def _to_ask(share: Share, store: Store) -> list[PlannedCell]:
    """Its own cells, then its opponents' answers: how often those are tried is their own matter."""
    theirs = [one.opponent_answers for one in share.to_judge if one.opponent_answers]
    theirs = [cell for cell in theirs if not store.failure(cell.cell)]
    wanted = once([*share.todo, *theirs])
    return [cell for name, cell in wanted.items() if not store.is_sealed(name)]


def _to_work_out(share: Share, store: Store, *, may_judge: bool) -> list[PlannedAnalysis]:
    return [
        one
        for one in share.planned.beside.analyses
        if one.cell in share.to_work_out
        and all(store.is_sealed(cell.cell) for cell in (one.answers, *one.others))
        and _is_free(one.cell, store)
        and (may_judge or one.judge is None)
    ]


def _to_judge(share: Share, store: Store) -> list[PlannedComparison]:
    """Comparisons with both sides' answers there."""
    return [
        one
        for one in share.to_judge
        if all(store.is_sealed(cell.cell) for cell in (one.answers, one.opponent_answers) if cell)
        and _is_free(one.cell, store)
    ]


def _is_free(cell: str, store: Store) -> bool:
    with store.claim(cell) as claimed:
        return claimed is not None
