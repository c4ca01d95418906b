"""Which number of the table somebody means, and what the store has behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from prefbench.boards.aligned import seed_of
from prefbench.boards.scored import board_of
from prefbench.errors import InputError
from prefbench.leaderboard import Board, Column, Entry, Gathered, Group, Measured
from prefbench.metrics import Metric
from prefbench.records import METHODS, ROUND_ROBIN, Checkpoint
from prefbench.report.collect import gather
from prefbench.stats.bootstrap import Array, Refit
from prefbench.stats.estimates import Method
from prefbench.store import Store

PREFIX = 4
"""Characters of a cell's id from which on it can be named by its beginning."""
T = TypeVar("T")


@dataclass(frozen=True)
class Behind:
    """A number of the table, and all that it came about by.

    Attributes:
        results: where it is kept.
        board: the table's one column group that it stands in.
        row: whose number it is.
        column: of what.
        entry: the number itself.
        cell: its cell in the store.
        manifest: that cell's.
        measured: that cell's numbers by item; None of a round robin's strength, which many cells
            make.
        pairs: of such a strength, the cells with this row in them, by the other row.
        n_resamples: of the bootstrap.
        seed: of its draws.
        n_clusters: what was drawn from.
    """

    results: Path
    board: Board
    row: Checkpoint
    column: Column
    entry: Entry
    cell: str
    manifest: Mapping[str, Any]
    measured: Measured | None
    pairs: Mapping[str, str]
    n_resamples: int
    seed: int
    n_clusters: int

    @property
    def store(self) -> Store:
        return Store(self.results, create=False)

    @property
    def judging(self) -> Mapping[str, Any] | None:
        """What the manifest says of the judge, of a comparison."""
        return self.manifest.get("judging")

    def manifest_of(self, name: str) -> Mapping[str, Any] | None:
        """The manifest of `answers` or `opponent_answers` that a comparison judged."""
        cell = self.judging and self.judging.get(name)
        return self.store.manifest(cell) if cell else None


def look_up(
    results: Path,
    words: Sequence[str],
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
    interval: Method = "percentile",
    n_resamples: int = 10_000,
) -> Behind:
    """What is behind the number that some words name.

    Args:
        results: a results directory.
        words: a cell's id or its beginning, or a checkpoint and a task as the table writes them;
            after either, if wanted, a metric. Parts of names do where they are clear.
        baseline: as for `board_of`, like all that follow.
        confidence: of the intervals.
        interval: percentile or bca.
        n_resamples: bootstrap resamples.

    Raises:
        InputError: no number is named so, several are, or it is missing; says which there are, or
            why.
        StoreError: the directory has no readable results.
    """
    gathered = gather(results)
    if not 1 <= len(words) <= 3:
        raise InputError(
            "name a cell by its id, or a checkpoint, a task and, if you like, a metric: "
            "prefbench why dpo demo_arithmetic exact_match,strict-match"
        )
    a_row = len(words) > 1 and any(row.name == words[0] for row in gathered.checkpoints)
    by_id = None if a_row or len(words) > 2 else _by_id(results, gathered, words[0])
    if isinstance(by_id, Gathered):  # one comparison of a round robin, which no column shows alone
        gathered, by_id = by_id, next(iter(by_id.cells))
    checkpoint, group = by_id or _by_names(gathered, words)
    board = board_of(
        _only(gathered, group),
        baseline=baseline,
        confidence=confidence,
        interval=interval,
        n_resamples=n_resamples,
    )
    row = next(row for row in board.rows if row.name == checkpoint)
    column = _column(board, row, words[1:] if by_id else words[2:])
    entry = board.entry(row, column)
    if entry is None:
        raise InputError(
            f"{checkpoint} has no {column.metric.name} on {group}: {board.reason(row, column)}"
        )
    robin = next((one for one in gathered.ranked if one.group == group), None)
    pairs = _pairs_of(results, checkpoint, group) if robin else {}
    measured = None
    if robin:
        cell, clusters = next(iter(pairs.values())), robin.clusters
    else:
        cell = gathered.cells[checkpoint, group]
        measured = _measured(gathered, checkpoint, group)
        clusters = measured.clusters[~np.isnan(values_of(measured, column.metric))]
    return Behind(
        results=results,
        board=board,
        row=row,
        column=column,
        entry=entry,
        cell=cell,
        manifest=_manifest(Store(results, create=False), cell, row),
        measured=measured,
        pairs=pairs,
        n_resamples=n_resamples,
        seed=seed_of(column.group),
        n_clusters=len(set(clusters.tolist())),
    )


def _manifest(store: Store, cell: str, row: Checkpoint) -> Mapping[str, Any]:
    """A cell's manifest; of a comparison in which the row is the opponent, as the row's own."""
    manifest = store.manifest(cell) or {}
    if manifest.get("checkpoint", {}).get("fingerprint") == row.fingerprint:
        return manifest
    theirs = manifest.get("judging", {}).get("opponent_answers")
    return {**manifest, **(store.manifest(theirs) or {})} if theirs else manifest


def values_of(measured: Measured, metric: Metric) -> Array:
    """A metric of every item alone, (n_items,); NaN where the item lacks it.

    Of what is fitted to all items at once, the first of the quantities that it is fitted to.
    """
    nothing = np.full(len(measured.items), np.nan)
    columns = [
        np.ones(len(measured.items)) if name == "1" else measured.quantities.get(name, nothing)
        for name in metric.quantities
    ]
    if not columns:
        return nothing
    if isinstance(metric.statistic, Refit):
        return np.asarray(columns[0], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(metric.statistic(np.stack(columns, axis=-1)), dtype=np.float64)


def _only(gathered: Gathered, group: str) -> Gathered:
    """One column group; its numbers are those that it has among all."""
    return dataclasses.replace(
        gathered,
        groups=tuple(one for one in gathered.groups if one.name == group),
        measured=tuple(one for one in gathered.measured if one.group == group),
        ranked=tuple(one for one in gathered.ranked if one.group == group),
    )


def _measured(gathered: Gathered, checkpoint: str, group: str) -> Measured:
    return next(
        one for one in gathered.measured if (one.checkpoint, one.group) == (checkpoint, group)
    )


# --- by a cell's id


def _by_id(results: Path, gathered: Gathered, word: str) -> tuple[str, str] | Gathered | None:
    """The checkpoint and the group of the cell whose id begins so; None where none does."""
    if len(word) < PREFIX:
        return None
    found = {key: cell for key, cell in gathered.cells.items() if cell.startswith(word)}
    others = {
        one["cell"]: (one, plan)
        for plan in Store(results, create=False).plans()
        for one in [*plan["cells"], *plan.get("comparisons", ())]
        if one["cell"].startswith(word) and one["cell"] not in found.values()
    }
    if len({*found.values(), *others}) > 1:
        raise _several(word, [*_cells(found), *(_titled(one) for one, _ in others.values())])
    if len(found) > 1:
        raise _several(word, _cells(found))  # one cell of several rows with the same bytes
    if found:
        return next(iter(found))
    return next((_pair_alone(results, gathered, *one) for one in others.values()), None)


def _pair_alone(
    results: Path, gathered: Gathered, one: Mapping[str, Any], plan: Mapping[str, Any]
) -> Gathered:
    """A comparison of a round robin as a column group of its own.

    Raises:
        InputError: the cell is no such comparison, or not done: why it stands in no table.
    """
    store = Store(results, create=False)
    if store.manifest(one["cell"]) is None:
        why = one["missing"] or store.failure(one["cell"]) or "not measured yet"
        raise InputError(f"{_titled(one)}: {why}")
    if one.get("against") != ROUND_ROBIN:
        raise InputError(
            f"{_titled(one)}: it stands in the table no more: the checkpoint, the task's "
            "definition or its data have changed since"
        )
    path = next(c["path"] for c in plan["checkpoints"] if c["name"] == one["checkpoint"])
    row = next(row for row in gathered.checkpoints if str(row.path) == path)
    name = f"{one['task']}, against {one['opponent']} by {one['judge']}"
    group = Group(
        name, one["task"], shown=("win_rate",), opponent=one["opponent"], judge=one["judge"]
    )
    table = store.records(one["cell"])
    quantities = [n for n in table.column_names if n not in ("item", "cluster", "reason")]
    measured = Measured(
        row.name,
        name,
        table["item"].to_numpy(),
        np.asarray(table["cluster"].combine_chunks().to_pandas().astype(object)),
        {quantity: table[quantity].to_numpy() for quantity in quantities},
    )
    cells = {(row.name, name): str(one["cell"])}
    return Gathered(gathered.checkpoints, (group,), (measured,), cells=cells)


def _pairs_of(results: Path, checkpoint: str, group: str) -> dict[str, str]:
    """The sealed comparisons of a round robin that a row took part in, by the other row."""
    store = Store(results, create=False)
    found: dict[str, str] = {}
    for plan in store.plans():
        for one in plan.get("comparisons", ()):
            both = [one["checkpoint"], one["opponent"]]
            named = f"{one['task']}, against {ROUND_ROBIN} by {one['judge']}"
            known = one.get("against") == ROUND_ROBIN and group.startswith(named)
            if known and checkpoint in both and store.is_sealed(one["cell"]):
                both.remove(checkpoint)
                found[both[0]] = one["cell"]
    return found


# --- by the table's words


def _by_names(gathered: Gathered, words: Sequence[str]) -> tuple[str, str]:
    """The checkpoint and the group that two words name."""
    if len(words) < 2:
        raise InputError(
            f"no cell here begins with {words[0]!r}; name one by {PREFIX} characters or more, or a "
            "checkpoint and a task"
        )
    rows = [row.name for row in gathered.checkpoints]
    methods = {
        row.name: (row.method or "", METHODS.get(row.method or "", ""))
        for row in gathered.checkpoints
    }
    checkpoint = _meant("checkpoint", words[0], rows, lambda name: (name, *methods[name]))
    names = [group.name for group in gathered.groups]
    tasks = {group.name: (group.name, group.task) for group in gathered.groups}
    try:
        return checkpoint, _meant("task", words[1], names, lambda name: tasks[name])
    except _SeveralError as error:
        cells = {
            (checkpoint, group): gathered.cells.get((checkpoint, group), "")
            for group in error.choices
        }
        robins = {(name, one.group) for one in gathered.ranked for name in one.checkpoints}
        there = [key for key, cell in cells.items() if cell or key in robins]
        if len(there) == 1:  # a row is rarely in all of a task's groups
            return there[0]
        raise _several(words[1], _cells(cells)) from None


class _SeveralError(InputError):
    """A word that may mean several things."""

    def __init__(self, word: str, choices: Sequence[str]) -> None:
        super().__init__(
            f"{word!r} may be any of these; name one whole, or by its cell's id:\n  "
            + "\n  ".join(choices)
        )
        self.choices = choices


def _several(word: str, choices: Sequence[str]) -> InputError:
    return _SeveralError(word, choices)


def _cells(found: Mapping[tuple[str, str], str]) -> list[str]:
    return [
        f"{cell or '(no cell of its own)'}  {row} × {group}" for (row, group), cell in found.items()
    ]


def _titled(one: Mapping[str, Any]) -> str:
    against = f" against {one['opponent']} by {one['judge']}" if "judge" in one else ""
    return f"{one['cell']}  {one['checkpoint']} × {one['task']}{against}"


def _meant(what: str, word: str, choices: Sequence[T], names: Callable[[T], Sequence[str]]) -> T:
    """The choice that a word names: by a whole name, else in other letters, else by a part.

    Raises:
        InputError: none is, or several are.
    """
    steps: Sequence[Callable[[str], bool]] = (
        lambda name: name == word,
        lambda name: name.lower() == word.lower(),
        lambda name: word.lower() in name.lower(),
    )
    for fits in steps:
        # The first of the names is the choice's own, and counts before what several may share.
        for few in (slice(1), slice(None)):
            found = [one for one in choices if any(fits(name) for name in names(one)[few] if name)]
            if len(found) == 1:
                return found[0]
            if found:
                raise _SeveralError(word, [names(one)[0] for one in found])
    there = "\n  ".join(dict.fromkeys(names(one)[0] for one in choices))
    raise InputError(f"no {what} here is named {word!r}; there are:\n  {there}")


def _column(board: Board, row: Checkpoint, wanted: Sequence[str]) -> Column:
    """The column of the metric that is wanted, else the first that the task shows."""
    if wanted:
        return _meant(
            "metric",
            wanted[0],
            board.columns,
            lambda column: (column.metric.name, column.metric.name.partition(".v")[0]),
        )
    known = [column for column in board.columns if board.entry(row, column)]
    return next(iter([*(c for c in known if c.shown), *known, *board.columns]))
