"""All tasks as one number: the mean of a row's differences to the baseline, on one scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prefbench.boards.pooled import Drawn, Pool, base_of, columns_of, draws, notes_of, pools_of
from prefbench.errors import InputError
from prefbench.leaderboard import Board, Column, Contest, Entry, Gathered, Group
from prefbench.metrics import Metric
from prefbench.records import Score
from prefbench.stats.bootstrap import Array, Replicates
from prefbench.stats.pooling import interquartile_mean, standardised
from prefbench.stats.shared import found_of

SUMMARY = Group("all tasks", "all tasks", shown=("mean", "interquartile mean"))
_SUMMARIES: Mapping[str, Callable[[Array], Array]] = {
    "mean": lambda values: np.asarray(values.mean(axis=0)),
    "interquartile mean": interquartile_mean,
}


def summary_board(
    gathered: Gathered,
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
) -> Board:
    """All tasks as one number: the mean of the differences to the baseline, each standardised.

    A task counts by the first metric that it shows and that has a better side. Its unit is the
    standard deviation of an item's difference, so that tasks of any metric and size count alike;
    above 0 is better than the baseline. Each task's items are resampled by themselves, and so are
    the seeds of a method.

    Raises:
        InputError: there is no baseline, or no task that all rows have.
    """
    pools = pools_of(gathered.checkpoints)
    base = base_of(pools, gathered, baseline)
    if base is None:
        raise InputError("a summary over tasks needs a baseline: pass --baseline ROW")
    first: dict[str, tuple[Group, Metric, bool]] = {}
    for group, metric, shown in columns_of(gathered, everything=False):
        if metric.higher_is_better is not None:
            first.setdefault(group.name, (group, metric, shown))
    ready = [pool for pool in pools if pool.row.state == "ready"]
    found = list(
        draws(
            gathered,
            ready,
            list(first.values()),
            confidence=confidence,
            n_resamples=n_resamples,
        )
    )
    rows = [pool for pool in ready if all(pool in one.pools for one in found)]
    if not any(pool.row.name == base for pool in rows) or len(rows) < 2:
        raise InputError("no two rows have all tasks, the baseline among them: pass --task")
    parts = [_differences(one, rows, base) for one in found]
    scaled = standardised(parts, [one.n_clusters for one in found])
    used = [i for i, part in enumerate(scaled) if np.isfinite(part.value).all()]
    if not used:
        raise InputError("no task has any spread: all rows are alike")
    tasks = [found[i] for i in used]
    names = [pool.row.name for pool in rows]
    columns: list[Column] = []
    entries: dict[tuple[str, tuple[str, str]], Entry] = {}
    contests: dict[tuple[str, str], Contest] = {}
    for name, summarise in _SUMMARIES.items():
        column = Column(SUMMARY, Metric(name, (), lambda sums: sums, True), True)
        columns.append(column)
        whole = Replicates(
            summarise(np.stack([scaled[i].value for i in used])),
            summarise(np.stack([scaled[i].resampled for i in used])),
            np.zeros((min(one.n_clusters for one in tasks), len(rows))),
        )
        told = found_of(
            whole,
            baseline=names.index(base),
            n=sum(one.n for one in tasks),
            n_missing=0,
            confidence=confidence,
            method="percentile",
            pairs=True,
        )
        for row, own, gap in zip(names, told.estimates, told.differences, strict=True):
            entries[row, column.key] = Entry(Score(row, SUMMARY.task, name, own, True), gap)
        if told.pairs:
            contests[column.key] = Contest(tuple(names), told.pairs)
    listed = ", ".join(f"{one.column.group.name} ({one.column.metric.title})" for one in tasks)
    notes = [
        f"all tasks: differences to {base} in standard deviations of an item's difference, taken "
        f"over the rows shown; above 0 is better; over {listed}"
    ]
    notes += [
        f"{one.column.group.name} is left out: no row differs from another"
        for i, one in enumerate(found)
        if i not in used
    ]
    lost = [pool.row.name for pool in pools if pool not in rows]
    notes += [f"{name} is left out: it lacks a task" for name in lost]
    return Board(
        tuple(pool.row for pool in rows),
        tuple(columns),
        entries,
        {},
        base,
        confidence,
        (*notes, *notes_of(rows)),
        contests,
    )


def _differences(one: Drawn, rows: Sequence[Pool], base: str) -> Replicates:
    """Differences to the baseline, with more always better."""
    places = [one.pools.index(pool) for pool in rows]
    at = next(i for i, pool in enumerate(one.pools) if pool.row.name == base)
    sign = 1 if one.column.metric.higher_is_better else -1
    return Replicates(
        *(sign * (part[..., places] - part[..., at, None]) for part in one.replicates)
    )
