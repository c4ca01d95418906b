"""Two responses that differ in one token: what they share ties their gradients together.

Position 0 holds the differing token, under a uniform distribution over the vocabulary; then come
tokens that both responses share. Each position has free logits, which both responses use; after
the difference each response adds an offset of its own, so that one of them is surer of the shared
token than the other. Only the free logits learn.

Ours, after section 4.3 of Yuan et al. 2024, arxiv.org/abs/2410.13828, whose theorems we could not
read; the two conditions are that paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from prefbench.objectives import OBJECTIVES, PairLogps

N_TOKENS = 50
BETA = 0.1
RATE = 0.1
"""Of the one step of plain gradient descent."""
_CHOSEN, _REJECTED, _SHARED = 0, 1, 2


class Confidence(NamedTuple):
    """How probable a shared token is after the chosen token, and after the rejected one."""

    chosen: float
    rejected: float


SURER_CHOSEN, SURER_REJECTED = Confidence(0.6, 0.2), Confidence(0.2, 0.6)


class Products(NamedTuple):
    """Inner products of the gradients of the two responses' log-probs."""

    inner: float
    chosen: float
    """Squared norm of the chosen one's gradient."""
    rejected: float

    @property
    def cosine(self) -> float:
        """Of the angle between the two gradients."""
        return float(self.inner / np.sqrt(self.chosen * self.rejected))


class Moves(NamedTuple):
    """How the two log-probs change in one step, in nats."""

    chosen: float
    rejected: float


class Pulls(NamedTuple):
    """What a loss falls by per nat: with the chosen log-prob up, and with the rejected one down."""

    chosen: float
    rejected: float


@dataclass(frozen=True)
class Entanglement:
    """Two responses with so many shared tokens after the difference."""

    confidence: Confidence
    n_shared: int
    products: Products
    predicted: Moves
    """By the first order, from the products."""
    actual: Moves
    """By one step of DPO."""


def known_products(confidence: Confidence, n_shared: int, n_tokens: int = N_TOKENS) -> Products:
    """The closed form.

    The differing token gives −1/M, and 1 − 1/M to each square. A shared one gives
    1 − p − q + ⟨s, t⟩, where s and t are the distributions after the two tokens and p and q their
    shares of the shared token; with the rest spread evenly that is (1 − p)(1 − q) M / (M − 1).
    """
    m = n_tokens / (n_tokens - 1)
    p, q = (1 - share for share in confidence)
    return Products(
        -1 / n_tokens + n_shared * m * p * q,
        1 - 1 / n_tokens + n_shared * m * p**2,
        1 - 1 / n_tokens + n_shared * m * q**2,
    )


def turning_point(confidence: Confidence, n_tokens: int = N_TOKENS) -> float:
    """Shared tokens from which the surer response goes where the other goes; infinite if equal."""
    m = n_tokens / (n_tokens - 1)
    low, high = sorted(1 - share for share in confidence)
    return float("inf") if low == high else 1 / (m * low * (high - low))


def entanglements(confidence: Confidence, numbers: Sequence[int]) -> list[Entanglement]:
    """What happens with so many shared tokens, each number of them on its own."""
    return [entanglement(confidence, n_shared) for n_shared in numbers]


def entanglement(
    confidence: Confidence, n_shared: int, *, n_before: int = 0, n_tokens: int = N_TOKENS
) -> Entanglement:
    """Products, prediction and actual step of one pair.

    Args:
        confidence: in the tokens after the difference.
        n_shared: tokens after the difference.
        n_before: shared tokens before the difference, under a uniform distribution.
        n_tokens: of the vocabulary.
    """
    logits, offsets = _model(confidence, n_shared, n_before, n_tokens)
    before = _logps(logits, offsets, n_before)
    chosen, rejected = (
        torch.autograd.grad(one, [logits], retain_graph=True)[0].reshape(-1) for one in before
    )
    products = Products(
        float(chosen @ rejected), float(chosen @ chosen), float(rejected @ rejected)
    )
    fixed = before.detach()
    pulls, step = _dpo(logits, before, fixed)
    predicted = Moves(
        RATE * (pulls.chosen * products.chosen - pulls.rejected * products.inner),
        RATE * (pulls.chosen * products.inner - pulls.rejected * products.rejected),
    )
    after = _logps(logits.detach() - RATE * step, offsets, n_before)
    actual = Moves(*(float(change) for change in after - fixed))
    return Entanglement(confidence, n_shared, products, predicted, actual)


def _dpo(
    logits: torch.Tensor, logps: torch.Tensor, reference: torch.Tensor
) -> tuple[Pulls, torch.Tensor]:
    """How hard DPO pulls at the two log-probs, and its gradient on the logits."""
    one = torch.ones(1)
    losses = OBJECTIVES["dpo"](
        PairLogps(logps[:1], logps[1:], one, one),
        PairLogps(reference[:1], reference[1:], one, one),
        beta=BETA,
    )
    slopes, step = torch.autograd.grad(losses.sum(), [logps, logits])
    return Pulls(-float(slopes[0]), float(slopes[1])), step


def _model(
    confidence: Confidence, n_shared: int, n_before: int, n_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Free logits (n_positions, n_tokens), and each response's offsets (2, n_positions, …)."""
    n_positions = n_before + 1 + n_shared
    offsets = torch.zeros(2, n_positions, n_tokens, dtype=torch.float64)
    for side, share in enumerate(confidence):
        offsets[side, n_before + 1 :, _SHARED] = np.log(share / (1 - share) * (n_tokens - 1))
    return torch.zeros(n_positions, n_tokens, dtype=torch.float64, requires_grad=True), offsets


def _logps(logits: torch.Tensor, offsets: torch.Tensor, n_before: int) -> torch.Tensor:
    """Summed log-probs of the chosen and of the rejected response, (2,)."""
    targets = torch.full(offsets.shape[:2], _SHARED)
    targets[:, n_before] = torch.tensor([_CHOSEN, _REJECTED])
    logps = torch.log_softmax(logits + offsets, dim=-1)
    return logps.gather(-1, targets[..., None]).sum(dim=(1, 2))
