"""Some checkpoints' numbers for one metric, item by item, as the leaderboard resamples them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefbench.leaderboard import Gathered, Group, Measured
from prefbench.metrics import RANKING_METRICS, Metric, metric_named, metrics_of
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import present


@dataclass(frozen=True)
class Aligned:
    """What one metric is made of, for checkpoints that all have the same list of items.

    Attributes:
        metric: the metric.
        checkpoints: their names, in the order of the columns.
        columns: the metric's quantities, (n_items, n_checkpoints, n_quantities), NaN where missing.
        resampling: the draws that the leaderboard has for them.
    """

    metric: Metric
    checkpoints: tuple[str, ...]
    columns: Array
    resampling: Resampling

    @property
    def there(self) -> NDArray[np.bool_]:
        """Which checkpoint has which item, (n_items, n_checkpoints)."""
        return present(self.columns)


def align(
    gathered: Gathered,
    group: Group,
    metric: Metric,
    checkpoints: Sequence[str],
    *,
    n_resamples: int = 10_000,
) -> Aligned | None:
    """One metric of those of some checkpoints that have the group; None where none has."""
    cells = {one.checkpoint: one for one in gathered.measured if one.group == group.name}
    members = [cells[name] for name in checkpoints if name in cells]
    if not members:
        return None
    items, clusters = all_items(members)
    return Aligned(
        metric,
        tuple(one.checkpoint for one in members),
        np.stack([table_of(one, metric.quantities, items) for one in members], axis=1),
        Resampling(clusters, n_resamples=n_resamples, seed=seed_of(group)),
    )


def metrics_in(gathered: Gathered, group: Group) -> dict[str, Metric]:
    """The metrics that a group has, by the name that a recipe uses; those shown come first."""
    if any(robin.group == group.name for robin in gathered.ranked):
        return dict(RANKING_METRICS)
    names = {
        name for one in gathered.measured if one.group == group.name for name in one.quantities
    }
    if not names:
        return {name: metric_named(name) for name in group.shown}
    found = metrics_of(names, group.higher_is_better)
    first = [name for name in group.shown if name in found]
    return {name: found[name] for name in [*first, *(n for n in found if n not in first)]}


def seed_of(group: Group) -> int:
    """One resampling per task: the same whatever else is in the table."""
    return int.from_bytes(hashlib.sha256(group.task.encode(errors="surrogatepass")).digest()[:4])


def all_items(members: Sequence[Measured]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """All items that any member has, with their clusters."""
    items = np.concatenate([one.items for one in members])
    clusters = np.concatenate([one.clusters for one in members])
    unique, first = np.unique(items, return_index=True)
    return unique, clusters[first]


def table_of(one: Measured, quantities: Sequence[str], items: NDArray[np.int32]) -> Array:
    """A checkpoint's quantities for all items, NaN where it lacks the item."""
    table = np.full((len(items), len(quantities)), np.nan)
    at = np.searchsorted(items, one.items)
    here = np.isin(one.items, items)
    rows = at[here]
    for column, name in enumerate(quantities):
        if name == "1":
            table[rows, column] = 1.0
        elif name in one.quantities:
            table[rows, column] = one.quantities[name][here]
    return table
