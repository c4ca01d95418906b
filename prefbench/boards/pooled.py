"""Rows of one method that differ in their seed alone, as one row."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prefbench.boards.aligned import align, metrics_in
from prefbench.errors import InputError
from prefbench.leaderboard import (
    Board,
    Column,
    Contest,
    Entry,
    Gathered,
    Group,
    find_baseline,
    row_order,
)
from prefbench.metrics import RANKING_METRICS, Metric
from prefbench.records import METHODS, Checkpoint, Score
from prefbench.stats.bootstrap import Replicates
from prefbench.stats.pooling import pooled
from prefbench.stats.shared import ENOUGH, found_of


@dataclasses.dataclass(frozen=True)
class Pool:
    """A row that stands for the seeds of a method, or for one checkpoint."""

    row: Checkpoint
    members: tuple[str, ...]


def pools_of(checkpoints: Sequence[Checkpoint]) -> list[Pool]:
    """Rows that differ in nothing but their seed, as one; all others as they are.

    Seeds belong together if they are of one method and one step. Where a seed occurs twice there,
    nobody knows what else differs, and the rows stay apart.
    """
    alike: dict[tuple[str | None, int | None], list[Checkpoint]] = {}
    for row in checkpoints:
        alike.setdefault((row.method, row.step), []).append(row)
    pools = []
    for (method, step), rows in alike.items():
        ready = [row for row in rows if row.state == "ready"]
        seeds = {row.seed for row in ready}
        if method is None or len(ready) < 2 or len(seeds) < len(ready) or None in seeds:
            pools += [Pool(row, (row.name,)) for row in rows]
            continue
        title = METHODS.get(method, method)
        name = f"{title}, {len(ready)} seeds"
        if step is not None and any(
            other != (method, step) and other[0] == method for other in alike
        ):
            name += f", step {step}"
        one = Checkpoint(name, Path(), "ready", method=method, step=step)
        pools.append(Pool(one, tuple(row.name for row in ready)))
        pools += [Pool(row, (row.name,)) for row in rows if row.state != "ready"]
    return sorted(pools, key=lambda pool: row_order(pool.row))


class Drawn(NamedTuple):
    """A column's replicates, a row's in each place; all from the items that all members have."""

    column: Column
    pools: tuple[Pool, ...]
    replicates: Replicates
    n: int
    n_missing: int
    n_clusters: int


def draws(
    gathered: Gathered,
    pools: Sequence[Pool],
    columns: Sequence[tuple[Group, Metric, bool]],
    *,
    confidence: float,
    n_resamples: int,
) -> Iterator[Drawn]:
    """Each column's replicates by row, over the items that all of its members have.

    A member with less than half of the items is left out, and so is a comparison that ended when it
    was sure, since what it was judged on hangs on what it gave.
    """
    for group, metric, shown in columns:
        members = [name for pool in pools for name in pool.members]
        sure = {m.checkpoint for m in gathered.measured if m.group == group.name and m.sure}
        aligned = align(
            gathered,
            group,
            metric,
            [name for name in members if name not in sure],
            n_resamples=n_resamples,
        )
        if aligned is None or not len(aligned.columns):
            continue
        enough = np.flatnonzero(aligned.there.mean(axis=0) >= ENOUGH)
        if not len(enough):
            continue
        rows = np.asarray(aligned.there[:, enough].all(axis=1))
        kept = aligned.resampling.only(rows)
        found = kept.replicate(aligned.columns[rows][:, enough], metric.statistic, jackknife=False)
        place = {aligned.checkpoints[i]: at for at, i in enumerate(enough)}
        within = [(pool, [place[m] for m in pool.members if m in place]) for pool in pools]
        within = [(pool, places) for pool, places in within if places]
        yield Drawn(
            Column(group, metric, shown),
            tuple(pool for pool, _ in within),
            pooled(
                found,
                [places for _, places in within],
                confidence=confidence,
                rngs=[np.random.default_rng(_seed(group, pool)) for pool, _ in within],
            ),
            kept.n_items,
            aligned.resampling.n_items - kept.n_items,
            kept.n_clusters,
        )


def pooled_board(
    gathered: Gathered,
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    everything: bool = False,
) -> Board:
    """The leaderboard with the seeds of a method as one row: their mean, over seeds and items.

    Raises:
        InputError: the baseline is not among the rows, or no two rows differ in their seed alone.
    """
    pools = pools_of(gathered.checkpoints)
    if all(len(pool.members) == 1 for pool in pools):
        raise InputError(
            "there are no seeds to pool: no two rows have one method, one step and two seeds; "
            "`prefbench scan` says which seed each has, and prefbench.yaml beside a checkpoint "
            "can state it"
        )
    base = base_of(pools, gathered, baseline)
    columns: list[Column] = []
    entries: dict[tuple[str, tuple[str, str]], Entry] = {}
    contests: dict[tuple[str, str], Contest] = {}
    for one in draws(
        gathered,
        pools,
        columns_of(gathered, everything=everything),
        confidence=confidence,
        n_resamples=n_resamples,
    ):
        metric, names = one.column.metric, [pool.row.name for pool in one.pools]
        found = found_of(
            one.replicates._replace(jackknife=np.zeros((one.n_clusters, len(names)))),
            baseline=names.index(base) if base in names else None,
            n=one.n,
            n_missing=one.n_missing,
            confidence=confidence,
            method="percentile",
            proportion=metric.proportion,
            pairs=len(names) > 1,
            in_logs=metric.exponential,
        )
        columns.append(one.column)
        for pool, own, gap in zip(one.pools, found.estimates, found.differences, strict=True):
            name = pool.row.name
            task = one.column.group.task
            # Few seeds reach far, and no share lies beyond its ends.
            if metric.proportion and len(pool.members) > 1:
                own = own._replace(low=max(own.low, 0.0), high=min(own.high, 1.0))
            score = Score(name, task, metric.name, own, metric.higher_is_better)
            entries[name, one.column.key] = Entry(score, gap)
        if found.pairs:
            contests[one.column.key] = Contest(tuple(names), found.pairs)
    return Board(
        tuple(pool.row for pool in pools),
        tuple(columns),
        entries,
        _reasons(gathered, pools),
        base,
        confidence,
        (*gathered.notes, *notes_of(pools)),
        contests,
    )


def columns_of(gathered: Gathered, *, everything: bool) -> list[tuple[Group, Metric, bool]]:
    """All columns that have items; a round robin's strengths are relative to who took part."""
    return [
        (group, metric, name in group.shown or not group.shown)
        for group in gathered.groups
        for name, metric in metrics_in(gathered, group).items()
        if name not in RANKING_METRICS and (everything or not group.shown or name in group.shown)
    ]


def base_of(pools: Sequence[Pool], gathered: Gathered, wanted: str | None) -> str | None:
    """The pool that the baseline is, or is in."""
    for pool in pools:
        if wanted is not None and wanted in pool.members:
            return pool.row.name
    return find_baseline([pool.row for pool in pools], wanted)


def _reasons(gathered: Gathered, pools: Sequence[Pool]) -> Mapping[tuple[str, str], str]:
    """Why a row lacks a group: what its first member without one is said to lack it for."""
    found: dict[tuple[str, str], str] = {}
    for pool in pools:
        for group in gathered.groups:
            for member in pool.members:
                if reason := gathered.reasons.get((member, group.name)):
                    found.setdefault((pool.row.name, group.name), reason)
    return found


def notes_of(pools: Sequence[Pool]) -> list[str]:
    return [
        f"{pool.row.name}: the mean over {', '.join(pool.members)}; intervals are over seeds and "
        "items, and wider the fewer seeds there are"
        for pool in pools
        if len(pool.members) > 1
    ]


def _seed(group: Group, pool: Pool) -> int:
    """Of a row's own seeds' draws: the same whatever else is in the table."""
    named = f"seeds of {group.task}: {pool.row.method}, {pool.row.step}"
    return int.from_bytes(hashlib.sha256(named.encode(errors="surrogatepass")).digest()[:4])
