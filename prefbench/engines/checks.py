"""Whether two ways of computing give the same, tried on made-up items."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prefbench.engines.tree import Ints, Line

TOLERANCE = {torch.bfloat16: 0.5, torch.float16: 0.1}
"""How far two log-probs of a made-up answer may be apart, in nats; 16 bits round that much."""


def made_up(n_vocabulary: int, max_length: int) -> list[Line]:
    """Two items behind a common prefix, each with choices of different length."""
    rng = np.random.default_rng(0)
    n = min(24, max_length // 2)

    def draw(size: int) -> Ints:
        return rng.integers(0, n_vocabulary, size, dtype=np.int32)

    prefix = draw(n)
    found = []
    for n_context in (max(1, n // 3), max(1, n // 6)):
        context = np.concatenate([prefix, draw(n_context)])
        found += [
            Line(np.concatenate([context, draw(n_choice)]), len(context))
            for n_choice in (max(1, n // 4), max(1, n // 8))
        ]
    return found


def takes_positions(model: Any, line: Line) -> bool:
    """Whether a model that is told the usual positions of a text computes what it does untold.

    It is then the same arithmetic, so the logits are equal to the bit.
    """
    ids = torch.from_numpy(line.tokens.astype(np.int64))[None].to(next(model.parameters()).device)
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    told = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    untold = model(input_ids=ids, use_cache=False).logits
    return torch.equal(told.nan_to_num(), untold.nan_to_num())


def difference(fast: NDArray[Any], plain: NDArray[Any], dtype: torch.dtype) -> str | None:
    """How log-probs differ, if they do by more than rounding makes them."""
    if np.allclose(fast, plain, atol=TOLERANCE.get(dtype, 1e-3), equal_nan=True):
        return None
    apart = np.abs(fast - plain)
    worst = np.max(apart[~np.isnan(apart)], initial=0)
    lost = int((np.isnan(fast) != np.isnan(plain)).sum())
    more = f", and {lost} are numbers one way only" if lost else ""
    return f"its log-probs in a check differ from the plain ones by {worst:.2g} nats{more}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no more memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)
