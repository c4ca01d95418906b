"""Cosines between the gradients of single tokens, of one pair and all checkpoints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prefbench.leaderboard import Board, Gathered, Group
from prefbench.records import Answer, Checkpoint
from prefbench.report.figures.rows import finals
from prefbench.report.page.visible import visible
from prefbench.stats.bootstrap import Array
from prefbench.store import Store

BETWEEN = "\u241f"
"""Between the tokens of a text, as answers keep them."""
MOST = 13
"""Tokens of a text that are drawn, the first ones: with more, none could be read."""
LONGEST = 9
"""Characters of a token."""


@dataclass(frozen=True)
class Heat:
    """The cosines of one pair's tokens under one checkpoint."""

    row: Checkpoint
    cosines: Array
    """(n_chosen, n_rejected), NaN where a gradient is zero."""
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    """Tokens as they can be shown to people."""
    n_left_out: tuple[int, int]
    """Tokens beyond those that are drawn, of both texts."""


@dataclass(frozen=True)
class Heats:
    """One pair of a task, for all checkpoints that have its cosines."""

    group: Group
    item: int
    heats: tuple[Heat, ...]


def heats(gathered: Gathered, board: Board, store: Store | None) -> tuple[list[Heats], list[str]]:
    """Per task a pair that most checkpoints have, the longest that can be drawn whole.

    Returns:
        The pairs, and why tokens of some are not shown.
    """
    found: list[Heats] = []
    notices: list[str] = []
    for group in gathered.groups if store else ():
        by_row: dict[str, dict[int, Heat]] = {}
        broken = 0
        for row in finals(board):
            cell = gathered.cells.get((row.name, group.name))
            one = next(
                (m for m in gathered.measured if (m.checkpoint, m.group) == (row.name, group.name)),
                None,
            )
            if store is None or cell is None or one is None or "inner" not in one.quantities:
                continue
            for answer in store.answers(cell):
                if answer.cosines:
                    heat = _heat(row, answer)
                    if heat is None:
                        broken += 1
                    else:
                        by_row.setdefault(row.name, {})[answer.item] = heat
        if broken:
            notices.append(
                f"cosines of tokens on {group.name}: {broken} answers keep tokens that their "
                "cosines do not fit; they are not drawn"
            )
        if by_row:
            item = _telling(by_row)
            some = tuple(them[item] for them in by_row.values() if item in them)
            found.append(Heats(group, item, some))
    return found, notices


def _heat(row: Checkpoint, answer: Answer) -> Heat | None:
    """The matrix with its tokens; None where tokens and cosines do not fit."""
    texts = [text.split(BETWEEN) for text in answer.texts]
    if len(texts) != 2 or math.prod(map(len, texts)) != len(answer.cosines):
        return None
    matrix = np.asarray(answer.cosines, dtype=np.float64).reshape(len(texts[0]), len(texts[1]))
    chosen, rejected = (tuple(map(token_label, text[:MOST])) for text in texts)
    left_out = (max(0, len(texts[0]) - MOST), max(0, len(texts[1]) - MOST))
    return Heat(row, matrix[:MOST, :MOST], chosen, rejected, left_out)


def token_label(token: str) -> str:
    """A token for people: spaces as dots, signs that act written out whole, its middle left out."""
    signs = [visible(sign).replace(" ", "·") for sign in token[:LONGEST]]
    if len(token) <= LONGEST and sum(map(len, signs)) <= LONGEST:
        return "".join(signs) or "⟨empty⟩"
    last = [visible(sign).replace(" ", "·") for sign in token[-LONGEST:]]
    room = (LONGEST - 1) // 2
    head = _fitting(signs, room) or signs[0]
    return f"{head}…{_fitting(last[::-1], room, backwards=True)}" if len(token) > 1 else head


def _fitting(signs: Sequence[str], room: int, *, backwards: bool = False) -> str:
    """As many of the signs, from the first on, as have room."""
    kept: list[str] = []
    for sign in signs:
        room -= len(sign)
        if room < 0:
            break
        kept.append(sign)
    return "".join(kept[::-1] if backwards else kept)


def _telling(by_row: dict[str, dict[int, Heat]]) -> int:
    """The item that most have; of these the longest drawn whole, else the shortest."""
    counts = Counter(item for them in by_row.values() for item in them)
    most = max(counts.values())

    def rank(item: int) -> tuple[bool, float, int]:
        heat = next(them[item] for them in by_row.values() if item in them)
        whole = not any(heat.n_left_out)
        size = math.prod(heat.cosines.shape) + sum(heat.n_left_out)
        return whole, float(size if whole else -size), -item

    return max((item for item, n in counts.items() if n == most), key=rank)
