"""How chosen and rejected response differ at the same step, before any gradient is taken.

A token's log-prob has the gradient e_y − P with respect to the logits, so that of two tokens at
step t the gradients differ by (e_{y⁺} − e_{y⁻}) − (P⁺ − P⁻): by P⁺ − P⁻ alone where both have the
same target.

Source: our reconstruction after Tuan & Wang 2024, arxiv.org/abs/2408.16751, who measure the
difference of gradients by that of P and by whether the targets are the same (lemma 4.1). The
information difference, ‖h⁺ − h⁻‖² / width of the hidden states that enter the output layer, is our
own definition in the place of theirs (definition 4.1), which we could not read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prefbench.engines.base import TokenRequest
from prefbench.engines.gradients.passes import Response


def aligned(
    chosen: TokenRequest,
    rejected: TokenRequest,
    first: Response,
    second: Response,
    n_steps: int,
    suffix: str = "",
) -> dict[str, float]:
    """Differences at steps 1 to n_steps, or to the end of the shorter response.

    Args:
        chosen: context and response.
        rejected: its rival, whose context may be another.
        first: the pass over the chosen response, with at least so many steps.
        second: the pass over the rejected one.
        n_steps: how many steps are compared at most.
        suffix: of the quantities' names; `same_target` knows no model and is left out with one.
    """
    n = min(n_steps, len(chosen.continuation), len(rejected.continuation))
    if not n:
        return {}
    targets = torch.tensor([list(chosen.continuation[:n]), list(rejected.continuation[:n])])
    same = targets[0] == targets[1]
    n_shared = _n_shared(chosen, rejected, same)
    wide = torch.promote_types(first.probabilities.dtype, torch.float32)
    softmax = first.probabilities[:n].to(wide) - second.probabilities[:n].to(wide)
    # Both have read the same tokens before these; two passes still differ there by rounding.
    softmax[:n_shared] = 0.0
    gradient = -softmax
    steps = torch.arange(n, device=gradient.device)
    for sign, target in zip((1.0, -1.0), targets.to(gradient.device), strict=True):
        gradient[steps, target] += sign
    found: dict[str, Tensor] = {}
    for name, difference in (("probability", softmax), ("gradient", gradient)):
        for p in (1, 2):
            found[f"{name}_difference_l{p}"] = torch.linalg.vector_norm(difference, p, dim=-1)
    if not suffix:
        found["same_target"] = same.double()
    if first.hidden is not None and second.hidden is not None:
        apart = (first.hidden[:n].to(wide) - second.hidden[:n].to(wide)).square().mean(-1)
        apart[:n_shared] = 0.0
        found["information_difference"] = apart
    return {
        f"{name}{suffix}@{t}": value
        for name, values in found.items()
        for t, value in enumerate(values.tolist(), start=1)
    }


def _n_shared(chosen: TokenRequest, rejected: TokenRequest, same: Tensor) -> int:
    """Steps before which both have read the same tokens."""
    if list(chosen.context) != list(rejected.context):
        return 0
    return 1 + int(same[:-1].long().cumprod(0).sum())
