"""One new token of each of several texts, which attends to its own text and a shared prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from prefbench.engines.attention import Attention, on_device
from prefbench.engines.packing import KeptKeys
from prefbench.engines.tree import Ints

ROOM = 64
"""Keys and values of the texts grow by so many tokens."""


class Piece(NamedTuple):
    """Tokens low to high of a row are those of a text from `offset` on."""

    text: int
    offset: int
    low: int
    high: int


class OwnKeys:
    """Keys and values of several texts behind what they share, (n_texts, n_heads, room, size)."""

    def __init__(self, lengths: Ints) -> None:
        self.lengths = lengths
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def fill(self, layer: int, piece: Piece, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keeps a piece of a row, whose keys are (1, n_heads, n_tokens, size)."""
        end = piece.offset + piece.high - piece.low
        for place, fresh in zip(
            self._room(layer, int(self.lengths.max()), keys, values), (keys, values), strict=True
        ):
            place[piece.text, :, piece.offset : end] = fresh[0, :, piece.low : piece.high]

    def add(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Puts one token behind each text and returns all; shapes (1, n_heads, n_texts, size)."""
        n = int(self.lengths.max()) + 1
        places = self._room(layer, n, keys, values)
        at = on_device(self.lengths, keys.device)
        every = torch.arange(len(at), device=at.device)
        for place, fresh in zip(places, (keys, values), strict=True):
            place[every, :, at] = fresh[0].transpose(0, 1)
        return places[0][:, :, :n], places[1][:, :, :n]

    def keep(self, texts: Sequence[int]) -> None:
        """Forgets all other texts; one that is named twice is there twice."""
        self.lengths = self.lengths[texts]
        n = int(self.lengths.max())
        for layer, places in self._layers.items():
            self._layers[layer] = (
                _roomy(places[0][texts, :, :n], n),
                _roomy(places[1][texts, :, :n], n),
            )

    def _room(
        self, layer: int, n: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        places = self._layers.get(layer)
        if places is None:
            none = len(self.lengths), keys.shape[1], 0
            places = (
                keys.new_empty(*none, keys.shape[3]),
                values.new_empty(*none, values.shape[3]),
            )
        if places[0].shape[2] < n:
            places = self._layers[layer] = (_roomy(places[0], n), _roomy(places[1], n))
        return places


def _roomy(old: torch.Tensor, n: int) -> torch.Tensor:
    """The same with room for n tokens and some more; zero, as what is masked must be a number."""
    shape = list(old.shape)
    shape[2] = n + ROOM
    new = old.new_zeros(shape)
    new[:, :, : old.shape[2]] = old
    return new


@dataclass
class Step:
    """The attention of one new token of each text: to the shared prefix and to its own text."""

    kept: KeptKeys
    n_shared: int
    own: OwnKeys
    _masks: dict[int | None, torch.Tensor] = field(default_factory=dict)

    def attend(
        self, ask: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        n_heads, n_texts, size = query.shape[1:]
        n_groups = key.shape[1]
        own_keys, own_values = self.own.add(ask.layer, key, value)
        grouped = query[0].view(n_groups, -1, n_texts, size)
        alone = grouped.permute(2, 0, 1, 3)  # text, group, head of the group, size
        parts = [alone @ own_keys.transpose(-1, -2)]
        if self.n_shared:
            shared_keys, shared_values = self.kept.read(ask.layer, self.n_shared)
            flat = grouped.reshape(n_groups, -1, size)
            scores = (flat @ shared_keys.transpose(-1, -2)).view(*grouped.shape[:3], -1)
            parts.insert(0, scores.permute(2, 0, 1, 3))
        scores = torch.cat(parts, -1) * ask.scale(size)
        if ask.cap is not None:
            scores = ask.cap * torch.tanh(scores / ask.cap)
        weights = (scores + self._mask(ask.window, own_keys)).softmax(-1, dtype=torch.float32)
        weights = weights.to(query.dtype)
        out = weights[..., self.n_shared :] @ own_values
        if self.n_shared:
            to_shared = weights[..., : self.n_shared].permute(1, 2, 0, 3)
            from_shared = to_shared.reshape(n_groups, -1, self.n_shared) @ shared_values
            out = out + from_shared.view(*grouped.shape[:3], -1).permute(2, 0, 1, 3)
        return out.permute(1, 2, 0, 3).reshape(1, n_heads, n_texts, -1)

    def _mask(self, window: int | None, own_keys: torch.Tensor) -> torch.Tensor:
        """0 where a key is seen and minus infinity where not, (n_texts, 1, 1, n_keys)."""
        if window not in self._masks:
            depths = np.arange(self.n_shared + own_keys.shape[2])
            asking = (self.n_shared + self.own.lengths)[:, None]
            seen = depths <= asking
            if window is not None:
                seen &= asking - depths < window
            mask = torch.zeros(seen.shape, dtype=own_keys.dtype)
            mask.masked_fill_(~torch.from_numpy(seen), float("-inf"))
            self._masks[window] = mask.to(own_keys.device)[:, None, None]
        return self._masks[window]
