"""What one checkpoint's turn has to do: its cells first, then what is worked out and judged.

A run plans all checkpoints of a directory and measures them. Here each has a turn of its own, out
of the same pieces, so that a checkpoint that is still being written is not touched, and each keeps
the name that it has in the whole directory: opponents go by names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prefbench.analyses import PlannedAnalysis, plan_beside
from prefbench.cells import PlannedCell, PlannedTask, Settings, in_units, once, plan_cells
from prefbench.comparisons import Judging, PlannedComparison, plan_comparisons
from prefbench.engines import Engines
from prefbench.errors import CheckpointError
from prefbench.judges.opening import PlannedJudge
from prefbench.judging import Court, is_judged
from prefbench.listener import Listener
from prefbench.records import Checkpoint
from prefbench.references import find_references

# The plan of a turn is that of a run of one checkpoint; nothing else writes plans.
from prefbench.runner import PlannedRun, _write_plan
from prefbench.store import Store
from prefbench.tasks import BESIDE
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
            references = {}
            if any(task.task.recipe.measure in BESIDE for task in tasks):
                references = find_references(
                    here,
                    allow_pickle=settings.allow_pickle,
                    allow_remote_code=settings.trust_remote_code,
                )
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


def keep_plan(share: Share, store: Store) -> None:
    """Keeps what is to be measured of a checkpoint: tables show what plans name."""
    _write_plan(store, share.planned)


def carry_out(
    share: Share, *, settings: Settings, judging: Judging, store: Store, listener: Listener
) -> str | None:
    """A checkpoint's turn: measures, works out and judges what is missing and can be had.

    What another process has claimed is left to it. An opponent's answers are asked for after the
    checkpoint's own; where they fail, that is the opponent's failure.

    Returns:
        Why something of the checkpoint itself failed, or None.
    """
    keep_plan(share, store)
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
    if due := _to_work_out(share, store):
        from prefbench.analysing import Analyst  # with all that reads answers

        failed |= Analyst(store, judging, listener).carry_out(due)
    if to_judge := _to_judge(share, store):
        with Court(store, judging, listener) as court:
            failed |= court.carry_out(to_judge)
    own = {*share.cells, *share.verdicts}
    return next((reason for name, reason in failed.items() if name in own), None)


def can_go_on(share: Share, store: Store) -> bool:
    """Whether a turn would find anything to do that no other process is at."""
    asked = (cell.cell for cell in _to_ask(share, store))
    return (
        any(_is_free(cell, store) for cell in asked)
        or bool(_to_work_out(share, store))
        or bool(_to_judge(share, store))
    )


def _to_ask(share: Share, store: Store) -> list[PlannedCell]:
    """Its own cells, then its opponents' answers: how often those are tried is their own matter."""
    theirs = [one.opponent_answers for one in share.to_judge if one.opponent_answers]
    theirs = [cell for cell in theirs if not store.failure(cell.cell)]
    wanted = once([*share.todo, *theirs])
    return [cell for name, cell in wanted.items() if not store.is_sealed(name)]


def _to_work_out(share: Share, store: Store) -> list[PlannedAnalysis]:
    return [
        one
        for one in share.planned.beside.analyses
        if one.cell in share.to_work_out
        and all(store.is_sealed(cell.cell) for cell in (one.answers, *one.others))
        and _is_free(one.cell, store)
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
