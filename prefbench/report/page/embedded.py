"""Samples as they lie in the page: an index that opens at once, packs that open on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefbench.errors import PrefbenchError
from prefbench.judging import VERDICTS
from prefbench.leaderboard import Gathered
from prefbench.report.page.chunks import Chunk, chunked, packed
from prefbench.report.page.samples import Rows, SampleSet, rows_of, sample_sets
from prefbench.report.page.verdicts import Kept
from prefbench.store import Store

BUDGET = 48 * 1024 * 1024
"""Characters that all samples may take in a page: it still opens at once."""
LEAST = 40
"""Characters that an answer takes at least: more items are not even looked at."""
HEAD = 90
"""Characters of a prompt in the list of samples."""
DIFFERS, MISSING = 1, 2
"""Bits of an item's flags."""


@dataclass(frozen=True)
class Embedded:
    """A set of samples, packed."""

    title: str
    n_items: int
    n_shown: int
    index: str
    chunks: tuple[str, ...]


def embed(
    store: Store,
    gathered: Gathered,
    *,
    labels: dict[str, str],
    limit: int | None,
    budget: int = BUDGET,
) -> tuple[list[Embedded], list[str]]:
    """The samples of everything that was asked, and what a reader must know of them.

    Args:
        store: the results.
        gathered: which of them the table shows.
        labels: how the table names the checkpoints.
        limit: items of a task, the first ones; None for as many as the budget holds.
        budget: characters that all samples may take where no limit is given.
    """
    sets = sample_sets(store, gathered, store.plans()) if limit != 0 else []
    done: list[Embedded] = []
    notes: list[str] = []
    left = budget
    with Kept(store.folder / VERDICTS) as kept:
        for i, one in enumerate(sets):
            room = left // (len(sets) - i) if limit is None else None
            try:
                found, said = _embedded(store, kept, one, labels, limit, room)
            except PrefbenchError as error:
                notes.append(f"{one.title}: no samples are shown: {error}")
                continue
            left -= sum(map(len, found.chunks))
            done.append(found)
            notes += [f"{one.title}: {note}" for note in said]
    return done, notes


def _embedded(
    store: Store,
    kept: Kept,
    one: SampleSet,
    labels: dict[str, str],
    limit: int | None,
    room: int | None,
) -> tuple[Embedded, Sequence[str]]:
    if limit is None and room is not None:
        limit = max(1, room // (LEAST * len(one.cells)))
    found = rows_of(store, kept, one, limit)
    items: list[int] = []
    heads: list[str] = []
    flags: list[int] = []

    def noted() -> Any:
        for row in found.rows:
            items.append(row["item"])
            heads.append(_head(row))
            flags.append(DIFFERS * row.pop("differs") + MISSING * row.pop("missing"))
            yield row

    chunks: list[Chunk] = []
    used = 0
    for chunk in chunked(noted()):
        if room is not None and chunks and used + len(chunk.text) > room:
            break
        chunks.append(chunk)
        used += len(chunk.text)
    n_shown = sum(chunk.n_rows for chunk in chunks)
    index = {
        "items": items[:n_shown],
        "heads": heads[:n_shown],
        "flags": flags[:n_shown],
        "chunks": [chunk.n_rows for chunk in chunks],
        "checkpoints": [labels.get(name, name) for name in found.checkpoints],
        "comparisons": [
            {
                "checkpoint": _place(found, each.checkpoint),
                "other": _place(found, each.opponent) if each.both else -1,
                "opponent": labels.get(each.opponent, each.opponent),
                "judge": each.judge,
            }
            for each in one.comparisons
        ],
        "shared": found.shared,
        "differ": found.differ,
    }
    texts = tuple(chunk.text for chunk in chunks)
    return Embedded(one.title, found.n_items, n_shown, packed(index), texts), found.notes


def _place(found: Rows, name: str) -> int:
    """Which of a set's checkpoints has a name; -1 for none, as of the reference."""
    return found.checkpoints.index(name) if name in found.checkpoints else -1


def _head(row: dict[str, Any]) -> str:
    """The beginning of what makes an item itself, on one line."""
    text = row["prompt"][: 20 * HEAD] or next(iter(row["texts"]), "")[: 20 * HEAD]
    return " ".join(text.split())[:HEAD]
