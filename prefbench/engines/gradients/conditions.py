"""What a step down an objective does to a pair's two log-probs, to first order.

With g_w and g_l the gradients of the summed log-probs of the chosen and the rejected response,
−∇ℓ = d_w g_w − d_l g_l for any loss ℓ of the two sums, and the chosen response rises if
d_w‖g_w‖² > d_l⟨g_w, g_l⟩, the rejected one falls if d_l‖g_l‖² > d_w⟨g_w, g_l⟩. The weights come
from the objective's own derivatives, at the pair's log-probs. Losses over token log-probs add
Σ_t w_t ∇log p_t over the rejected tokens.

Source: Yuan et al. 2024, "gradient entanglement", arxiv.org/abs/2410.13828; this form with free
weights is ours, as are token losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prefbench.objectives import OBJECTIVES, PairLogps


class Weights(NamedTuple):
    """−∇ℓ = chosen × g_w + rejected × g_l + Σ_t tokens_t ∇log p_t, over the rejected tokens.

    In the letters above, chosen is d_w and rejected is −d_l.
    """

    chosen: float
    rejected: float
    tokens: Tensor | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether the objective asks nothing of the pair: a hinge that is met, say."""
        idle = self.tokens is None or not bool(self.tokens.any())
        return self.chosen == 0 and self.rejected == 0 and idle


class Gram(NamedTuple):
    """Inner products of the gradients of a pair's two summed log-probs, in nats² per unit²."""

    chosen: float
    """‖g_w‖²."""
    inner: float
    rejected: float


class Change(NamedTuple):
    """Of the two summed log-probs, in nats; to first order per unit of step."""

    chosen: float
    rejected: float


def weights_of(
    names: Iterable[str],
    chosen: Tensor,
    rejected: Tensor,
    reference: tuple[float, float] | None,
    settings: Mapping[str, Mapping[str, Any]],
) -> dict[str, Weights]:
    """Weights of each objective at a pair, by autograd of its formula in float64.

    Args:
        names: of objectives; those that need a reference are left out where there is none.
        chosen: token log-probs in nats, (n_tokens,).
        rejected: the same of the rejected response.
        reference: summed log-probs of both under the reference.
        settings: an objective's parameters that differ from their defaults.
    """
    lengths = (torch.tensor([len(chosen)]), torch.tensor([len(rejected)]))
    compared = None
    if reference is not None:
        known = torch.tensor(reference, dtype=torch.float64)
        compared = PairLogps(known[:1], known[1:], *lengths)
    tokens = rejected.detach().double().cpu()
    sums = torch.stack([chosen.detach().double().sum().cpu(), tokens.sum()])
    leaves: dict[str, list[Tensor]] = {}
    losses = []
    for name in names:
        objective = OBJECTIVES[name]
        if objective.needs_reference and compared is None:
            continue
        # Leaves of its own, so that one backward pass is enough for all objectives.
        own = [one.clone().requires_grad_() for one in sums.view(2, 1)]
        if objective.needs_tokens:
            own.append(tokens[None].clone().requires_grad_())
        policy = PairLogps(own[0], own[1], *lengths, None, own[2] if own[2:] else None)
        given = (policy, compared) if objective.needs_reference else (policy,)
        # The formula itself: the settings have been checked, and a check here is most of the time.
        losses.append(objective.loss(*given, **settings.get(name, {})).sum())
        leaves[name] = own
    if not losses:
        return {}
    torch.autograd.backward(losses)
    return {name: _weights(own) for name, own in leaves.items()}


def _weights(leaves: list[Tensor]) -> Weights:
    # Subtracted from 0, so that no gradient is 0 and not −0.
    found = [torch.zeros_like(one) if one.grad is None else 0 - one.grad for one in leaves]
    return Weights(float(found[0]), float(found[1]), found[2][0] if found[2:] else None)


def change(weights: Weights, gram: Gram, of_tokens: Change) -> Change:
    """First-order change per unit of a step along −∇ℓ.

    Args:
        weights: of the objective at the pair.
        gram: inner products of the pair's gradients.
        of_tokens: inner products of the weighted token gradients with g_w and g_l.
    """
    return Change(
        weights.chosen * gram.chosen + weights.rejected * gram.inner + of_tokens.chosen,
        weights.chosen * gram.inner + weights.rejected * gram.rejected + of_tokens.rejected,
    )
