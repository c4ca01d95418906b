"""What checkpoints gave, item by item: which cells belong together, and a row per item."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from prefbench.leaderboard import Gathered, Group, row_order
from prefbench.metrics import metric_named
from prefbench.records import ROUND_ROBIN, Checkpoint
from prefbench.report.page.targets import roles_of, target_of
from prefbench.report.page.verdicts import Kept, verdicts_of
from prefbench.store import Store

LONG = 200
"""Characters that all prompts must begin with alike for these to be told once."""
REPEATED = ("sum_logp_", "text_logp_", "n_tokens_", "n_bytes_", "n_texts_")
"""Quantities of pairs that the log-probs beside the texts tell already."""
TOLD = ("cut", "unfinished")
"""Those that an answer's own marks tell."""


@dataclass(frozen=True)
class Judged:
    """A comparison of two checkpoints' answers, or of one's with the reference."""

    cell: str
    checkpoint: str
    opponent: str
    judge: str
    both: bool = False
    """Of a round robin: it is the opponent's as much as the checkpoint's."""


@dataclass
class SampleSet:
    """The items of a task with the answers of all checkpoints that were asked them."""

    title: str
    cells: dict[str, str] = field(default_factory=dict)
    """Of the answers, by checkpoint."""
    comparisons: list[Judged] = field(default_factory=list)
    shown: tuple[str, ...] = ()
    """The metrics that the task shows first."""


def sample_sets(
    store: Store, gathered: Gathered, plans: Sequence[Mapping[str, Any]]
) -> list[SampleSet]:
    """All that was asked, in the table's order; judges of the same answers share a set."""
    sets: dict[tuple[Any, ...], SampleSet] = {}

    def place(group: Group, checkpoint: str, cell: str) -> SampleSet | None:
        manifest = store.manifest(cell)
        if manifest is None or not store.records(cell).num_rows:
            return None  # values that were imported without items
        identity = manifest["identity"]
        same = tuple(identity.get(name) for name in ("task", "data", "limit", "fewshot"))
        title = f"{group.task}, {group.conditions}" if group.conditions else group.task
        one = sets.setdefault((group.task, *same), SampleSet(title, shown=group.shown))
        one.cells.setdefault(checkpoint, cell)
        return one

    for group in gathered.groups:
        for row in gathered.checkpoints:
            cell = gathered.cells.get((row.name, group.name))
            if cell is None:
                continue
            manifest = store.manifest(cell) or {}
            judging = manifest.get("judging")
            # What was judged, or worked out beside a reference, are the answers of another cell.
            about = judging or manifest.get("analysis") or {"answers": cell}
            one = place(group, row.name, about["answers"])
            if one and judging:
                one.comparisons.append(Judged(cell, row.name, judging["opponent"], group.judge))
        if group.opponent == ROUND_ROBIN:
            for judged, (ours, theirs) in robin(store, gathered, group, plans):
                one = place(group, judged.checkpoint, ours)
                place(group, judged.opponent, theirs)
                if one:
                    one.comparisons.append(judged)
    order = [row.name for row in sorted(gathered.checkpoints, key=row_order)]
    for one in sets.values():
        one.cells = {name: one.cells[name] for name in order if name in one.cells}
    return list(sets.values())


def robin(
    store: Store, gathered: Gathered, group: Group, plans: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Judged, tuple[str, str]]]:
    """The sealed comparisons of a round robin, each with the cells of both sides' answers."""
    rows = {str(row.path): row for row in gathered.checkpoints}
    seen = set()
    for plan in plans:
        paths = {facts["name"]: facts["path"] for facts in plan["checkpoints"]}
        for cell in plan.get("comparisons", ()):
            about = cell["task"], cell["against"], cell["judge"]
            if about != (group.task, ROUND_ROBIN, group.judge) or cell["cell"] in seen:
                continue
            first, second = (rows.get(paths[cell[key]]) for key in ("checkpoint", "opponent"))
            manifest = store.manifest(cell["cell"])
            if manifest is None or first is None or second is None:
                continue
            if not _is_of(cell["identity"], first, second):
                continue
            seen.add(cell["cell"])
            yield (
                Judged(cell["cell"], first.name, second.name, group.judge, both=True),
                (manifest["judging"]["answers"], manifest["judging"]["opponent_answers"]),
            )


def _is_of(identity: Mapping[str, Any], first: Checkpoint, second: Checkpoint) -> bool:
    """Whether two checkpoints still are those that were compared."""
    there = identity["checkpoint"], identity["opponent"]
    return there == (first.fingerprint, second.fingerprint)


@dataclass(frozen=True)
class Rows:
    """The rows of a set, as JSON takes them, and what they have in common."""

    checkpoints: tuple[str, ...]
    n_items: int
    rows: Iterator[dict[str, Any]]
    shared: str
    """What all prompts begin with, left out of the rows; empty where that is short."""
    differ: str
    """When an item's `differs` is set, in words."""
    notes: tuple[str, ...]


def rows_of(store: Store, kept: Kept, one: SampleSet, limit: int | None) -> Rows:
    """Every item with its prompt, its texts and what each checkpoint gave."""
    names = tuple(one.cells)
    manifests = {name: store.manifest(cell) or {} for name, cell in one.cells.items()}
    tables = {name: store.records(cell) for name, cell in one.cells.items()}
    items = sorted(set().union(*(table["item"].to_pylist() for table in tables.values())))
    there = items if limit is None else items[:limit]
    # Of many checkpoints only what is shown is unpacked: a whole suite would take gigabytes.
    wanted = set(there)
    numbers = {name: _by_item(table, there) for name, table in tables.items()}
    digests = Counter(manifest["items"] for manifest in manifests.values())
    prompts = {digest: _by_item(store.items(digest), there) for digest in digests}
    main = digests.most_common(1)[0][0]
    answers = {
        name: {answer.item: answer for answer in store.answers(cell) if answer.item in wanted}
        for name, cell in one.cells.items()
    }
    judged, notes = _judged(store, kept, one, there)
    shared = _shared([prompts[main][item]["prompt"] for item in there if item in prompts[main]])
    quantity, differ = _telling(one, numbers)
    config = manifests[names[0]]["task"]["config"]

    def rows() -> Iterator[dict[str, Any]]:
        for item in there:
            asked = prompts[main].get(item) or next(p[item] for p in prompts.values() if item in p)
            known = json.loads(asked["fields"])
            fields = known if isinstance(known, dict) else {}
            given = [_given(answers[name].get(item), numbers[name].get(item, {})) for name in names]
            for name, told in zip(names, given, strict=True):
                own = prompts[manifests[name]["items"]].get(item, asked)
                if told is not None and own["prompt"] != asked["prompt"]:
                    told["prompt"] = own["prompt"]
            found = judged.get(item, [])
            yield {
                "item": item,
                "prompt": asked["prompt"].removeprefix(shared),
                "texts": list(asked["continuations"]),
                "roles": roles_of(config, fields, len(asked["continuations"])),
                "target": target_of(config, fields, asked["continuations"]),
                "answers": given,
                "judged": found,
                "differs": _differs(quantity, given, found),
                "missing": any(told is None or told["reason"] for told in given)
                or any(verdict["reason"] for verdict in found),
            }

    return Rows(names, len(items), rows(), shared, differ, tuple(notes))


def _by_item(table: pa.Table, items: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Those rows of a table that are of some items."""
    there = pc.is_in(table["item"], value_set=pa.array(items, pa.int64()).cast(table["item"].type))
    return {row["item"]: row for row in table.filter(there).to_pylist()}


def _given(answer: Any, numbers: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a checkpoint gave for an item; None where it was not asked."""
    if answer is None:
        return None
    return {
        "texts": list(answer.written),
        "logps": [_number(value) for value in answer.logps],
        "n_tokens": list(answer.n_tokens),
        "unfinished": any(answer.unfinished),
        "n_cut": answer.n_cut,
        "reason": answer.reason or numbers.get("reason"),
        "numbers": {
            name: _number(value)
            for name, value in numbers.items()
            if isinstance(value, float) and not name.startswith(REPEATED) and name not in TOLD
        },
    }


def _number(value: float | None) -> float | str | None:
    """Six digits; what JSON has no number for, in words."""
    if value is None or math.isnan(value):
        return None
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


def _judged(
    store: Store, kept: Kept, one: SampleSet, items: Sequence[int]
) -> tuple[dict[int, list[dict[str, Any]]], list[str]]:
    """What judges said, by item, and why some of it is not here."""
    found: dict[int, list[dict[str, Any]]] = {}
    notes: dict[str, None] = {}
    for which, comparison in enumerate(one.comparisons):
        names = comparison.checkpoint, comparison.opponent
        told, reason = verdicts_of(store, kept, comparison.cell, names)
        if reason:
            notes[reason] = None
        for item, row in _by_item(store.records(comparison.cell), items).items():
            found.setdefault(item, []).append(
                {
                    "comparison": which,
                    "win": _number(row.get("win")),
                    "reason": row["reason"],
                    "verdicts": told.get(item, []),
                }
            )
    return found, list(notes)


def _shared(prompts: Sequence[str]) -> str:
    """What all prompts begin with, up to a line's end; nothing where it is short."""
    if len(prompts) < 2:
        return ""
    first, last = min(prompts), max(prompts)  # what these two begin with, all between do
    n = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    common = first[:n]
    common = common[: common.rfind("\n") + 1]
    return common if len(common) >= LONG else ""


def _telling(
    one: SampleSet, numbers: Mapping[str, Mapping[int, Mapping[str, Any]]]
) -> tuple[str, str]:
    """The quantity by which checkpoints agree on an item or do not, and what that means."""
    names = {name for rows in numbers.values() for row in list(rows.values())[:1] for name in row}
    if one.comparisons:
        return "win", "one wins and another loses"
    if "preferred" in names:
        return "preferred", "not all prefer the chosen text"
    for shown in one.shown:
        metric = metric_named(shown)
        if metric.proportion and metric.quantities[0] in names:
            return metric.quantities[0], f"{shown} differs"
    return "", "the texts differ"


def _differs(
    quantity: str, given: Sequence[dict[str, Any] | None], judged: Sequence[Mapping[str, Any]]
) -> bool:
    there = [told for told in given if told is not None]
    if quantity == "win":
        wins = [one["win"] for one in judged if isinstance(one["win"], float)]
        return any(win > 0.5 for win in wins) and any(win < 0.5 for win in wins)
    if quantity:
        values = {told["numbers"].get(quantity) for told in there}
        return len(values - {None}) > 1
    return len({tuple(told["texts"]) for told in there}) > 1
