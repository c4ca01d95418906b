"""What a checkpoint's answers are worth, and how far it went from its reference for it.

Source: Rafailov et al. 2023, figure 2, arxiv.org/abs/2305.18290: sequence-level KL divergence,
from the checkpoint's own samples, against the reward of the same answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prefbench.leaderboard import Board, Gathered, Group
from prefbench.records import ROUND_ROBIN, Checkpoint
from prefbench.report.effects.estimated import Ratio, estimated, members_with
from prefbench.report.effects.temperatures import WIN_RATE
from prefbench.report.figures.rows import Run, runs_of
from prefbench.stats.estimates import Estimate
from prefbench.store import Store

_KINDS = frozenset(("winrate", "divergence", "kl", "reward", "rewards"))
"""Words by which the names of a task that measures the divergence and of one that judges differ."""


@dataclass(frozen=True)
class Point:
    """A checkpoint: KL divergence to its reference in nats, and reward or win rate."""

    row: Checkpoint
    divergence: Estimate
    worth: Estimate


@dataclass(frozen=True)
class Frontier:
    """All checkpoints of one task that have both, the steps of a run together."""

    divergence: Group
    judged: Group
    is_reward: bool
    """Whether worth is a reward model's reward, on its own scale; else a win rate."""
    same_answers: bool
    """Whether it is known that both are of the same answers, not only of the same prompts."""
    runs: tuple[tuple[Run, tuple[Point, ...]], ...]


def frontiers(gathered: Gathered, board: Board, store: Store | None = None) -> list[Frontier]:
    """Every comparison for which the divergence of the same answers, or prompts, was measured.

    A comparison belongs to a divergence where a checkpoint's two manifests name the same cell of
    answers. Where none does, both must have the same items, and names that differ by no more than
    the kind of task, as in `x_divergence` and `x_winrate`.
    """
    found = []
    for judged in gathered.groups:
        if not judged.opponent or judged.opponent == ROUND_ROBIN:
            continue
        for divergence, same in _partners(gathered, judged, store):
            members = members_with(gathered, divergence, ("kl",))
            kl = estimated(members, divergence, {"kl": Ratio("kl")}, confidence=board.confidence)
            for is_reward in (True, False):
                worth = _worth(gathered, board, judged, is_reward=is_reward)
                points = {
                    row.name: Point(row, kl[row.name]["kl"], worth[row.name])
                    for row in board.rows
                    if row.name in kl and row.name in worth
                    if math.isfinite(kl[row.name]["kl"].value)
                }
                runs = [
                    (run, tuple(points[row.name] for row in run.rows if row.name in points))
                    for run in runs_of(board)
                ]
                there = tuple((run, some) for run, some in runs if some)
                if there:
                    found.append(Frontier(divergence, judged, is_reward, same, there))
    return found


def _worth(
    gathered: Gathered, board: Board, judged: Group, *, is_reward: bool
) -> dict[str, Estimate]:
    if is_reward:
        members = members_with(gathered, judged, ("reward",))
        told = estimated(members, judged, {"r": Ratio("reward")}, confidence=board.confidence)
        known = {name: estimates["r"] for name, estimates in told.items()}
    else:
        known = {
            row.name: entry.score.estimate
            for row in board.rows
            if (entry := board.entries.get((row.name, (judged.name, WIN_RATE))))
            and entry.score.estimate[:3] != (0.5, 0.5, 0.5)  # against itself
        }
    return {name: one for name, one in known.items() if math.isfinite(one.value)}


def _partners(
    gathered: Gathered, judged: Group, store: Store | None
) -> Iterator[tuple[Group, bool]]:
    """The tasks whose divergence belongs to a comparison: by the same answers, else by name."""
    others = [group for group in gathered.groups if members_with(gathered, group, ("kl",))]
    same = [g for g in others if store is not None and _share_answers(gathered, store, judged, g)]
    if same:
        yield from ((group, True) for group in same)
        return
    for group in others:
        if _stem(group.task) == _stem(judged.task) and _share_items(gathered, judged, group):
            yield group, False


def _share_answers(gathered: Gathered, store: Store, judged: Group, other: Group) -> bool:
    """Whether a checkpoint's answers that were judged are those whose divergence was taken."""
    for row in gathered.checkpoints:
        first, second = (gathered.cells.get((row.name, group.name)) for group in (judged, other))
        if first and second and store.behind(first) == store.behind(second):
            return True
    return False


def _share_items(gathered: Gathered, first: Group, second: Group) -> bool:
    items = [
        np.unique(np.concatenate([one.items for one in members]))
        for group in (first, second)
        if (members := members_with(gathered, group, ()))
    ]
    return len(items) == 2 and np.array_equal(items[0], items[1])


def _stem(task: str) -> tuple[str, ...]:
    return tuple(word for word in task.split("_") if word not in _KINDS)
