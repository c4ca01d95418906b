"""Which parameters gradients are taken of, and the model made ready for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from prefbench.engines.plain import bare
from prefbench.errors import InputError

Which = Literal["all", "lora", "last_layer"]


class Selection(NamedTuple):
    """Parameters, and in words what they are."""

    what: str
    names: tuple[str, ...]
    tensors: tuple[nn.Parameter, ...]

    @property
    def n_numbers(self) -> int:
        return sum(one.numel() for one in self.tensors)


def select(model: Any, which: Which) -> Selection:
    """Parameters of a model, each once where it is tied.

    Args:
        model: a transformers model, perhaps with an adapter.
        which: `all` that training moves (of an adapter's checkpoint the adapter's own, the base
            being frozen there); `lora`, the low-rank matrices alone; or `last_layer`, a cheap
            proxy: the output layer, or the last transformer block where the output layer is tied to
            the embeddings, whose gradient is no last layer's, or where the adapter leaves it alone.

    Raises:
        InputError: there are none of these, or they are no floating-point numbers.
    """
    named = _trained(model)
    if which == "all":
        return _selection("all parameters that training moves", named)
    if which == "lora":
        return _selection("the LoRA parameters", {n: p for n, p in named.items() if "lora_" in n})
    inner = bare(model)
    head, embeddings = inner.get_output_embeddings(), inner.get_input_embeddings()
    if head is not None and getattr(head, "weight", 0) is not getattr(embeddings, "weight", 1):
        own = {id(one) for one in head.parameters()}
        if found := {n: p for n, p in named.items() if id(p) in own}:
            return _selection("a proxy: the output layer", found)
    own = {id(one) for one in blocks(model)[-1].parameters()}
    found = {n: p for n, p in named.items() if id(p) in own}
    return _selection("a proxy: the last transformer block", found)


def blocks(model: Any) -> nn.ModuleList:
    """The transformer's blocks, in order.

    Raises:
        InputError: the model has no such list.
    """
    n_blocks = getattr(bare(model).config.get_text_config(), "num_hidden_layers", None)
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n_blocks]
    if not lists:
        raise InputError(
            f"{type(bare(model)).__name__} has no list of transformer blocks; take the gradient of "
            "all parameters, without activation checkpointing"
        )
    # Experts or a tower of pictures may happen to be as many.
    return max(lists, key=lambda some: sum(one.numel() for one in some.parameters()))


@contextmanager
def ready(model: Any, parameters: Sequence[Tensor], *, checkpointing: bool) -> Iterator[None]:
    """The model with gradients of these parameters and of no others, and without dropout.

    Everything is as it was at the end. With `checkpointing`, blocks keep their inputs alone and
    are run again in the backward pass.
    """
    every = list(model.parameters())
    before = [(one, one.requires_grad, one.grad) for one in every]
    training = [module for module in model.modules() if module.training]
    wanted = {id(one) for one in parameters}
    model.eval()
    with ExitStack() as stack:
        stack.callback(_set_back, before, training)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for one in every:
            one.requires_grad_(id(one) in wanted)
            one.grad = None
        if checkpointing:
            stack.enter_context(_recomputed(blocks(model)))
        yield


@contextmanager
def _recomputed(some: nn.ModuleList) -> Iterator[None]:
    """Blocks under activation checkpointing.

    transformers' own switch works in training mode only, which has dropout.
    """
    for block in some:
        block.forward = partial(
            checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
        )
    try:
        yield
    finally:
        for block in some:
            del block.forward  # the class's own is seen again


def _set_back(
    before: Sequence[tuple[Tensor, bool, Tensor | None]], training: Sequence[nn.Module]
) -> None:
    for one, required, gradient in before:
        one.requires_grad_(required)
        one.grad = gradient
    for module in training:
        module.training = True


def _trained(model: Any) -> dict[str, nn.Parameter]:
    """Parameters that training moves, by name."""
    named = dict(model.named_parameters())
    if not hasattr(model, "get_base_model"):
        return named
    # peft puts those that it adds below a name that begins like this, and then the adapter's own.
    prefix = getattr(model.base_model, "prefix", None) or "prompt_encoder"
    active = set(model.active_adapters)
    return {
        name: one
        for name, one in named.items()
        if (prefix in name or "modules_to_save" in name) and active & set(name.split("."))
    }


def _selection(what: str, named: dict[str, nn.Parameter]) -> Selection:
    if not named:
        raise InputError(
            f"the model has no parameters for {what}; parameters: lora is for LoRA adapters, "
            "all is for every checkpoint"
        )
    for name, one in named.items():
        if not one.is_floating_point():
            raise InputError(
                f"{name} is of type {one.dtype} and has no gradient; load the weights unquantised"
            )
    return Selection(what, tuple(named), tuple(named.values()))
