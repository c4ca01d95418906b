"""Generation by transformers: whatever checkpoints ask for beyond greedy search and sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from prefbench.engines.base import Sampling


def by_transformers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    until: Sequence[str],
    sampling: Sampling,
    seeds: Sequence[int],
    *,
    pad: int,
) -> list[tuple[list[int], bool]]:
    """Tokens behind each prompt, and whether their logits were numbers.

    Where they are drawn, each prompt is run alone: transformers has one seed for all rows.
    """
    if sampling.temperature > 0 and len(prompts) > 1:
        return [
            row
            for prompt, seed in zip(prompts, seeds, strict=True)
            for row in by_transformers(model, tokenizer, [prompt], until, sampling, [seed], pad=pad)
        ]
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    sampled = (
        {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
        }
        if sampling.temperature > 0
        else {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    )
    watch = _FiniteLogits()
    torch.manual_seed(seeds[0])
    output = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=sampling.max_gen_toks,
        stopping_criteria=StoppingCriteriaList([_StopAtStrings(tokenizer, until, width)]),
        pad_token_id=pad,
        logits_processor=LogitsProcessorList([watch]),
        **sampled,
    )
    n_beams = len(watch.finite) // len(prompts)
    finite = [all(watch.finite[i * n_beams : (i + 1) * n_beams]) for i in range(len(prompts))]
    return list(zip(output[:, width:].tolist(), finite, strict=True))


class StopStrings:
    """Which texts hold a stop string, however they were split into tokens."""

    def __init__(self, tokenizer: Any, until: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.until = [stop for stop in until if stop]
        # At worst every byte is a token; two more, where a token holds the stop's beginning.
        self.tail = max((len(stop.encode()) for stop in self.until), default=0) + 2

    def are_met(self, texts: Sequence[Sequence[int]]) -> list[bool]:
        tails = self.tokenizer.batch_decode([text[-self.tail :] for text in texts])
        return [any(stop in tail for stop in self.until) for tail in tails]


class _StopAtStrings(StoppingCriteria):
    """Stops each row of transformers' own generation at its own stop string."""

    def __init__(self, tokenizer: Any, until: Sequence[str], prompt_width: int) -> None:
        self.strings = StopStrings(tokenizer, until)
        self.start = prompt_width

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        done = self.strings.are_met(input_ids[:, self.start :].tolist())
        return torch.tensor(done, device=input_ids.device)


class _FiniteLogits(LogitsProcessor):
    """Remembers which rows had logits that are not numbers; greedy search would not say."""

    def __init__(self) -> None:
        self.finite: list[bool] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        rows = (~scores.isnan().any(-1)).tolist()
        before = self.finite or [True] * len(rows)
        self.finite = [a and b for a, b in zip(before, rows, strict=True)]
        return scores.nan_to_num() if not all(rows) else scores
