"""Three actions and a total order: where IPO stops, and DPO does not.

A softmax policy over the actions a, b, c starts uniform, which is also its reference, and learns
from the pairs a > b, b > c, a > c. Data, optimiser and counts are those of the paper's toy:
Azar et al. 2023, section 5.4, arxiv.org/abs/2310.12036; the closed form of the optimum is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from prefbench.objectives import OBJECTIVES, PairLogps
from prefbench.stats.bootstrap import Array

ACTIONS = ("a", "b", "c")
ORDER = ((0, 1), (1, 2), (0, 2))
"""The pairs, each the better action and the worse: all that a > b > c says."""
TAUS = (0.1, 0.5, 1.0)
N_STEPS, N_SEEDS, BATCH, LEARNING_RATE = 18_000, 10, 9, 0.01

STRENGTHS = {"ipo_sum": "tau", "dpo": "beta"}
"""The objectives that are compared, and what each calls the strength of its pull."""

_N_KEPT = 160


@dataclass(frozen=True)
class Learning:
    """How the probabilities of the actions went while policies were trained."""

    objective: str
    tau: float
    steps: Array
    """The steps that are kept, dense at the beginning, `(n_kept,)`."""
    probabilities: Array
    """At those steps, `(n_kept, n_seeds, n_actions)`."""
    late: Array
    """Mean over the second half of all steps, `(n_seeds, n_actions)`."""


def ipo_optimum(tau: float) -> Array:
    """The probabilities of a, b, c at IPO's only minimum on the three pairs.

    The squares want each of the three margins to be 1 / (2 tau), and the third is the sum of the
    other two: least squares gives the logits (2d, d, 0) with d = 1 / (3 tau).
    """
    d = 1 / (3 * tau)
    powers = np.exp(np.array([0.0, -d, -2 * d]))
    return np.asarray(powers / powers.sum())


def ipo_of_two(tau: float) -> float:
    """The better of two actions under IPO, where it always wins: σ(1 / (2 tau)).

    Source: Azar et al. 2023, section 5.3, arxiv.org/abs/2310.12036.
    """
    return 1 / (1 + math.exp(-0.5 / tau))


def train(
    objective: str,
    taus: Sequence[float] = TAUS,
    *,
    rng: np.random.Generator | None,
    pairs: Sequence[tuple[int, int]] = ORDER,
    n_steps: int = N_STEPS,
    n_seeds: int = N_SEEDS,
) -> list[Learning]:
    """Trains softmax policies by Adam, one for each strength and seed.

    Args:
        objective: `ipo_sum` or `dpo`.
        taus: strengths: IPO's tau, DPO's beta.
        rng: draws the mini-batches, with replacement and the same ones for every strength; None
            takes all pairs at every step.
        pairs: better and worse action of each pair, as indices.
        n_steps: of Adam at 0.01.
        n_seeds: how many sequences of mini-batches.
    """
    n_actions = 1 + max(map(max, pairs))
    shares = _shares(rng, len(pairs), n_steps, n_seeds)
    logits = torch.zeros(len(taus), n_seeds, n_actions, dtype=torch.float64, requires_grad=True)
    # All policies learn in one tensor: no loss sees two of them, and Adam moves each entry alone.
    shape = (len(taus), n_seeds, len(pairs))
    strength = torch.tensor(taus, dtype=torch.float64)[:, None, None].expand(shape).reshape(-1)
    counts = torch.ones_like(strength)
    uniform = torch.full_like(strength, -math.log(n_actions))
    reference = PairLogps(uniform, uniform, counts, counts)
    better, worse = ([pair[i] for pair in pairs] for i in (0, 1))
    adam = torch.optim.Adam([logits], lr=LEARNING_RATE)
    kept = _kept(n_steps)
    probabilities = np.empty((len(kept), *logits.shape))
    late = np.zeros(logits.shape)
    for step in range(n_steps + 1):
        logps = torch.log_softmax(logits, dim=-1)
        now = logps.detach().exp().numpy()
        if step in kept:
            probabilities[kept[step]] = now
        if step > n_steps // 2:
            late += now
        if step == n_steps:
            break
        policy = PairLogps(
            logps[..., better].reshape(-1), logps[..., worse].reshape(-1), counts, counts
        )
        losses = OBJECTIVES[objective](policy, reference, **{STRENGTHS[objective]: strength})
        adam.zero_grad()
        (losses.reshape(shape) * shares[step]).sum().backward()
        adam.step()
    late /= n_steps - n_steps // 2
    steps = np.fromiter(kept, dtype=np.float64)
    return [
        Learning(objective, tau, steps, probabilities[:, i], late[i]) for i, tau in enumerate(taus)
    ]


def _shares(
    rng: np.random.Generator | None, n_pairs: int, n_steps: int, n_seeds: int
) -> torch.Tensor:
    """How much of each mini-batch every pair is, (n_steps, n_seeds, n_pairs)."""
    if rng is None:
        return torch.full((n_steps, n_seeds, n_pairs), 1 / n_pairs, dtype=torch.float64)
    drawn = rng.multinomial(BATCH, [1 / n_pairs] * n_pairs, size=(n_steps, n_seeds))
    return torch.as_tensor(drawn / BATCH)


def _kept(n_steps: int) -> dict[int, int]:
    """Steps that a curve is drawn through, even on a log axis, and the place of each."""
    steps = np.unique(np.geomspace(1, n_steps, _N_KEPT).round().astype(int))
    return {step: place for place, step in enumerate([0, *map(int, steps)])}
