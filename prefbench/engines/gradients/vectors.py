"""Gradients as they arrive from a backward pass, and inner products of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 24}
"""Numbers of a tensor that are worked on at once: as many as stay in a processor's cache."""

Take = Callable[[int, Tensor], None]
"""Given a parameter's index and its gradient, once each."""


def stream(
    output: Tensor,
    weights: Tensor,
    parameters: Sequence[Tensor],
    take: Take,
    *,
    retain: bool = False,
) -> None:
    """A backward pass that hands over each parameter's gradient as soon as it is whole.

    What `take` does not keep is gone before the next one: the whole gradient never is in memory.
    Parameters that the output does not hang on are passed over.

    Args:
        output: of a forward pass, with its graph.
        weights: of its elements in the sum whose gradient is taken; of the same shape.
        parameters: leaves without a gradient of their own.
        take: what is done with each gradient.
        retain: whether the graph is needed again.
    """
    handles = [
        one.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            partial(_hand_over, take, index)
        )
        for index, one in enumerate(parameters)
    ]
    try:
        output.backward(  # type: ignore[no-untyped-call]
            weights.to(output), retain_graph=retain, inputs=list(parameters)
        )
    finally:
        for handle in handles:
            handle.remove()


def _hand_over(take: Take, index: int, parameter: Tensor) -> None:
    gradient, parameter.grad = parameter.grad, None
    assert gradient is not None  # it has just been accumulated
    take(index, gradient)


def filled(kept: dict[int, Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of all parameters, of which those that were passed over are 0."""
    return [
        kept[i] if i in kept else torch.zeros_like(one.detach()) for i, one in enumerate(parameters)
    ]


class Products:
    """Named sums of inner products, added up in float64.

    Within a piece of a tensor they are added up in float32, or in float64 for float64 tensors,
    whatever the tensors' type.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, first: Tensor, second: Tensor) -> None:
        """Adds the inner product of two tensors of one shape."""
        if name not in self._sums:
            # On the device until the end: to read each number would wait for it.
            self._sums[name] = torch.zeros((), dtype=torch.float64, device=first.device)
        for a, b in pieces(first, second):
            wide = torch.promote_types(a.dtype, torch.float32)
            self._sums[name] += torch.dot(a.reshape(-1).to(wide), b.reshape(-1).to(wide))

    def total(self, name: str) -> float:
        """The sum under a name; 0 if nothing was added."""
        return float(self._sums.get(name, 0.0))


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of tensors of one shape, row by row, small enough for a processor's cache."""
    first = tensors[0]
    n, at_once = first.numel(), AT_ONCE.get(first.device.type, 1 << 24)
    if n <= at_once:
        return iter((tensors,) if n else ())
    size = max(1, at_once * len(first) // n)
    return zip(*(torch.split(one, size) for one in tensors), strict=True)
