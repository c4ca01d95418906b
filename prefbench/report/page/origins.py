"""How each number came about: from the manifests, what all cells of a task share told once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered, Group
from prefbench.records import ROUND_ROBIN
from prefbench.report.page.samples import robin
from prefbench.report.page.table import against
from prefbench.report.tables import label
from prefbench.store import Store


@dataclass(frozen=True)
class Origin:
    """How a task was measured."""

    title: str
    shared: tuple[tuple[str, str], ...]
    """Facts that are alike in all its cells."""
    heads: tuple[str, ...]
    """Facts that differ, by name."""
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    """For each checkpoint its label, its cell, and the facts that differ."""
    definition: Markup
    """The task's YAML as it was resolved, as JSON."""


def origins_of(store: Store, gathered: Gathered, shown: Shown) -> list[Origin]:
    """The tasks in the table's order, with every cell that has a number in it."""
    groups = {column.group.name: column.group for column in shown.columns}
    plans = store.plans()
    origins = []
    for group in groups.values():
        labels = {row.name: label(row, shown.board) for row in shown.board.rows}
        cells = [
            (labels[row.name], cell)
            for row in shown.board.rows
            if (cell := gathered.cells.get((row.name, group.name)))
        ]
        if group.opponent == ROUND_ROBIN:
            cells += [
                (f"{labels[one.checkpoint]} against {labels[one.opponent]}", one.cell)
                for one, _ in robin(store, gathered, group, plans)
            ]
        manifests = [(who, cell, found) for who, cell in cells if (found := store.manifest(cell))]
        if manifests:
            origins.append(_origin(group, manifests))
    return origins


def _origin(group: Group, manifests: list[tuple[str, str, dict[str, Any]]]) -> Origin:
    facts = [facts_of(manifest) for _, _, manifest in manifests]
    names = list(dict.fromkeys(name for one in facts for name in one))
    alike = [name for name in names if len({one.get(name) for one in facts}) == 1]
    differ = [name for name in names if name not in alike]
    title = ", ".join(part for part in (group.task, against(group), group.conditions) if part)
    return Origin(
        title,
        tuple((name, facts[0][name]) for name in alike if facts[0][name]),
        tuple(differ),
        tuple(
            (who, cell, tuple(one.get(name, "") for name in differ))
            for (who, cell, _), one in zip(manifests, facts, strict=True)
        ),
        # ASCII: nothing in it can steer or turn anything, and its line ends are ours.
        escape(json.dumps(manifests[0][2]["task"].get("config", {}), indent=1)),
    )


def facts_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a manifest says, as words."""
    identity, task = manifest["identity"], manifest["task"]
    engine, data = manifest.get("engine", {}), manifest.get("data", {})
    checkpoint = manifest["checkpoint"]
    facts = {
        "path": checkpoint.get("path"),
        "fingerprint": checkpoint.get("fingerprint"),
        "parameters": checkpoint.get("n_parameters"),
        "items": _items(manifest),
        "shots": task.get("n_shots"),
        "first items only": identity.get("limit"),
        "data": data.get("title"),
        "data revision": data.get("revision") or identity.get("data"),
        "task definition": identity.get("task"),
        "engine": engine.get("kind"),
        "number format": engine.get("dtype"),
        "device": engine.get("device"),
        "context length": engine.get("max_length"),
        "chat template": engine.get("chat_template"),
        "tokenizer": engine.get("tokenizer"),
        "sampling": _pairs(manifest.get("sampling") or {}),
        **_judging(manifest.get("judging") or {}),
        "versions": _pairs(manifest.get("versions", {})),
        "machine": _pairs(manifest.get("host", {})),
        "notes": "; ".join([*engine.get("notes", ()), *manifest.get("warnings", ())]),
        "finished": manifest.get("finished"),
        "seconds": manifest.get("seconds"),
        "command": shlex.join(map(str, manifest.get("command", ()))),
        "prompts": manifest.get("items"),
    }
    return {name: "" if value is None else str(value) for name, value in facts.items()}


def _items(manifest: Mapping[str, Any]) -> str:
    counts = {
        "missing": "n_missing",
        "cut at the start": "n_cut",
        "unfinished": "n_unfinished",
    }
    more = [f"{manifest[key]} {what}" for what, key in counts.items() if manifest.get(key)]
    return ", ".join([str(manifest.get("n_items", "")), *more])


def _judging(judging: Mapping[str, Any]) -> dict[str, Any]:
    """Who judged and what came of it."""
    if not judging:
        return {}
    judge = judging["judge"]
    recipe = judge["recipe"]
    model = judge.get("model") or {}
    return {
        "judge": judge["name"],
        "judge's key": judge["key"],
        "judge's model": recipe.get("model") or ", ".join(recipe.get("members", ())),
        "judge's weights": model.get("fingerprint"),
        "judge's address": (recipe.get("endpoint") or {}).get("base_url"),
        "opponent": judging["opponent"],
        "orders": "one, the judge sees none" if judging["symmetric"] else "both",
        "verdicts": ", ".join(
            f"{judging[key]} {what}"
            for what, key in (
                ("arrived", "n_verdicts"),
                ("unreadable", "n_unreadable"),
                ("not heard", "n_unheard"),
            )
        ),
        "price of the verdicts": f"${judging['cost']:.2f}",
    }


def _pairs(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
