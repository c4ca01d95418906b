"""Log-probs the plain way: each context and continuation is a row of a padded batch."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from prefbench.engines.tally import Tally, Watch
from prefbench.engines.tree import Budget, Line


def batches(lines: Sequence[Line], budget: Budget, *, pads: bool) -> Iterator[list[int]]:
    """Indices of lines that are run together, longest first; at least one at once.

    Unless it `pads`, lines of one length only.
    """
    order = sorted(range(len(lines)), key=lambda i: -len(lines[i].tokens))
    batch: list[int] = []
    for i in order:
        grown = [*batch, i]
        n_tokens = len(grown) * len(lines[grown[0]].tokens)
        n_scored = len(grown) * len(_scored([lines[j] for j in grown]))
        padded = len(lines[i].tokens) < len(lines[grown[0]].tokens)
        large = n_tokens > budget.tokens or n_scored > budget.scored
        if batch and (large or (padded and not pads)):
            yield batch
            grown = [i]
        batch = grown
    if batch:
        yield batch


def plain_logps(
    model: Any, lines: Sequence[Line], budget: Budget, watch: Watch | None = None
) -> Tally:
    """Log-probs and greedy flags of a batch; also the hidden states, where somebody watches.

    Where one row has more to score than the budget allows it is run once for each part, so that
    the logits of a forward pass stay within the budget.
    """
    device = next(model.parameters()).device
    width = max(len(line.tokens) for line in lines) - 1
    ids = torch.zeros(len(lines), width, dtype=torch.long)
    for row, line in zip(ids, lines, strict=True):
        row[: len(line.tokens) - 1] = torch.from_numpy(line.tokens[:-1].astype(np.int64))
    ids = ids.to(device)
    tally = Tally(lines)
    scored = _scored(lines)
    size = max(1, budget.scored // len(lines))
    for start in range(0, len(scored), size):
        positions = scored[start : start + size]
        # Padded on the right and causal, a row cannot see its padding; a mask would only cost the
        # fast attention kernels.
        logps = _logits(model, ids, positions).float().log_softmax(-1)
        best = logps.argmax(-1).cpu().numpy()
        states = watch.states(positions) if watch else None
        for i, line in enumerate(lines):
            own = np.flatnonzero((positions >= line.start - 1) & (positions < len(line.tokens) - 1))
            targets = line.tokens[positions[own] + 1]
            found = logps[i, torch.from_numpy(own), torch.from_numpy(targets.astype(np.int64))]
            owners = np.full(len(own), i, np.int32)
            tally.add(owners, positions[own], found.double().cpu().numpy(), best[i, own] == targets)
            if states is not None:
                tally.add_states(owners, own, states[i])
    return tally


def keeps_logits(model: Any) -> bool:
    """Whether a model computes logits only where it is asked to."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def bare(model: Any) -> Any:
    """The transformers model inside an adapter's wrapping."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _scored(lines: Sequence[Line]) -> Any:
    """Positions, in any of the lines, whose logits are needed."""
    return np.unique(np.concatenate([np.arange(s - 1, len(t) - 1) for t, s in lines]))


def _logits(model: Any, ids: torch.Tensor, positions: Any) -> torch.Tensor:
    keep = torch.from_numpy(positions.astype(np.int64)).to(ids.device)
    if keeps_logits(bare(model)):
        return model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits  # type: ignore[no-any-return]
    return model(input_ids=ids, use_cache=False).logits[:, keep]  # type: ignore[no-any-return]
