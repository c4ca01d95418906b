"""A round robin as the store has it: the cells of all pairs of checkpoints, as wins and ties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prefbench.leaderboard import Ranked
from prefbench.store import Store


def ranked(store: Store, group: str, pairs: Mapping[tuple[str, str], str]) -> Ranked:
    """Wins and ties by prompt from the sealed cells of some pairs.

    A sample that is worth exactly a half counts as a tie: a tie in both orders, equal texts, or a
    split. Where a pair has no verdict on a prompt, it was not compared there.

    Args:
        store: the results.
        group: the name of the column group.
        pairs: the cell of each pair of checkpoints, whose wins are the first one's.
    """
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    tables = {
        (names.index(first), names.index(second)): store.records(cell)
        for (first, second), cell in pairs.items()
    }
    clusters: dict[int, Any] = {}
    for table in tables.values():
        clusters |= dict(zip(table["item"].to_pylist(), table["cluster"].to_pylist(), strict=True))
    items = sorted(clusters)
    at = {item: place for place, item in enumerate(items)}
    wins, ties = np.zeros((2, len(items), len(names), len(names)))
    for (i, j), table in tables.items():
        rows = np.array([at[item] for item in table["item"].to_pylist()], dtype=int)
        win, even = (np.nan_to_num(table[name].to_numpy()) for name in ("win", "even"))
        there = ~np.isnan(table["win"].to_numpy())
        wins[rows, i, j] = np.where(there, win - even / 2, 0)
        wins[rows, j, i] = np.where(there, 1 - win - even / 2, 0)
        ties[rows, i, j] = ties[rows, j, i] = np.where(there, even, 0)
    return Ranked(group, tuple(names), np.array([clusters[item] for item in items]), wins, ties)
