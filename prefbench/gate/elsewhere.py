"""A baseline that was measured elsewhere: last week's, in another results directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, find_baseline
from prefbench.store import Store

SAME: Mapping[str, str] = {
    "task": "another definition of the task",
    "data": "other data",
    "limit": "another number of items",
    "fewshot": "examples chosen otherwise",
    "shots": "examples from another split",
    "judge": "another definition of the judge",
    "against": "other answers of the opponent",
}
"""What must agree for items to be the same items, and what to say where it does not."""
NOTED: Mapping[str, str] = {
    "chat": "the chat template",
    "dtype": "the number format",
    "engine": "the engine",
    "max_length": "the context length asked for",
}
"""What may differ, and must be said."""


def with_baseline(
    gathered: Gathered, wanted: str | None, *, ours: Store, other: Gathered, theirs: Store
) -> tuple[Gathered, str]:
    """What was gathered, and beside it the baseline's row of another results directory.

    Items are paired where the task's definition, its data and all else that makes items the same
    agree. Where they do not, the row lacks the group, and says why.

    Args:
        gathered: what was measured here.
        wanted: a row or method there; None is the one SFT.
        ours: where it was measured.
        other: what was measured there.
        theirs: the other directory.

    Returns:
        All together, and the new row's name.

    Raises:
        InputError: the other directory has no such row.
    """
    found = find_baseline(other.checkpoints, wanted)
    if found is None:
        raise InputError(
            f"{theirs.name}: there is not exactly one SFT row; name one by --baseline or as the "
            "policy's `baseline`"
        )
    name = f"{found} in {theirs.name}"
    while any(row.name == name for row in gathered.checkpoints):
        name += "'"
    row = next(row for row in other.checkpoints if row.name == found)
    measured = {one.group: one for one in other.measured if one.checkpoint == found}
    reasons, notes, joined = dict(gathered.reasons), list(gathered.notes), list(gathered.measured)
    for group in gathered.groups:
        cells = [cell for (_, its), cell in gathered.cells.items() if its == group.name]
        if group.name not in measured:
            why = other.reasons.get((found, group.name), "not measured")
            reasons[name, group.name] = f"{why} in {theirs.name}"
        elif cells:
            here = _identity(ours, cells[0])
            there = _identity(theirs, other.cells[found, group.name])
            if unlike := [what for key, what in SAME.items() if here.get(key) != there.get(key)]:
                reasons[name, group.name] = (
                    f"it was measured with {' and '.join(unlike)}; measure it again with this one's"
                )
                continue
            joined.append(dataclasses.replace(measured[group.name], checkpoint=name))
            notes += [
                f"{group.name}: {what} differs ({here.get(key)} here, {there.get(key)} in "
                f"{theirs.name})"
                for key, what in NOTED.items()
                if here.get(key) != there.get(key)
            ]
    return (
        dataclasses.replace(
            gathered,
            checkpoints=(*gathered.checkpoints, dataclasses.replace(row, name=name)),
            measured=tuple(joined),
            reasons=reasons,
            notes=tuple(notes),
        ),
        name,
    )


def _identity(store: Store, cell: str) -> dict[str, Any]:
    manifest = store.manifest(cell)
    return dict(manifest["identity"]) if manifest else {}
