"""Quantities as values with intervals, from the draws that the leaderboard has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prefbench.boards.aligned import all_items, seed_of, table_of
from prefbench.leaderboard import Gathered, Group, Measured
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import Estimate
from prefbench.stats.shared import Wanted, estimate_all


class Ratio(NamedTuple):
    """The sum of one quantity over items by the sum of another; `1` counts the items."""

    above: str
    below: str = "1"
    proportion: bool = False


def members_with(gathered: Gathered, group: Group, names: Collection[str]) -> list[Measured]:
    """What checkpoints gave on a group, of those that have all of some quantities."""
    return [
        one
        for one in gathered.measured
        if one.group == group.name and all(name in one.quantities for name in names)
    ]


def estimated(
    members: Sequence[Measured],
    group: Group,
    ratios: Mapping[str, Ratio],
    *,
    confidence: float,
    n_resamples: int = 10_000,
) -> dict[str, dict[str, Estimate]]:
    """By checkpoint and name, each ratio with its interval; NaN where it is undefined.

    A quantity that is a column of the table has the table's numbers, bit for bit, where the same
    checkpoints are measured: the draws are those of the task.
    """
    if not members or not ratios:
        return {}
    used = sorted({name for ratio in ratios.values() for name in (ratio.above, ratio.below)})
    items, clusters = all_items(members)
    found = estimate_all(
        np.stack([table_of(one, used, items) for one in members], axis=1),
        [
            Wanted((used.index(r.above), used.index(r.below)), _ratio, r.proportion)
            for r in ratios.values()
        ],
        resampling=Resampling(clusters, n_resamples=n_resamples, seed=seed_of(group)),
        confidence=confidence,
    )
    return {
        one.checkpoint: {name: told.estimates[i] for name, told in zip(ratios, found, strict=True)}
        for i, one in enumerate(members)
    }


def _ratio(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / sums[..., 1])
