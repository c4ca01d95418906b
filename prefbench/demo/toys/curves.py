"""Losses and their slopes over the probabilities of a chosen and a rejected response.

What Figures 1 and 2 of Tuan & Wang 2024, arxiv.org/abs/2408.16751, show, reconstructed from their
captions: the paper's own formulas and constants we could not read. Ours are responses of one
token, where token, mean and sequence forms are the same, and constants of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from prefbench.objectives import OBJECTIVES, PairLogps
from prefbench.stats.bootstrap import Array

BEFORE = 0.5
"""Probability of both responses under the reference, where a loss has one."""

Formula = Callable[[Array, Array], Array]
"""Of the probabilities of the chosen and of the rejected response."""


@dataclass(frozen=True)
class Loss:
    """A loss of two probabilities, and its slopes as known."""

    title: str
    method: str
    """Whose look it is drawn in."""
    objective: str
    chosen_slope: Formula
    rejected_slope: Formula
    parameters: Mapping[str, Any] = field(default_factory=dict)


# With a reference of equal probabilities and β = 1, DPO's margin is ln(p / q) and its loss
# ln(1 + q / p). DPOP's penalty multiplies q / p by 0.5 / p where p is below the reference.
LOSSES = (
    Loss("MLE", "sft", "sft", lambda p, q: -1 / p, lambda p, q: 0 * q),
    Loss(
        "Unlikelihood, α = 1", "unlikelihood", "unlikelihood",
        lambda p, q: -1 / p, lambda p, q: 1 / (1 - q), {"alpha": 1.0},
    ),
    Loss(
        "ExMATE, λ = 1", "exmate", "exmate",
        lambda p, q: -1 / p, lambda p, q: 1 + 0 * q, {"lambda_": 1.0},
    ),
    Loss(
        "DPO, β = 1", "dpo", "dpo",
        lambda p, q: -q / (p * (p + q)), lambda p, q: 1 / (p + q), {"beta": 1.0},
    ),
    Loss(
        "DPOP, β = λ = 1", "dpop", "dpop",
        lambda p, q: np.where(p < BEFORE, -2 * q / (p * (2 * p**2 + q)), -q / (p * (p + q))),
        lambda p, q: np.where(p < BEFORE, 1 / (2 * p**2 + q), 1 / (p + q)),
        {"beta": 1.0, "lambda_": 1.0},
    ),
    Loss(
        "IPO, τ = 1", "ipo", "ipo_sum",
        lambda p, q: 2 * (np.log(p / q) - 0.5) / p,
        lambda p, q: -2 * (np.log(p / q) - 0.5) / q, {"tau": 1.0},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Surface:
    """A loss over a grid of probabilities; all arrays have the shape of the two given ones."""

    loss: Loss
    chosen: Array
    rejected: Array
    values: Array
    chosen_slopes: Array
    """d loss / d P(chosen), by autograd."""
    rejected_slopes: Array
    """d loss / d P(rejected), by autograd."""


def surface(loss: Loss, chosen: Array, rejected: Array) -> Surface:
    """A loss and its slopes where the two probabilities have the given values."""
    chosen, rejected = np.broadcast_arrays(chosen, rejected)
    p, q = (torch.tensor(side.reshape(-1), requires_grad=True) for side in (chosen, rejected))
    ones = torch.ones_like(p)
    before = torch.full_like(p, BEFORE).log()
    policy = PairLogps(p.log(), q.log(), ones, ones, p.log()[:, None], q.log()[:, None])
    values = OBJECTIVES[loss.objective](
        policy, PairLogps(before, before, ones, ones), **loss.parameters
    )
    slopes = torch.autograd.grad(values.sum(), [p, q], allow_unused=True, materialize_grads=True)
    return Surface(
        loss,
        chosen,
        rejected,
        *(found.detach().numpy().reshape(chosen.shape) for found in (values, *slopes)),
    )
