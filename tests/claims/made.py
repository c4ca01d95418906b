"""Zoos whose truth a test decides, as a results directory would give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefbench.leaderboard import Gathered, Group, Measured
from prefbench.records import Checkpoint

N = 200


def row(name: str, method: str | None = None, **facts: Any) -> Checkpoint:
    """A checkpoint in `/zoo`."""
    method = method or name
    return Checkpoint(name, Path("/zoo") / name, "ready", method=method, fingerprint=name, **facts)


def cell(name: str, group: str, quantities: Mapping[str, Any], **more: Any) -> Measured:
    """What a row gave on a task; numbers are those of all items."""
    n = max((len(v) for v in quantities.values() if not np.isscalar(v)), default=N)
    columns = {
        key: np.full(n, float(value)) if np.isscalar(value) else np.asarray(value, dtype=float)
        for key, value in quantities.items()
    }
    items = np.arange(n, dtype=np.int32)
    return Measured(name, group, items, items.astype(str), columns, **more)


def gathered(
    rows: Sequence[Checkpoint], cells: Sequence[Measured], groups: Mapping[str, Any] | None = None
) -> Gathered:
    """All of it, its tasks in the order in which they come."""
    names = dict.fromkeys(one.group for one in cells)
    facts = groups or {}
    return Gathered(
        tuple(rows), tuple(Group(name, name, **facts.get(name, {})) for name in names), tuple(cells)
    )


def share(part: float, n: int = N, *, rng: np.random.Generator | None = None) -> np.ndarray:
    """1 for exactly so large a part of the items, in random order where there is a generator."""
    values = (np.arange(n) < round(part * n)).astype(float)
    return values if rng is None else rng.permutation(values)


def margins(delta: Any, rejected: Any, *, low: Any = 1.0) -> dict[str, np.ndarray]:
    """Quantities of a margins task, of the changes of both answers' log-probs.

    `low` says of each item whether its edit distance is low; it is high else.
    """
    chosen, other = np.asarray(delta, dtype=float), np.asarray(rejected, dtype=float)
    chosen, other = np.broadcast_arrays(chosen, other)
    is_low = np.broadcast_to(np.asarray(low, dtype=float), chosen.shape)
    displaced = (chosen < 0).astype(float)
    return {
        "delta_chosen": chosen,
        "delta_rejected": other,
        "displaced": displaced,
        "both_down": ((chosen < 0) & (other < 0)).astype(float),
        "rewards/accuracies": (chosen > other).astype(float),
        "rewards/margins": 0.1 * (chosen - other),
        "edit_distance": np.where(is_low > 0, 0.05, 0.8),
        "in@low_edit": is_low,
        "in@high_edit": 1 - is_low,
        "displaced@low_edit": displaced * is_low,
        "delta_chosen@low_edit": chosen * is_low,
        "displaced@high_edit": displaced * (1 - is_low),
        "delta_chosen@high_edit": chosen * (1 - is_low),
    }


def pairs(perplexity: float, agility: float, noise: np.ndarray) -> dict[str, np.ndarray]:
    """Quantities of preference pairs of ten tokens each; `noise` is added to log-probs per token.

    All rows with the same noise have the same items' difficulty.
    """
    chosen = -np.log(perplexity) + noise - noise.mean()
    tokens = np.full(len(noise), 10.0)
    return {
        "sum_logp_chosen": chosen * tokens,
        "n_tokens_chosen": tokens,
        "sum_logp_rejected": (chosen - agility) * tokens,
        "n_tokens_rejected": tokens,
    }
