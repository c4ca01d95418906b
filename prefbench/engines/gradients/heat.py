"""Which tokens pull together: cosines of the gradients of single tokens' log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefbench.engines.gradients.passes import respond
from prefbench.engines.gradients.probing import TokenPair
from prefbench.engines.gradients.vectors import stream

HELD = 1 << 28
"""Numbers of chosen tokens' gradients that are held at once: 1 GiB in float32."""


def token_cosines(
    model: Any, pair: TokenPair, parameters: Sequence[Tensor], *, held: int = HELD
) -> NDArray[np.float64]:
    """Cosine of each chosen token's gradient with each rejected token's, (n_chosen, n_rejected).

    As many chosen tokens' gradients are held as there is room for, one at least, and all rejected
    tokens' pass by, again for the next few chosen ones. The same was drawn by Yuan et al. 2024,
    arxiv.org/abs/2410.13828, of five pairs.

    Args:
        model: made ready for gradients of the parameters.
        pair: token ids that fit into the context.
        parameters: those that gradients are taken of.
        held: numbers that are held at once.
    """
    chosen, rejected = (respond(model, one).logps for one in pair[:2])
    wide = torch.promote_types(parameters[0].dtype, torch.float32)
    size = max(1, held // sum(one.numel() for one in parameters))
    rows = []
    for start in range(0, len(chosen), size):
        some = range(start, min(start + size, len(chosen)))
        block = _block(chosen, some, parameters, wide)
        rows.append(_cosines(block, rejected, parameters))
    return torch.cat(rows).double().cpu().numpy()


def _block(
    logps: Tensor, some: Sequence[int], parameters: Sequence[Tensor], wide: torch.dtype
) -> list[Tensor]:
    """Gradients of some tokens' log-probs, of each parameter (n_some, n_numbers)."""
    held = [one.detach().new_zeros(len(some), one.numel(), dtype=wide) for one in parameters]
    for row, token in enumerate(some):

        def take(index: int, gradient: Tensor, row: int = row) -> None:
            held[index][row] = gradient.reshape(-1)

        stream(logps, _at(token, logps), parameters, take, retain=True)
    return held


def _cosines(block: list[Tensor], logps: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Of a block of gradients with each token's, (n_in_block, n_tokens)."""
    of_block = torch.stack([part.square().sum(-1) for part in block]).sum(0)
    products = of_block.new_zeros(len(of_block), len(logps))
    squares = of_block.new_zeros(len(logps))
    for token in range(len(logps)):

        def take(index: int, gradient: Tensor, token: int = token) -> None:
            flat = gradient.reshape(-1).to(products)
            products[:, token] += block[index] @ flat
            squares[token] += flat @ flat

        stream(logps, _at(token, logps), parameters, take, retain=True)
    return products / (of_block[:, None] * squares).sqrt()


def _at(token: int, logps: Tensor) -> Tensor:
    """Weights that choose one token."""
    weights = torch.zeros_like(logps)
    weights[token] = 1.0
    return weights
