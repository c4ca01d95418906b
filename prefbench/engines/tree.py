"""Requests as a tree of shared prefixes, and the tree cut into rows that a forward pass takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

MOST_LEVELS = 32
"""Branchings below one another; sequences that branch more often share no more."""
EVEN = 64
"""Shared prefixes are cut at multiples of this too, where other items' prefixes are cut alike."""
LEAST_SHARED = 4
"""A prefix is run by itself if that saves a row's tokens divided by this."""


class Line(NamedTuple):
    """Token ids of context and continuation, and where the continuation begins (at least 1)."""

    tokens: Ints
    start: int


class Budget(NamedTuple):
    """What one forward pass may hold: tokens, and positions whose logits are computed."""

    tokens: int
    scored: int


@dataclass(frozen=True)
class Scored:
    """Tokens to be scored: `targets[i]` follows position `offsets[i]`, for sequence `owners[i]`."""

    offsets: Ints
    targets: Ints
    owners: Ints


NOTHING = Scored(*(np.empty(0, np.int32) for _ in range(3)))


@dataclass(frozen=True)
class Node:
    """A run of tokens that one or more sequences have in common, and what follows it."""

    tokens: Ints
    scored: Scored = NOTHING
    children: tuple[Node, ...] = ()
    n_tokens: int = 0
    """Of the node and all below it."""
    n_scored: int = 0


@dataclass(frozen=True)
class Row:
    """Tokens of one forward pass behind a prefix of `start` tokens.

    Token j is seen by the tokens i with j <= i < last[j]; `depths` are the tokens' positions in
    their own sequences. The row's trees begin at `trees`.
    """

    start: int
    tokens: Ints
    depths: Ints
    last: Ints
    scored: Scored
    trees: Sequence[int]

    @property
    def is_chain(self) -> bool:
        """Whether each token follows the one before, so that another row may stand behind."""
        return bool((self.last == len(self.tokens)).all())


def node(tokens: Ints, scored: Scored = NOTHING, children: Sequence[Node] = ()) -> Node:
    """A node that knows the size of what is below it."""
    return Node(
        tokens,
        scored,
        tuple(children),
        len(tokens) + sum(child.n_tokens for child in children),
        len(np.unique(scored.offsets)) + sum(child.n_scored for child in children),
    )


def tree(sequences: Sequence[Line]) -> Node:
    """All inputs (a sequence's last token is only scored) as a radix tree."""
    keys = [s.tokens[:-1].astype(">i4").tobytes() for s in sequences]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    inputs = [sequences[i].tokens[:-1] for i in order]
    shared = [n_common(a, b) for a, b in itertools.pairwise(inputs)]
    starts = np.array([sequences[i].start - 1 for i in order])

    def grow(low: int, high: int, depth: int, level: int) -> Node:
        end = min(shared[low : high - 1], default=len(inputs[low]))
        scored = [
            _scored(sequences[order[i]], order[i], depth, end)
            for i in low + np.flatnonzero(starts[low:high] < end)
        ]
        first = next((i for i in range(low, high) if len(inputs[i]) > end), high)
        if level == MOST_LEVELS:
            cuts = list(range(first, high + 1))
        else:
            cuts = [first, *(i + 1 for i in range(first, high - 1) if shared[i] == end), high]
        children = [
            grow(a, b, end, min(level + 1, MOST_LEVELS))
            for a, b in itertools.pairwise(cuts)
            if a < b
        ]
        return node(inputs[low][depth:end], _joined(scored), children)

    return grow(0, len(order), 0, 0)


def n_common(first: Ints, second: Ints) -> int:
    """Length of the longest common prefix."""
    n = min(len(first), len(second))
    differ = first[:n] != second[:n]
    return int(differ.argmax()) if differ.any() else n


def _scored(sequence: Line, owner: int, depth: int, end: int) -> Scored:
    """What is scored of one sequence between two depths."""
    positions = np.arange(max(sequence.start - 1, depth), end, dtype=np.int32)
    owners = np.full(len(positions), owner, np.int32)
    return Scored(positions - depth, sequence.tokens[positions + 1], owners)


def _joined(parts: Sequence[Scored], shifts: Sequence[int] | None = None) -> Scored:
    if not parts:
        return NOTHING
    moved = [p.offsets + s for p, s in zip(parts, shifts or [0] * len(parts), strict=True)]
    return Scored(
        np.concatenate(moved).astype(np.int32),
        np.concatenate([p.targets for p in parts]),
        np.concatenate([p.owners for p in parts]),
    )


def rows(root: Node, budget: Budget, start: int = 0) -> Iterator[Row]:
    """The tree in rows, each right behind the prefix that was run last.

    A row stands behind the first `start` tokens of the rows that were chains since; so the rows
    are to be run in order. The root stands behind `start` tokens.
    """
    yield from _visit([root], budget, start)


def _visit(forest: Sequence[Node], budget: Budget, start: int) -> Iterator[Row]:
    small = [tree for tree in forest if _fits(tree, budget)]
    large = [tree for tree in forest if not _fits(tree, budget)]
    for bundle in _bundles(small, budget):
        yield _row(bundle, start)
    for one in large:
        depth, rest = start, [one]
        while len(rest) == 1 and _is_to_be_cut(rest[0], budget):
            piece, rest = _cut(rest[0], budget, depth)
            yield _row([piece], depth)
            depth += len(piece.tokens)
        if len(rest) == 1 and not _fits(rest[0], budget):
            rest = _divided(rest[0], budget)
        yield from _visit(rest, budget, depth)


def _is_to_be_cut(one: Node, budget: Budget) -> bool:
    return not _fits(one, budget) and not _is_cheaper_repeated(one, budget)


def _is_cheaper_repeated(one: Node, budget: Budget) -> bool:
    """Whether a node's own tokens cost less in each row below than in a row of their own."""
    left = _left(one, budget)
    if len(one.children) < 2 or left.tokens <= 0 or left.scored <= 0:
        return False
    n_rows = max(
        (one.n_tokens - len(one.tokens)) / left.tokens,
        (one.n_scored - budget.scored + left.scored) / left.scored,
    )
    return len(one.tokens) * (math.ceil(n_rows) - 1) * LEAST_SHARED < budget.tokens


def _left(one: Node, budget: Budget) -> Budget:
    """What a row has room for besides a node's own tokens."""
    own = len(np.unique(one.scored.offsets))
    return Budget(budget.tokens - len(one.tokens), budget.scored - own)


def _fits(one: Node, budget: Budget) -> bool:
    return one.n_tokens <= budget.tokens and one.n_scored <= budget.scored


def _bundles(forest: Sequence[Node], budget: Budget) -> Iterator[list[Node]]:
    """Trees in order, as many together as fit."""
    bundle: list[Node] = []
    n_tokens = n_scored = 0
    for one in forest:
        n_tokens += one.n_tokens
        n_scored += one.n_scored
        if bundle and (n_tokens > budget.tokens or n_scored > budget.scored):
            yield bundle
            bundle, n_tokens, n_scored = [], one.n_tokens, one.n_scored
        bundle.append(one)
    if bundle:
        yield bundle


def _divided(one: Node, budget: Budget) -> list[Node]:
    """The same sequences in smaller trees, each with the node's own tokens repeated."""
    left = _left(one, budget)
    small = [child for child in one.children if _fits(child, left)]
    large = [child for child in one.children if not _fits(child, left)]
    divided = [node(one.tokens, children=bundle) for bundle in _bundles(small, left)]
    divided += [
        node(
            np.concatenate([one.tokens, child.tokens]),
            _joined([child.scored], [len(one.tokens)]),
            child.children,
        )
        for child in large
    ]
    first = divided[0]  # what the node itself has to score is scored once
    scored = _joined([one.scored, first.scored])
    return [node(first.tokens, scored, first.children), *divided[1:]]


def _cut(one: Node, budget: Budget, depth: int) -> tuple[Node, list[Node]]:
    """A long beginning of a node that fits, and what then remains of the tree."""
    scored_at = np.unique(one.scored.offsets)
    end = min(len(one.tokens), budget.tokens)
    if len(scored_at) > budget.scored:
        end = min(end, int(scored_at[budget.scored]))
    if one.children and end == len(one.tokens):
        even = (depth + end) // EVEN * EVEN - depth
        end = even if even > 0 else end
    piece = node(one.tokens[:end], _part(one.scored, 0, end))
    if end == len(one.tokens):
        return piece, list(one.children)
    rest = _part(one.scored, end, len(one.tokens))
    return piece, [node(one.tokens[end:], rest, one.children)]


def _part(scored: Scored, low: int, high: int) -> Scored:
    inside = (scored.offsets >= low) & (scored.offsets < high)
    return Scored(scored.offsets[inside] - low, scored.targets[inside], scored.owners[inside])


def _row(forest: Sequence[Node], start: int) -> Row:
    """Trees one after another, each in the order in which it is walked."""
    tokens: list[Ints] = []
    depths: list[Ints] = []
    last: list[Ints] = []
    scored: list[Scored] = []
    shifts: list[int] = []
    n = 0

    def lay(one: Node, depth: int) -> None:
        nonlocal n
        size = len(one.tokens)
        tokens.append(one.tokens)
        depths.append(np.arange(depth, depth + size, dtype=np.int32))
        last.append(np.full(size, n + one.n_tokens, np.int32))
        scored.append(one.scored)
        shifts.append(n)
        n += size
        for child in one.children:
            lay(child, depth + size)

    trees = []
    for one in forest:
        trees.append(n)
        lay(one, start)
    return Row(
        start,
        np.concatenate(tokens),
        np.concatenate(depths),
        np.concatenate(last),
        _joined(scored, shifts),
        trees,
    )
