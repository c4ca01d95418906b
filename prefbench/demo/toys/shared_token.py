"""One token that both responses share, at the same probability: what each loss does to it.

The argument is ours: it is what the losses say of one step of a softmax model, and fits the
captions of Tuan & Wang 2024, arxiv.org/abs/2408.16751, whose own reasoning we could not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from prefbench.objectives import OBJECTIVES, PairLogps
from prefbench.stats.bootstrap import Array

N_TOKENS = 50
_STARTS = (0.1, 0.9)


@dataclass(frozen=True)
class Law:
    """A loss, its slope as known, and where that takes the shared token."""

    title: str
    method: str
    """Whose look it is drawn in."""
    objective: str
    slope: Callable[[Array], Array]
    """d loss / d logit of the token, from its probability."""
    formula: str
    rests: float | None
    """The probability at which descent comes to rest; None where it never starts."""
    parameters: Mapping[str, Any] = field(default_factory=dict)


LAWS = (
    Law("MLE", "sft", "sft", lambda p: -(1 - p), "−(1 − p)", 1.0),
    Law(
        "ExMATE (λ = 1)", "exmate", "exmate", lambda p: -((1 - p) ** 2), "−(1 − p)²", 1.0,
        {"lambda_": 1.0},
    ),
    Law(
        "Unlikelihood (α = 1)", "unlikelihood", "unlikelihood", lambda p: 2 * p - 1, "2p − 1", 0.5,
        {"alpha": 1.0},
    ),
    Law("DPO", "dpo", "dpo", lambda p: 0 * p, "0", None),
)  # fmt: skip


@dataclass(frozen=True)
class Slopes:
    """What came out for one law."""

    law: Law
    probabilities: Array
    slopes: Array
    """d loss / d logit by autograd, at each of the probabilities."""
    starts: Array
    ends: Array
    """Where descent from each of the starts has come."""


def slopes_of(law: Law, probabilities: Array) -> Slopes:
    """The slopes of a law at probabilities, and where descent from two starts comes."""
    starts = np.array(_STARTS)
    return Slopes(law, probabilities, slopes(law, probabilities), starts, descended(law, starts))


def slopes(law: Law, probabilities: Array) -> Array:
    """d loss / d logit of a token of the given probabilities, by autograd, (n,)."""
    logit = torch.as_tensor(_logits(probabilities)).requires_grad_()
    _loss(law, logit, probabilities).backward()  # type: ignore[no-untyped-call]
    assert logit.grad is not None
    return np.asarray(logit.grad.numpy())


def descended(law: Law, starts: Array, *, rate: float = 1.0, n_steps: int = 1000) -> Array:
    """The token's probabilities after descent on its logit from the given ones, (n,)."""
    logit = torch.as_tensor(_logits(starts)).requires_grad_()
    for _ in range(n_steps):
        (slope,) = torch.autograd.grad(_loss(law, logit, starts), [logit])
        with torch.no_grad():
            logit -= rate * slope
    return np.asarray(torch.exp(_logp(logit)).detach().numpy())


def _loss(law: Law, logit: torch.Tensor, reference: Array) -> torch.Tensor:
    """Summed over pairs of one token each, which is the same on both sides."""
    logp = _logp(logit)
    ones = torch.ones_like(logp)
    policy = PairLogps(logp, logp, ones, ones, logp[:, None], logp[:, None])
    before = torch.as_tensor(np.log(reference))
    losses = OBJECTIVES[law.objective](
        policy, PairLogps(before, before, ones, ones), **law.parameters
    )
    return torch.as_tensor(losses.sum())


def _logp(logit: torch.Tensor) -> torch.Tensor:
    """Log-prob of the token among N_TOKENS, all other logits being 0."""
    others = torch.zeros(len(logit), N_TOKENS - 1, dtype=logit.dtype)
    return torch.log_softmax(torch.cat([logit[:, None], others], dim=1), dim=1)[:, 0]


def _logits(probabilities: Array) -> Array:
    return np.asarray(np.log(probabilities / (1 - probabilities)) + np.log(N_TOKENS - 1))
