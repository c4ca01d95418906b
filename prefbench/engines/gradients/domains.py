"""Whether kinds of data pull a checkpoint the same way: gradients of one domain and another.

Gradient matching looks at inner products of domains' mean gradients of the training loss, so the
gradient here is that of the checkpoint's own objective, not of a log-prob.

Source: Shi et al. 2021 (Fish), arxiv.org/abs/2104.09937; an inner product per pair, whose mean over
a domain is that of the mean gradients, is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prefbench.engines.gradients.conditions import Weights, weights_of
from prefbench.engines.gradients.parameters import ready, select
from prefbench.engines.gradients.passes import fitting, respond
from prefbench.engines.gradients.probing import Probing, TokenPair
from prefbench.engines.gradients.vectors import Products, Take, stream
from prefbench.errors import InputError
from prefbench.objectives import OBJECTIVES


def domain_products(
    model: Any,
    pairs: Mapping[str, Sequence[TokenPair]],
    probing: Probing,
    *,
    max_length: int | None = None,
) -> dict[str, list[dict[str, float]]]:
    """domain_inner and domain_cosine of each pair, by domain and in the order of its pairs.

    They are ⟨g, G⟩ and its cosine, with g the gradient of the pair's own loss and G the mean
    gradient of the other domain; of several others, the mean of their means. Two passes over all
    pairs; in memory are a mean gradient of each domain and, of a pair's, one parameter's.

    A pair without the reference that the objective needs has neither quantity and is in no mean;
    one of which the objective asks nothing has the inner product 0, no cosine, and a share in the
    mean, as in training.

    Raises:
        InputError: there are fewer than two domains with pairs, or the own objective is not known.
        EngineError: a response is empty or longer than the context.
    """
    if probing.own is None:
        raise InputError(
            "gradients of domains are those of the checkpoint's own objective, which is not known; "
            "name it as `objective`"
        )
    parameters = select(model, probing.parameters).tensors
    known = {
        name: [_fitting(pair, max_length) for pair in some if _is_known(pair, probing.own)]
        for name, some in pairs.items()
    }
    if sum(1 for some in known.values() if some) < 2:
        raise InputError(
            "gradients of domains need two domains with pairs that the objective "
            f"{probing.own} can be computed of, and there are "
            f"{', '.join(f'{len(some)} in {name}' for name, some in known.items()) or 'none'}"
        )
    with ready(model, parameters, checkpointing=probing.checkpointing):
        means = {
            name: _mean(model, some, parameters, probing) for name, some in known.items() if some
        }
        others = _of_others(means)
        found = {
            name: iter([_products(model, one, parameters, probing, others[name]) for one in some])
            for name, some in known.items()
            if some
        }
    return {
        name: [next(found[name]) if _is_known(pair, probing.own) else {} for pair in some]
        for name, some in pairs.items()
    }


def _is_known(pair: TokenPair, own: str) -> bool:
    return pair.reference is not None or not OBJECTIVES[own].needs_reference


def _fitting(pair: TokenPair, max_length: int | None) -> TokenPair:
    return pair._replace(
        chosen=fitting(pair.chosen, max_length), rejected=fitting(pair.rejected, max_length)
    )


def _mean(
    model: Any, some: Sequence[TokenPair], parameters: Sequence[Tensor], probing: Probing
) -> list[Tensor]:
    """Mean gradient of a domain's pairs, in float32 or wider."""
    held = [
        torch.zeros_like(one.detach(), dtype=torch.promote_types(one.dtype, torch.float32))
        for one in parameters
    ]

    def take(index: int, gradient: Tensor) -> None:
        held[index].add_(gradient, alpha=1 / len(some))

    for pair in some:
        _stream_loss(model, pair, parameters, probing, take)
    return held


def _of_others(means: Mapping[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    """For each domain the mean of all others' means, in the same memory."""
    names = list(means)
    if len(names) == 2:
        return {names[0]: means[names[1]], names[1]: means[names[0]]}
    for parts in zip(*means.values(), strict=True):
        total = torch.stack(parts).sum(0)
        for part in parts:
            part.sub_(total).div_(1 - len(names))
    return dict(means)


def _products(
    model: Any,
    pair: TokenPair,
    parameters: Sequence[Tensor],
    probing: Probing,
    other: Sequence[Tensor],
) -> dict[str, float]:
    products = Products()

    def take(index: int, gradient: Tensor) -> None:
        products.add("inner", gradient.to(other[index].dtype), other[index])
        products.add("own", gradient, gradient)

    _stream_loss(model, pair, parameters, probing, take)
    for one in other:
        products.add("other", one, one)
    inner, own, norm = map(products.total, ("inner", "own", "other"))
    found = {"domain_inner": inner}
    if own and norm:
        found["domain_cosine"] = inner / math.sqrt(own * norm)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _stream_loss(
    model: Any, pair: TokenPair, parameters: Sequence[Tensor], probing: Probing, take: Take
) -> None:
    """The gradient of minus a pair's own loss, which has the inner products of the loss's."""
    assert probing.own is not None
    chosen, rejected = (respond(model, one).logps for one in pair[:2])
    weights = weights_of([probing.own], chosen, rejected, pair.reference, probing.settings)
    own = weights[probing.own]
    if not own.is_nothing:
        stream(torch.cat([chosen, rejected]), _by_token(own, chosen, rejected), parameters, take)


def _by_token(weights: Weights, chosen: Tensor, rejected: Tensor) -> Tensor:
    """An objective's weights of every token of both responses."""
    of_rejected = torch.full_like(rejected, weights.rejected, requires_grad=False)
    if weights.tokens is not None:
        of_rejected = of_rejected + weights.tokens.to(of_rejected)
    return torch.cat([torch.full_like(chosen, weights.chosen, requires_grad=False), of_rejected])
