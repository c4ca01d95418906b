"""The gradients of one pair: two are in memory at once, and others only pass by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prefbench.engines.gradients.conditions import Change, Gram, Weights
from prefbench.engines.gradients.passes import respond
from prefbench.engines.gradients.probing import TokenPair
from prefbench.engines.gradients.steps import Direction
from prefbench.engines.gradients.vectors import Products, filled, pieces, stream


class PairGradients:
    """g_w and g_l, the gradients of a pair's two summed log-probs, and what comes of them."""

    def __init__(
        self,
        model: Any,
        pair: TokenPair,
        parameters: Sequence[Tensor],
        *,
        n_steps: int,
        keep: bool,
        retain: bool,
    ) -> None:
        """One forward and one backward pass of each response.

        Args:
            model: made ready for gradients of the parameters.
            pair: token ids that fit into the context.
            parameters: those that gradients are taken of.
            n_steps: whose probabilities and hidden states are kept.
            keep: whether g_l is needed once its inner products are known.
            retain: whether gradients of the rejected response's tokens will be asked for.
        """
        products = Products()
        self._parameters = parameters
        held: dict[int, Tensor] = {}

        def take_chosen(index: int, gradient: Tensor) -> None:
            products.add("chosen", gradient, gradient)
            held[index] = gradient

        first = respond(model, pair.chosen, n_steps)
        stream(first.logps, torch.ones_like(first.logps), parameters, take_chosen)
        self.first = first._replace(logps=first.logps.detach())
        self.g_w = filled(held, parameters)
        held = {}

        def take_rejected(index: int, gradient: Tensor) -> None:
            for g_w, g_l in pieces(self.g_w[index], gradient):
                products.add("inner", g_w, g_l)
                products.add("rejected", g_l, g_l)
            if keep:
                held[index] = gradient

        second = respond(model, pair.rejected, n_steps)
        stream(
            second.logps, torch.ones_like(second.logps), parameters, take_rejected, retain=retain
        )
        self.second = second._replace(logps=second.logps.detach())
        self._graph = second.logps if retain else None
        self._g_l = filled(held, parameters) if keep else []
        self.gram = Gram(*map(products.total, ("chosen", "inner", "rejected")))

    def of_tokens(self, weights: Tensor | None) -> Change:
        """Inner products of Σ_t weights_t ∇log p_t over the rejected tokens with g_w and g_l."""
        if weights is None or not bool(weights.any()):
            return Change(0.0, 0.0)
        products = Products()

        def take(index: int, gradient: Tensor) -> None:
            for g_w, g_l, part in pieces(self.g_w[index], self._g_l[index], gradient):
                products.add("chosen", g_w, part)
                products.add("rejected", g_l, part)

        assert self._graph is not None
        stream(self._graph, weights, self._parameters, take, retain=True)
        return Change(products.total("chosen"), products.total("rejected"))

    def direction(self, weights: Weights) -> Direction:
        """−∇ℓ in the place of g_l, and the last that is asked of the rejected response's graph."""
        direction = Direction(self.g_w, self._g_l, self.gram, weights)
        if weights.tokens is not None and bool(weights.tokens.any()):
            assert self._graph is not None
            stream(self._graph, weights.tokens, self._parameters, direction.add)
        self._graph = None
        direction.finish()
        return direction
