"""A small step that is really taken, and taken back bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from prefbench.engines.gradients.conditions import Change, Gram, Weights, change
from prefbench.engines.gradients.vectors import Products, pieces

SMALL = 0.02
"""The larger of the two changes that a step is to make, to first order, in nats."""
ADAM_EPSILON = 1e-8
"""As transformers' Trainer sets it."""

By = Literal["sgd", "adamw"]


class Direction:
    """−∇ℓ of a pair's objective, put together parameter by parameter, and what it would change.

    A step of SGD goes along v = −∇ℓ; the first step of AdamW from fresh state, without weight
    decay, along v / (|v| + ε), since both of its means are then the gradient's own.

    Source: Loshchilov & Hutter 2019, algorithm 2 at t = 1, arxiv.org/abs/1711.05101.
    """

    def __init__(
        self, chosen: Sequence[Tensor], rejected: Sequence[Tensor], gram: Gram, weights: Weights
    ) -> None:
        """Takes g_w and g_l; the latter's tensors become the direction's own."""
        self._chosen, self._rejected, self._gram, self._weights = chosen, rejected, gram, weights
        self._products = Products()
        self._waiting = set(range(len(rejected)))

    def add(self, index: int, of_tokens: Tensor | None = None) -> None:
        """Puts one parameter's part together; g_l of it is gone then."""
        products, weights = self._products, self._weights
        self._waiting.remove(index)
        given = (self._chosen[index], self._rejected[index])
        for g_w, g_l, *more in pieces(*given, *(() if of_tokens is None else (of_tokens,))):
            v = (g_w * weights.chosen).add_(g_l, alpha=weights.rejected)
            for tokens in more:
                products.add("tokens chosen", g_w, tokens)
                products.add("tokens rejected", g_l, tokens)
                v += tokens
            step = _adamw(v)
            products.add("adamw chosen", g_w, step)
            products.add("adamw rejected", g_l, step)
            products.add("square", v, v)
            g_l.copy_(v)

    def finish(self) -> None:
        """Puts together what the token log-probs do not hang on."""
        for index in sorted(self._waiting):
            self.add(index)

    @property
    def norm(self) -> float:
        return math.sqrt(self._products.total("square"))

    def change(self, by: By) -> Change:
        """To first order, per unit of step."""
        if by == "sgd":
            return change(self._weights, self._gram, self._change("tokens"))
        return self._change(by)

    def _change(self, of: str) -> Change:
        return Change(*(self._products.total(f"{of} {side}") for side in ("chosen", "rejected")))

    def size(self, by: By) -> float:
        """Of a step that changes one log-prob by `SMALL` and the other by no more."""
        largest = max(map(abs, self.change(by)))
        return SMALL / largest if largest else float("nan")

    @torch.no_grad()
    def move(self, parameters: Sequence[Tensor], by: By) -> None:
        """Takes the step."""
        size = self.size(by)
        for parameter, direction in zip(parameters, self._rejected, strict=True):
            if by == "sgd":
                parameter.add_(direction, alpha=size)
                continue
            for p, v in pieces(parameter, direction):
                p.add_(_adamw(v), alpha=size)


def _adamw(v: Tensor) -> Tensor:
    return v / v.abs().add_(ADAM_EPSILON)


@contextmanager
def taken_back(parameters: Sequence[Tensor], copies: Sequence[Tensor]) -> Iterator[None]:
    """Whatever happens to parameters inside has not happened behind: they are `copies` again."""
    try:
        yield
    finally:
        copy_to(parameters, copies)


@torch.no_grad()
def copy_to(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Writes over tensors, bit for bit where types are the same."""
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
