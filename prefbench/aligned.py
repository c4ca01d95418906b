"""Some checkpoints' numbers for one metric, item by item, as the leaderboard resamples them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prefbench.leaderboard import Gathered, Group, _all_items, _seed, _table
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
    cells = {
        one.checkpoint: one
        for one in gathered.measured
        if one.group == group.name and not one.repeat
    }
    members = [cells[name] for name in checkpoints if name in cells]
    if not members:
        return None
    items, clusters = _all_items(members)
    return Aligned(
        metric,
        tuple(one.checkpoint for one in members),
        np.stack([_table(one, metric.quantities, items) for one in members], axis=1),
        Resampling(clusters, n_resamples=n_resamples, seed=_seed(group)),
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
