"""From a results directory to a leaderboard, without torch."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefbench.boards.scored import board_of
from prefbench.errors import InputError
from prefbench.leaderboard import Board, Gathered, Group, Measured
from prefbench.records import ROUND_ROBIN, Checkpoint
from prefbench.report.notes import notes_of
from prefbench.report.round_robin import ranked
from prefbench.stats.estimates import Estimate, Method
from prefbench.store import Store


def collect(
    results: Path,
    *,
    plan: str | None = None,
    tasks: Sequence[str] = (),
    baseline: str | None = None,
    confidence: float = 0.95,
    interval: Method = "percentile",
    n_resamples: int = 10_000,
) -> Board:
    """The leaderboard of all that a results directory holds, or of one run.

    Raises:
        StoreError: the directory has no readable results.
        InputError: the plan, a task or the baseline is unknown.
    """
    return board_of(
        gather(results, plan=plan, tasks=tasks),
        baseline=baseline,
        confidence=confidence,
        interval=interval,
        n_resamples=n_resamples,
    )


def gather(results: Path, *, plan: str | None = None, tasks: Sequence[str] = ()) -> Gathered:
    """What a results directory holds, or what one run measured, as a leaderboard needs it.

    A later run's word counts where two differ: on what lies at a checkpoint's path, and on what a
    task's definition and data are.

    Raises:
        StoreError: the directory has no readable results.
        InputError: the plan or a task is unknown.
    """
    store = Store(results, create=False)
    plans = [one for one in store.plans() if plan is None or one["id"] == plan]
    if not plans:
        raise InputError(f"{store.name}: no run is recorded here; `prefbench run` records one")
    rows: dict[str, Checkpoint] = {}
    cells: dict[tuple[str, str], Mapping[str, Any]] = {}
    latest: dict[str, Mapping[str, Any]] = {}
    again: dict[tuple[str, str], Mapping[str, Any]] = {}
    pairs: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {}
    for one in plans:
        paths = {facts["name"]: facts["path"] for facts in one["checkpoints"]}
        for facts in one["checkpoints"]:
            rows[facts["path"]] = _checkpoint(facts)
        for cell in [*one["cells"], *one.get("comparisons", ()), *one.get("analyses", ())]:
            if not tasks or cell["task"] in tasks or cell.get("sweep") in tasks:
                group = _group_name(cell)
                if cell["identity"].get("repeat"):
                    again[paths[cell["checkpoint"]], group] = cell
                    continue
                latest.pop(group, None)
                latest[group] = cell
                if cell.get("against") == ROUND_ROBIN:
                    both = paths[cell["checkpoint"]], paths[cell["opponent"]]
                    pairs.setdefault(group, {})[both] = cell
                else:
                    cells[paths[cell["checkpoint"]], group] = cell
    if tasks and not latest:
        raise InputError(f"{store.name}: none of {', '.join(tasks)} was run here")
    names = _told_apart(rows)
    return _gathered(
        store,
        {name: dataclasses.replace(rows[path], name=name) for path, name in names.items()},
        {(names[path], group): cell for (path, group), cell in cells.items()},
        {(names[path], group): cell for (path, group), cell in again.items()},
        {
            group: {(names[i], names[j]): cell for (i, j), cell in both.items()}
            for group, both in pairs.items()
        },
        latest,
    )


def _told_apart(rows: Mapping[str, Checkpoint]) -> dict[str, str]:
    """A name per path: the checkpoint's own, with more of its path where two have the same."""
    own = {path: row.name for path, row in rows.items()}
    counts = Counter(own.values())
    names = dict(own)
    for path, name in own.items():
        if counts[name] > 1:
            alike = [Path(other).parts for other, same in own.items() if same == name]
            parts = Path(path).parts
            n = len(Path(name).parts) + 1
            while n < len(parts) and sum(other[-n:] == parts[-n:] for other in alike) > 1:
                n += 1
            names[path] = "/".join(parts[-n:])
    return names


def _without_values(manifest: Mapping[str, Any]) -> str:
    why = "; ".join(manifest["missing"])
    return f"none of its {manifest['n_items']} items has a value" + (f": {why}" if why else "")


def _gathered(
    store: Store,
    rows: Mapping[str, Checkpoint],
    cells: Mapping[tuple[str, str], Mapping[str, Any]],
    again: Mapping[tuple[str, str], Mapping[str, Any]],
    pairs: Mapping[str, Mapping[tuple[str, str], Mapping[str, Any]]],
    latest: Mapping[str, Mapping[str, Any]],
) -> Gathered:
    measured: list[Measured] = []
    reasons: dict[tuple[str, str], str] = {}
    manifests: dict[str, list[dict[str, Any]]] = {name: [] for name in latest}
    for (checkpoint, group), cell in cells.items():
        manifest = store.manifest(cell["cell"])
        if reason := _stale(cell, latest[group], rows[checkpoint]):
            reasons[checkpoint, group] = reason
        elif manifest is None:
            failure = cell["missing"] or store.failure(cell["cell"])
            reasons[checkpoint, group] = failure or "not measured yet"
        else:
            named = {**manifest["checkpoint"], "name": checkpoint}  # rows may share a cell
            manifests[group].append({**manifest, "checkpoint": named})
            measured.append(_measured(store, cell["cell"], checkpoint, group, manifest))
            if manifest["n_missing"] == manifest["n_items"] > 0:
                reasons[checkpoint, group] = _without_values(manifest)
    repeated = list(_repeated(store, cells, again, {(m.checkpoint, m.group) for m in measured}))
    robins, missing = [], []
    for group, both in pairs.items():
        sealed = {}
        for (first, second), cell in both.items():
            manifest = store.manifest(cell["cell"])
            reason = _stale_pair(cell, latest[group], rows[first], rows[second])
            if not reason and manifest is None:
                reason = cell["missing"] or store.failure(cell["cell"]) or "not measured yet"
            if reason:
                reasons.setdefault((first, group), reason)
                reasons.setdefault((second, group), reason)
                missing.append((group, first, second, reason))
            elif manifest is not None:
                manifests[group].append(manifest)
                sealed[first, second] = cell["cell"]
        if sealed:
            robins.append(ranked(store, group, sealed))
    groups = [_group(name, latest[name], found) for name, found in manifests.items()]
    notes = [note for group in groups for note in group.notes]
    notes += _twice(repeated)
    notes += [
        f"{group}: {first} and {second} were not compared, and the strengths do without: {reason}"
        for group, first, second, reason in missing
        if manifests[group]
    ]
    return Gathered(
        checkpoints=tuple(rows.values()),
        groups=tuple(groups),
        measured=tuple(measured),
        ranked=tuple(robins),
        repeated=tuple(repeated),
        reasons=reasons,
        notes=tuple(notes),
        cells={
            (one.checkpoint, one.group): cells[one.checkpoint, one.group]["cell"]
            for one in measured
        },
    )


def _twice(repeated: Sequence[Measured]) -> list[str]:
    """Who was measured twice, together where it was on the same tasks."""
    tasks: dict[str, list[str]] = {}
    for one in repeated:
        tasks.setdefault(one.checkpoint, []).append(one.group)
    rows: dict[str, list[str]] = {}
    for name, groups in tasks.items():
        rows.setdefault(", ".join(groups), []).append(name)
    return [
        f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} measured twice on {groups}: "
        "noise is how they differ"
        for groups, names in rows.items()
    ]


def _repeated(
    store: Store,
    cells: Mapping[tuple[str, str], Mapping[str, Any]],
    again: Mapping[tuple[str, str], Mapping[str, Any]],
    shown: Collection[tuple[str, str]],
) -> Iterator[Measured]:
    """What was measured a second time, of what is shown and under the same conditions."""
    for (checkpoint, group), cell in again.items():
        identity = dict(cell["identity"])
        del identity["repeat"]
        if (checkpoint, group) in shown and identity == cells[checkpoint, group]["identity"]:
            manifest = store.manifest(cell["cell"])
            if manifest is not None:
                yield _measured(store, cell["cell"], checkpoint, group, manifest)


def _stale(cell: Mapping[str, Any], latest: Mapping[str, Any], row: Checkpoint) -> str | None:
    """Why a cell must not stand in the table any more, if so."""
    if cell["identity"]["checkpoint"] != row.fingerprint:
        return "the checkpoint has changed since; run again"
    if any(cell["identity"][key] != latest["identity"][key] for key in ("task", "data")):
        return "measured with an older definition of the task; run again"
    if any(cell["identity"].get(k) != latest["identity"].get(k) for k in ("judge", "against")):
        return "judged by an older definition of the judge, or against other answers; run again"
    return None


def _stale_pair(
    cell: Mapping[str, Any], latest: Mapping[str, Any], first: Checkpoint, second: Checkpoint
) -> str | None:
    """Why two checkpoints' comparison must not stand in the table any more, if so."""
    if cell["identity"]["opponent"] != second.fingerprint:
        return "the checkpoint has changed since; run again"
    against = cell["identity"]["against"]  # each pair has its own
    identity = {**latest["identity"], "against": against}
    return _stale(cell, {**latest, "identity": identity}, first)


def _measured(
    store: Store, cell: str, checkpoint: str, group: str, manifest: Mapping[str, Any]
) -> Measured:
    table = store.records(cell)
    names = [n for n in table.column_names if n not in ("item", "cluster", "reason")]
    return Measured(
        checkpoint,
        group,
        table["item"].to_numpy(),
        np.asarray(table["cluster"].combine_chunks().to_pandas().astype(object)),
        {name: table[name].to_numpy() for name in names},
        _sure(table, manifest),
        given=_given(manifest),
    )


def _given(manifest: Mapping[str, Any]) -> dict[str, Estimate]:
    """The values that an imported file gives without items."""
    found = {}
    for name, told in manifest.get("imported", {}).get("metrics", {}).items():
        se = np.nan if told["se"] is None else told["se"]
        found[name] = Estimate(
            told["value"], np.nan, np.nan, told["n"] or 0, method="imported", se=se
        )
    return found


def _sure(table: Any, manifest: Mapping[str, Any]) -> Estimate | None:
    """The win rate of a comparison that ended when it was sure."""
    bounds = manifest.get("judging", {}).get("sure")
    if not bounds:
        return None
    value = float(np.nanmean(table["win"].to_numpy()))
    low, high = bounds
    return Estimate(value, low, high, n=0, method="confidence sequence")


def _group_name(cell: Mapping[str, Any]) -> str:
    conditions = _conditions(cell)
    against = f"against {cell['against']} by {cell['judge']}" if "judge" in cell else ""
    return ", ".join(part for part in (cell["task"], against, conditions) if part)


def _conditions(cell: Mapping[str, Any]) -> str:
    """Whatever of the conditions is not the task's default."""
    identity = cell["identity"]
    parts = []
    if identity["limit"] is not None:
        parts.append(f"first {identity['limit']} items")
    if identity["fewshot"] == "parity":
        parts.append("lm-eval's own shots")
    if cell.get("conditions"):  # of a column that was imported
        parts.append(cell["conditions"])
    return ", ".join(parts)


def _group(name: str, cell: Mapping[str, Any], manifests: Sequence[dict[str, Any]]) -> Group:
    notes = notes_of(name, cell, manifests) if manifests else []
    return Group(
        name,
        cell["task"],
        _conditions(cell),
        tuple(cell["shown"]),
        manifests[0]["higher_is_better"] if manifests else {},
        tuple(notes),
        opponent=cell.get("against", ""),
        judge=cell.get("judge", ""),
    )


def _checkpoint(facts: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(**{**facts, "path": Path(facts["path"])})
