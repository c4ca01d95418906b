"""One forward pass of a response: its tokens' log-probs and what its first steps look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prefbench.engines.attention import depends_on_length
from prefbench.engines.base import TokenRequest
from prefbench.engines.plain import bare, keeps_logits
from prefbench.errors import EngineError


class Response(NamedTuple):
    """Log-probs in nats `(n_tokens,)`, float32 or wider, with a graph where gradients are on.

    Of the first steps, without a graph: probabilities of the next token `(n_steps, n_vocabulary)`
    and the hidden states that enter the output layer `(n_steps, width)`, None where there is no
    such layer.
    """

    logps: Tensor
    probabilities: Tensor
    hidden: Tensor | None


def respond(model: Any, request: TokenRequest, n_steps: int = 0) -> Response:
    """A pass over context and continuation that computes logits of the latter alone."""
    return _together(model, [request], n_steps)[0]


@torch.no_grad()
def respond_to_all(
    model: Any, requests: Sequence[TokenRequest], n_steps: int = 0
) -> list[Response]:
    """The same of several without a graph, in one pass where padding changes nothing."""
    if depends_on_length(bare(model).config):
        return [respond(model, one, n_steps) for one in requests]
    return _together(model, requests, n_steps)


def summed(model: Any, requests: Sequence[TokenRequest]) -> list[float]:
    """Log-probs of responses in nats."""
    return [float(one.logps.double().sum()) for one in respond_to_all(model, requests)]


def _together(model: Any, requests: Sequence[TokenRequest], n_steps: int) -> list[Response]:
    """One pass over all, padded on the right, where no token sees what comes behind it."""
    device = next(model.parameters()).device
    texts = [[*context, *continuation] for context, continuation in requests]
    width = max(map(len, texts))
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts], device=device)
    spans = [range(len(context) - 1, len(context) - 1 + len(own)) for context, own in requests]
    union = sorted({position for span in spans for position in span})
    logits, hidden = _logits(model, ids[:, :-1], torch.tensor(union, device=device))
    logps = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    found = []
    for row, span in enumerate(spans):
        # The whole where there is one request: no copy of it is made.
        own = slice(None) if len(spans) == 1 else [union.index(position) for position in span]
        steps = logps[row][own]
        targets = ids[row, span.start + 1 : span.stop + 1, None]
        found.append(
            Response(
                steps.gather(-1, targets)[:, 0],
                steps.detach()[:n_steps].exp(),
                None if hidden is None else hidden[row][own][:n_steps],
            )
        )
    return found


def _logits(model: Any, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits at these positions, (n_rows, n_positions, n_vocabulary), and what they come from."""
    entered: list[Tensor] = []
    head = bare(model).get_output_embeddings()
    hook = head and head.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    keeps = keeps_logits(bare(model))
    asked = {"logits_to_keep": positions} if keeps else {}
    try:
        logits = model(input_ids=ids, use_cache=False, **asked).logits
    finally:
        if hook:
            hook.remove()
    hidden = entered[-1].detach() if entered else None
    if keeps:
        return logits, hidden
    return logits[:, positions], None if hidden is None else hidden[:, positions]


def fitting(request: TokenRequest, max_length: int | None) -> TokenRequest:
    """A request cut from the left of its context as in scoring, if it is longer than that.

    Raises:
        EngineError: nothing stands before the answer, the answer is empty, or it does not fit.
    """
    context, continuation = list(request.context), list(request.continuation)
    if not context or not continuation:
        raise EngineError("a response and what stands before it have at least one token each")
    if max_length is None:
        return TokenRequest(context, continuation)
    if len(continuation) > max_length:
        raise EngineError(
            f"the answer has {len(continuation)} tokens, the context length is {max_length}"
        )
    # The last token is predicted and never read.
    return TokenRequest(context[-(max_length + 1 - len(continuation)) :], continuation)
