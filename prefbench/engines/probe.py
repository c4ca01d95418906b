"""Whether an engine computes the checkpoint it is said to hold: asked about a text, and compared.

The comparison is a forward pass of the checkpoint's own files by transformers on the CPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from prefbench.engines.base import EngineSettings
from prefbench.machine import available_memory
from prefbench.records import Checkpoint
from prefbench.weights import read_weights

TEXT = (
    "A baker sold 48 rolls in the morning and half as many after lunch. How many rolls were sold "
    "that day? She counted twice, 48 + 24 = 72, and wrote: the answer is 72.\n\nHuman: Is it going "
    "to rain tomorrow?\n\nAssistant: I cannot see the sky from here, but the forecast says so."
)
N_TEXT = 96
"""Tokens of the text that are asked about: more than a block of any prefix cache."""
N_NEXT = 4
"""Tokens that are generated behind it."""

LARGEST = {"float64": 1e-6, "float32": 2e-3, "float16": 0.25, "bfloat16": 1.0}
MEAN = {"float64": 1e-6, "float32": 2e-4, "float16": 0.01, "bfloat16": 0.05}
"""How far log-probs per token may differ, in nats; sixteen bits round that much."""


class Probe(NamedTuple):
    """Log-probs in nats of a text behind its first token, and of what was generated behind it."""

    tokens: tuple[int, ...]
    logps: tuple[float, ...]
    n_generated: int


def difference(probe: Probe, direct: NDArray[np.float64], dtype: str) -> str | None:
    """How an engine differs from a direct forward pass, if by more than rounding.

    Args:
        probe: what the engine gave.
        direct: log-probs of all tokens behind each but the last, (n_tokens - 1, n_vocabulary).
        dtype: that both computed in.
    """
    rows = np.arange(len(probe.tokens) - 1)
    expected = direct[rows, list(probe.tokens[1:])]
    given = np.array(probe.logps)
    if not np.isfinite(expected).all():
        return "the checkpoint's own log-probs of a probe text are no numbers"
    if not np.isfinite(given).all():
        return "its log-probs of a probe text are no numbers, the checkpoint's own are"
    apart = np.abs(given - expected)
    if apart.max() > LARGEST[dtype] or apart.mean() > MEAN[dtype]:
        return (
            f"its log-probs of a probe text differ from the checkpoint's own by {apart.max():.2g} "
            f"nats, {apart.mean():.2g} on average"
        )
    best = direct[len(rows) - probe.n_generated :].max(-1)
    lost = best - expected[len(rows) - probe.n_generated :]
    if lost.max(initial=0) > LARGEST[dtype]:
        return f"a token that it generated is {lost.max():.2g} nats below the best"
    return None


def direct_logps(
    checkpoint: Checkpoint, settings: EngineSettings, tokens: Sequence[int], weights: Path
) -> NDArray[np.float64] | None:
    """What follows each token but the last, (n_tokens - 1, n_vocabulary); None without the memory.

    Args:
        checkpoint: the one that an engine was asked about.
        settings: what that engine was started with.
        tokens: of a text.
        weights: the directory of the full weights: an adapter's base is what takes the memory.

    Raises:
        EngineError: transformers cannot load the checkpoint.
    """
    from prefbench.engines.hf import open_hf

    found = read_weights(weights, adapter=False, allow_pickle=settings.allow_pickle)
    size = getattr(torch, settings.dtype).itemsize
    n_bytes = found.n_bytes if found.n_parameters is None else found.n_parameters * size
    room = available_memory()
    if room is not None and n_bytes * 1.2 > room:
        return None
    on_cpu = dataclasses.replace(settings, device="cpu")
    with open_hf(checkpoint, on_cpu) as engine, torch.inference_mode():
        logits = engine.model(torch.tensor([tokens[:-1]]), use_cache=False).logits[0]
        logps = logits.float().log_softmax(-1).double().numpy()
    return np.asarray(logps)
