"""One forward pass over a row of many sequences, behind a prefix whose keys are kept.

Attention is taken over through transformers' attention interface, so that a model's own code runs
unchanged: it sees one long row with position ids, and the mask says who sees whom.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from prefbench.engines.plain import bare, keeps_logits
from prefbench.engines.tree import Ints, Row
from prefbench.errors import EngineError

NAME = "prefbench_packed"
ROOM = 256
"""Keys and values grow by at least this many tokens."""
BLOCK = {"cpu": 128, "cuda": 1024}
"""Tokens that attend together."""
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
LENGTH_DEPENDENT = {"dynamic", "longrope"}
UNKNOWN = ("s_aux", "position_bias", "cache")
"""Parts of an attention that are not carried out here."""


class KeptKeys:
    """Keys and values of all layers: of the chain run so far, and behind it of what runs now."""

    def __init__(self) -> None:
        self.chain: Ints = np.empty(0, np.int32)
        """Tokens whose keys and values hold."""
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

    def clear(self) -> None:
        """Gives the memory back."""
        self._layers.clear()
        self.chain = self.chain[:0]


def _grown(like: torch.Tensor, start: int, end: int, old: torch.Tensor | None) -> torch.Tensor:
    """Room for `end` tokens, the first `start` kept."""
    shape = list(like.shape)
    shape[2] = end + ROOM
    new = like.new_empty(shape)
    if old is not None:
        new[:, :, :start] = old[:, :, :start]
    return new


class Block(NamedTuple):
    """Tokens low to high of a row attend together, to the row's tokens from `first` on."""

    first: int
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
        found += [Block(low, a, b) for a, b in itertools.pairwise(cuts)]
    return found


@dataclass
class _Running:
    """The row that is run, for the attention of each layer."""

    row: Row
    kept: KeptKeys
    blocks: Sequence[Block]
    device: torch.device
    dtype: torch.dtype
    _masks: dict[int | None, list[torch.Tensor]] = field(default_factory=dict)

    def masks(self, window: int | None) -> list[torch.Tensor]:
        """For each block 0 where a token is seen and minus infinity where not.

        Shapes are (high - low, start + high - first).
        """
        if window not in self._masks:
            self._masks[window] = [self._mask(block, window) for block in self.blocks]
        return self._masks[window]

    def _mask(self, block: Block, window: int | None) -> torch.Tensor:
        first, low, high = block
        index = np.arange(first, high)
        asking = np.arange(low, high)[:, None]
        seen = (index <= asking) & (asking < self.row.last[first:high])
        depths = np.concatenate([np.arange(self.row.start), self.row.depths[first:high]])
        whole = np.ones((high - low, len(depths)), bool)
        whole[:, self.row.start :] = seen
        if window is not None:
            whole &= self.row.depths[low:high, None] - depths < window
        mask = torch.zeros(whole.shape, dtype=self.dtype)
        mask.masked_fill_(~torch.from_numpy(whole), float("-inf"))
        return mask.to(self.device)


_RUNNING: ContextVar[_Running] = ContextVar("running")


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer over the kept prefix and the row."""
    for name in UNKNOWN:
        if rest.get(name) is not None:
            raise EngineError(f"its attention has {name}")
    running = _RUNNING.get()
    running.kept.windows[module.layer_idx] = sliding_window
    attend = partial(_attend, scaling=scaling, softcap=softcap)
    outputs = []
    first = -1
    for block, mask in zip(running.blocks, running.masks(sliding_window), strict=True):
        if block.first != first:
            first = block.first
            end = max(b.high for b in running.blocks if b.first == first)
            keys, values = running.kept.write(
                module.layer_idx, running.row.start, key[:, :, first:end], value[:, :, first:end]
            )
        n_seen = running.row.start + block.high - first
        outputs.append(
            attend(
                query[:, :, block.low : block.high],
                keys[:, :, :n_seen],
                values[:, :, :n_seen],
                mask,
            )
        )
    out = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)
    return out.transpose(1, 2), None


def _attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    *,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    if softcap is not None:
        return _capped(query, keys, values, mask, scaling, softcap)
    return scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=mask,
        scale=scaling,
        enable_gqa=query.shape[1] != keys.shape[1],
    )


def _capped(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
    cap: float,
) -> torch.Tensor:
    """Attention whose scores are squeezed between -cap and cap (Gemma 2)."""
    groups = query.shape[1] // keys.shape[1]
    keys, values = (t.repeat_interleave(groups, 1) for t in (keys, values))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query @ keys.transpose(-1, -2)) * scale
    weights = (cap * torch.tanh(scores / cap) + mask).softmax(-1, dtype=torch.float32)
    return weights.to(query.dtype) @ values


AttentionInterface.register(NAME, _attention)


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Has a model's layers attend by the row that is run, for the length of a `with`."""
    inner = bare(model)
    before = inner.config._attn_implementation
    inner.set_attn_implementation(NAME)
    try:
        yield
    finally:
        inner.set_attn_implementation(before)


def cannot_pack(model: Any) -> str | None:
    """Why a model cannot take packed rows, as far as its configuration tells."""
    inner = bare(model)
    config = inner.config.get_text_config()
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return "its adapter puts tokens of its own before each text"
    if not (
        getattr(inner, "_supports_attention_backend", False)
        and inner._can_set_attn_implementation()
    ):
        return f"the attention of {type(inner).__name__} cannot be replaced"
    if not keeps_logits(inner):
        return f"{type(inner).__name__} computes logits at all positions"
    if others := set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS:
        return f"it has layers of the kind {', '.join(sorted(others))}"
    if kinds := _rope_types(getattr(config, "rope_parameters", None)) & LENGTH_DEPENDENT:
        return f"its position embedding depends on the length of the text ({', '.join(kinds)})"
    return None


def longest_packed(model: Any, windows: Mapping[int, int | None], longest: int) -> int:
    """Up to what length packed rows are exact.

    A row is masked by the windows that the layers name to their attention; where the configuration
    has a window that they do not name, only texts that lie within it may be packed.
    """
    config = bare(model).config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return longest
    kinds = getattr(config, "layer_types", None)
    expected = kinds.count("sliding_attention") if kinds else len(windows)
    named = sum(one == window for one in windows.values())
    return longest if named == expected else min(longest, int(window))


def _rope_types(parameters: Any) -> set[str]:
    """All kinds of rotary embedding, of all kinds of layer."""
    if not isinstance(parameters, Mapping):
        return set()
    inner = set().union(*(_rope_types(value) for value in parameters.values()))
    return inner | {str(parameters["rope_type"])} if "rope_type" in parameters else inner


def run_row(model: Any, row: Row, positions: Ints, kept: KeptKeys) -> torch.Tensor:
    """Logits of some positions of a row.

    The row's keys are written behind the first `row.start` tokens of `kept`; the logits have the
    shape (n_positions, n_vocabulary) and the model's own number format.
    """
    weight = next(model.parameters())
    running = _Running(
        row, kept, blocks(row, BLOCK[weight.device.type]), weight.device, weight.dtype
    )
    kept.chain = kept.chain[: row.start]
    token = _RUNNING.set(running)
    try:
        output = model(
            input_ids=_on(row.tokens, weight.device)[None],
            position_ids=_on(row.depths, weight.device)[None],
            logits_to_keep=_on(positions, weight.device),
            use_cache=False,
        )
    finally:
        _RUNNING.reset(token)
    if row.is_chain:
        kept.chain = np.concatenate([kept.chain, row.tokens])
    return output.logits[0]  # type: ignore[no-any-return]


def _on(values: Ints, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device)
