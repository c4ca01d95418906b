"""What one cell needs of another."""

from __future__ import annotations

from typing import Any

from prefbench.cells import PlannedCell
from prefbench.errors import PrefbenchError
from prefbench.records import Answer
from prefbench.store import Store


def manifest_of(needed: PlannedCell, store: Store) -> dict[str, Any]:
    """The manifest of a cell that must be measured.

    Raises:
        PrefbenchError: it is not.
    """
    manifest = store.manifest(needed.cell)
    if manifest is None:
        reason = store.failure(needed.cell) or "it was not measured"
        raise PrefbenchError(f"{needed.title} is needed: {reason}")
    return manifest


def answers_of(needed: PlannedCell, store: Store, items: str) -> dict[int, Answer]:
    """Another cell's answers to the same texts, by item.

    Args:
        needed: the other cell.
        store: where its answers are.
        items: the digest of our texts.

    Raises:
        PrefbenchError: there are none, or the texts were others.
    """
    if manifest_of(needed, store)["items"] != items:
        raise PrefbenchError(
            f"{needed.checkpoint.name} was sent other texts than this checkpoint; do their chat "
            "templates differ? --chat-template off sends both the plain ones"
        )
    return {answer.item: answer for answer in store.answers(needed.cell)}
