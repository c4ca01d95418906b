"""Attention taken over from a transformers model, whose own code runs unchanged.

The model sees one row of tokens with position ids; who attends to whom is up to the `Attending`
that `forward` is given. This is the way that transformers keeps for serving engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from transformers import AttentionInterface

from prefbench.engines.plain import bare, keeps_logits
from prefbench.engines.tree import Ints
from prefbench.errors import EngineError

NAME = "prefbench_packed"
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
LENGTH_DEPENDENT = {"dynamic", "longrope"}
HARMLESS = {
    "cache_position",
    "dropout",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "position_ids",
    "use_cache",
}
"""What models hand to their attention that changes nothing in it without training."""


class Attention(NamedTuple):
    """What a layer asks of its attention."""

    layer: int
    scaling: float | None
    window: int | None
    """Tokens that are seen, the own one among them; None for all."""
    cap: float | None
    """Scores are squeezed between -cap and cap (Gemma 2)."""

    def scale(self, head_size: int) -> float:
        return head_size**-0.5 if self.scaling is None else self.scaling


class Attending(Protocol):
    """Carries out the attention of every layer in one forward pass."""

    def attend(
        self, ask: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Shapes are (1, n_heads, n_tokens, head_size); the result's is the query's."""


_ATTENDING: ContextVar[Attending] = ContextVar("attending")


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """One layer's attention, as transformers calls it.

    Raises:
        EngineError: it is to be more than causal attention, whole or in a window.
    """
    others = [name for name, value in rest.items() if value is not None and name not in HARMLESS]
    if attention_mask is not None:  # none is made for this attention, so it is the model's own
        others.append("a mask of its own")
    if others:
        raise EngineError(f"its attention takes {', '.join(others)}")
    if is_causal is False or getattr(module, "is_causal", True) is False:
        raise EngineError("its attention is not causal")
    ask = Attention(module.layer_idx, scaling, sliding_window, softcap)
    out = _ATTENDING.get().attend(ask, query, key, value)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attention)


def heed_caps(model: Any) -> None:
    """Has a model cap its attention scores if it is one that does.

    transformers before 5.20 leaves Gemma 2 an attention that knows no caps, and says nothing.
    """
    inner = bare(model)
    cap = getattr(inner.config.get_text_config(), "attn_logit_softcapping", None)
    if cap is not None and inner.config._attn_implementation == "sdpa":
        inner.set_attn_implementation("eager")


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Has a model's layers attend as `forward` is told, for the length of a `with`."""
    inner = bare(model)
    before = {"": inner.config._attn_implementation}
    for name in inner.config.sub_configs:
        own = getattr(getattr(inner.config, name, None), "_attn_implementation", None)
        if own is not None:
            before[name] = own
    inner.set_attn_implementation(NAME)
    try:
        yield
    finally:
        inner.set_attn_implementation(before)


def forward(
    model: Any, attending: Attending, tokens: Ints, depths: Ints, positions: Ints
) -> torch.Tensor:
    """Logits at some positions of one row of tokens, (n_positions, n_vocabulary).

    They are in the model's own number format; `depths` are the tokens' positions in their texts.
    """
    device = next(model.parameters()).device
    token = _ATTENDING.set(attending)
    try:
        output = model(
            input_ids=on_device(tokens, device)[None],
            position_ids=on_device(depths, device)[None],
            logits_to_keep=on_device(positions, device),
            use_cache=False,
        )
    finally:
        _ATTENDING.reset(token)
    return output.logits[0]  # type: ignore[no-any-return]


def on_device(values: Ints, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device)


def cannot_pack(model: Any) -> str | None:
    """Why a model cannot take packed rows, as far as its configuration tells."""
    inner = bare(model)
    config = inner.config.get_text_config()
    for adapter in getattr(model, "peft_config", {}).values():
        if adapter.is_prompt_learning:
            return "its adapter puts tokens of its own before each text"
        if getattr(adapter, "alora_invocation_tokens", None):
            return "its adapter looks for tokens in the text"
    if not (
        getattr(inner, "_supports_attention_backend", False)
        and inner._can_set_attn_implementation()
    ):
        return f"the attention of {type(inner).__name__} cannot be replaced"
    if not keeps_logits(inner):
        return f"{type(inner).__name__} computes logits at all positions"
    if others := set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS:
        return f"it has layers of the kind {', '.join(sorted(others))}"
    if depends_on_length(bare(model).config):
        return "its position embedding depends on the length of the text"
    return None


def depends_on_length(config: Any) -> bool:
    """Whether a token's embedding changes with the longest text that is run beside it."""
    ropes = getattr(config.get_text_config(), "rope_parameters", None)
    return bool(_rope_types(ropes) & LENGTH_DEPENDENT)


def changes_at(config: Any) -> int | None:
    """The length at which embeddings of positions become those for long texts, if they do."""
    inner = config.get_text_config()
    ropes = getattr(inner, "rope_parameters", None) or {}
    if "longrope" not in _rope_types(ropes):
        return None
    original = ropes.get("original_max_position_embeddings") or getattr(
        inner, "original_max_position_embeddings", None
    )
    return int(original or inner.max_position_embeddings)


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
