"""One forward pass over a row of many sequences, behind a prefix whose keys are kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from prefbench.engines.attention import Attention, forward
from prefbench.engines.tree import Ints, Row
from prefbench.errors import EngineError

ROOM = 256
"""Keys and values grow by at least this many tokens."""
BLOCK = {"cpu": 128, "cuda": 1024}
"""Tokens that attend together."""


class KeptKeys:
    """Keys and values of all layers: of the chain run so far, and behind it of what runs now."""

    def __init__(self) -> None:
        self.chain: Ints = np.empty(0, np.int32)
        """Tokens whose keys and values hold."""
        self._ends: list[int] = []
        """Where the rows that made the chain ended."""
        self.windows: dict[int, int | None] = {}
        """Sliding window of each layer, as the model names it to its attention."""
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def write(
        self, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Puts keys and values behind the first `start` and returns all up to their end.

        Shapes are (1, n_key_heads, n_tokens, head_size).
        """
        end = start + keys.shape[2]
        places = self._layers.get(layer)
        if places is None or places[0].shape[2] < end:
            before = places or (None, None)
            places = _grown(keys, start, end, before[0]), _grown(values, start, end, before[1])
            self._layers[layer] = places
        for place, fresh in zip(places, (keys, values), strict=True):
            place[:, :, start:end] = fresh
        return places[0][:, :, :end], places[1][:, :, :end]

    def read(self, layer: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the first n tokens, (n_key_heads, n, head_size) each."""
        keys, values = self._layers[layer]
        return keys[0, :, :n], values[0, :, :n]

    def has(self, row: Row) -> bool:
        """Whether the very same row has been run behind the same tokens.

        Rows cut otherwise would do for the mathematics, but not to the last bit: what is computed
        may not depend on what was computed before.
        """
        end = row.start + len(row.tokens)
        bounds = [0, *self._ends]
        return (
            not len(row.scored.owners)
            and (row.start, end) in itertools.pairwise(bounds)
            and bool((self.chain[row.start : end] == row.tokens).all())
        )

    def extend(self, row: Row) -> None:
        """Counts a row that is a chain among what is kept."""
        self.chain = np.concatenate([self.chain, row.tokens])
        self._ends.append(len(self.chain))

    def cut(self, n: int) -> None:
        """Keeps the rows within the first n tokens only."""
        self._ends = [end for end in self._ends if end <= n]
        self.chain = self.chain[: max(self._ends, default=0)]

    def clear(self) -> None:
        """Gives the memory back."""
        self._layers.clear()
        self.cut(0)


def _grown(like: torch.Tensor, start: int, end: int, old: torch.Tensor | None) -> torch.Tensor:
    """Room for `end` tokens, the first `start` kept."""
    shape = list(like.shape)
    shape[2] = end + ROOM
    new = like.new_empty(shape)
    if old is not None:
        new[:, :, :start] = old[:, :, :start]
    return new


class Block(NamedTuple):
    """Tokens low to high of a row attend together, to the row's tokens from `first` to high."""

    first: int
    end: int
    """Of the trees that stand together."""
    low: int
    high: int


def blocks(row: Row, size: int) -> list[Block]:
    """A row in blocks of about `size` tokens, so that few scores are computed for what is unseen.

    Trees beside each other share a block while they are small; a larger one is cut into several.
    """
    groups: list[tuple[int, int]] = []
    for low, high in itertools.pairwise([*row.trees, len(row.tokens)]):
        if groups and high - groups[-1][0] <= size:
            low = groups.pop()[0]
        groups.append((low, high))
    found = []
    for low, high in groups:
        cuts = np.linspace(low, high, max(1, round((high - low) / size)) + 1, dtype=int).tolist()
        found += [Block(low, high, a, b) for a, b in itertools.pairwise(cuts)]
    return found


@dataclass
class PackedRow:
    """The attention of a row behind the chain that is kept."""

    row: Row
    kept: KeptKeys
    on_keys: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None
    """Told each layer's keys and values of the row."""
    _masks: dict[int | None, list[tuple[Block, torch.Tensor]]] = field(default_factory=dict)
    """By window."""
    _asked: set[int] = field(default_factory=set)

    def attend(
        self, ask: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        if ask.layer in self._asked:  # its keys would be overwritten
            raise EngineError(f"it attends twice in layer {ask.layer}")
        self._asked.add(ask.layer)
        self.kept.windows[ask.layer] = ask.window
        if self.on_keys:
            self.on_keys(ask.layer, key, value)
        if ask.window not in self._masks:
            cut = blocks(self.row, BLOCK.get(query.device.type, 128))
            self._masks[ask.window] = [
                (block, self._mask(block, ask.window, query)) for block in cut
            ]
        outputs = []
        for block, mask in self._masks[ask.window]:
            if block.low == block.first:
                keys, values = self.kept.write(
                    ask.layer,
                    self.row.start,
                    key[:, :, block.first : block.end],
                    value[:, :, block.first : block.end],
                )
            n_seen = self.row.start + block.high - block.first
            outputs.append(
                _attend(
                    ask,
                    query[:, :, block.low : block.high],
                    keys[:, :, :n_seen],
                    values[:, :, :n_seen],
                    mask,
                )
            )
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)

    def _mask(self, block: Block, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """0 where a token is seen and minus infinity where not.

        Shape (block.high - block.low, row.start + block.high - block.first).
        """
        first, _, low, high = block
        index = np.arange(first, high)
        asking = np.arange(low, high)[:, None]
        depths = np.concatenate([np.arange(self.row.start), self.row.depths[first:high]])
        seen = np.ones((high - low, len(depths)), bool)
        seen[:, self.row.start :] = (index <= asking) & (asking < self.row.last[first:high])
        if window is not None:
            seen &= self.row.depths[low:high, None] - depths < window
        mask = torch.zeros(seen.shape, dtype=like.dtype)
        mask.masked_fill_(~torch.from_numpy(seen), float("-inf"))
        return mask.to(like.device)


def _attend(
    ask: Attention,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    groups = query.shape[1] // keys.shape[1]
    if groups > 1 and (ask.cap is not None or query.device.type != "cpu"):
        # A GPU's fast kernels take grouped heads or a mask, not both.
        keys, values = (t.repeat_interleave(groups, 1) for t in (keys, values))
        groups = 1
    if ask.cap is None:
        return scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, scale=ask.scaling, enable_gqa=groups > 1
        )
    scores = (query @ keys.transpose(-1, -2)) * ask.scale(query.shape[-1])
    weights = (ask.cap * torch.tanh(scores / ask.cap) + mask).softmax(-1, dtype=torch.float32)
    return weights.to(query.dtype) @ values


def run_row(
    model: Any,
    row: Row,
    positions: Ints,
    kept: KeptKeys,
    on_keys: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Logits at some positions of a row, as `forward` gives them.

    The row's keys are written behind the first `row.start` tokens of `kept`.
    """
    kept.cut(row.start)
    logits = forward(model, PackedRow(row, kept, on_keys), row.tokens, row.depths, positions)
    if row.is_chain:
        kept.extend(row)
    return logits
