"""Generation of many texts at once, behind a prefix that is run and kept once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from prefbench.engines.attention import forward, packed_attention
from prefbench.engines.base import Sampling
from prefbench.engines.checks import difference, is_out_of_memory, made_up
from prefbench.engines.drawing import Draws
from prefbench.engines.packing import KeptKeys, run_row
from prefbench.engines.scoring import Scorer
from prefbench.engines.stepping import OwnKeys, Piece, Step
from prefbench.engines.tree import (
    EVEN,
    NOTHING,
    Budget,
    Ints,
    Line,
    Row,
    n_common,
    node,
    rows,
)

AreDone = Callable[[Sequence[Sequence[int]]], Sequence[bool]]
"""Says for some texts so far, each with at least one token, which have ended."""

SPARSE = 0.75
"""Finished texts leave the batch once fewer than this share goes on."""
LEAST_SHARED = 32
"""A prefix is run by itself if that saves at least so many tokens."""
CHECKED = 4
"""Tokens that the check decodes."""
GREEDY = Sampling()


@dataclass
class Text:
    """Tokens of a text, the sum of their log-probs in nats, and whether all were numbers."""

    tokens: list[int] = field(default_factory=list)
    logp: float = 0.0
    finite: bool = True


class Decoder:
    """Decodes for one loaded model, behind the prefix that its scorer keeps."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    @torch.inference_mode()
    def decode(
        self,
        prompts: Sequence[Sequence[int] | Ints],
        *,
        n_tokens: int,
        are_done: AreDone,
        sampling: Sampling = GREEDY,
        seeds: Sequence[int] = (),
    ) -> list[Text]:
        """Texts of `write`; prompts that together do not fit into memory are run in halves.

        Args:
            prompts: token ids, each at least one.
            n_tokens: most tokens of a text, at least 1.
            are_done: which texts have ended by themselves.
            sampling: whose temperature, top_k and top_p are heeded.
            seeds: of each prompt's text where the temperature is above 0.

        Raises:
            EngineError: not even one prompt fits in very small passes.
        """

        def some(chosen: Sequence[int]) -> list[Text]:
            return self.decode(
                [prompts[i] for i in chosen],
                n_tokens=n_tokens,
                are_done=are_done,
                sampling=sampling,
                seeds=[seeds[i] for i in chosen] if seeds else (),
            )

        every = range(len(prompts))
        try:
            texts = write(
                self.scorer.model,
                self.scorer.kept,
                [np.asarray(prompt, np.int32) for prompt in prompts],
                n_tokens=n_tokens,
                are_done=are_done,
                budget=self.scorer.budget,
                draws=Draws(sampling, seeds) if sampling.temperature > 0 else None,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(prompts) == 1:
                self.scorer.shrink(error)
        else:
            # A prompt that overflows makes those in its row no numbers, although they do not see
            # it: those are written once more, each alone.
            lost = [i for i in every if len(texts) > 1 and not texts[i].finite]
            again = {i: some([i])[0] for i in lost}
            return [again.get(i, text) for i, text in enumerate(texts)]
        self.scorer.release()
        half = len(prompts) // 2
        return [text for part in (every[:half], every[half:]) if part for text in some(part)]

    @cached_property
    def plain_reason(self) -> str | None:
        """Why texts are not decoded this way, if they are not."""
        reason = self.scorer.within_memory(lambda: self.scorer.plain_reason)
        if reason is None and (reason := self.scorer.within_memory(self._check)):
            self.scorer.note(f"generates without sharing prefixes, which is slower: {reason}")
        return reason

    @torch.inference_mode()
    def _check(self) -> str | None:
        """Decodes a few tokens behind made-up prompts and scores them the plain way."""
        if self.scorer.max_length < 4 * CHECKED:
            return "the context is too short for a check"
        lines = made_up(self.scorer.n_vocabulary, self.scorer.max_length - CHECKED)
        prompts = [line.tokens for line in lines[1:]]
        try:
            texts = self.decode(
                prompts, n_tokens=CHECKED, are_done=lambda some: [False] * len(some)
            )
        except Exception as error:  # whatever a model's own code makes of the steps
            if is_out_of_memory(error):
                raise
            return f"its code cannot run single tokens: {type(error).__name__}: {error}"
        whole = [
            Line(np.concatenate([prompt, np.array(text.tokens, np.int32)]), len(prompt))
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        plain = self.scorer.plain(whole).sums
        dtype = next(self.scorer.model.parameters()).dtype
        return difference(np.array([text.logp for text in texts]), plain, dtype)


def write(
    model: Any,
    kept: KeptKeys,
    prompts: Sequence[Ints],
    *,
    n_tokens: int,
    are_done: AreDone,
    budget: Budget,
    draws: Draws | None = None,
) -> list[Text]:
    """Texts of at most `n_tokens` tokens, each up to where it is done, in order.

    Args:
        model: with an attention that can be replaced.
        kept: keys and values from earlier calls; their prefix is used and replaced.
        prompts: token ids, each at least one.
        n_tokens: most tokens of a text, at least 1; a text that is no numbers ends at once.
        are_done: which texts have ended by themselves.
        budget: of a forward pass over prompts.
        draws: the texts' tokens are drawn by it; without, the highest logit is taken.
    """
    with packed_attention(model):
        n_shared = _run_shared(model, kept, prompts, budget)
        own, logits = _run_distinct(model, kept, [p[n_shared:] for p in prompts], n_shared, budget)
        texts = [Text() for _ in prompts]
        batch, going = list(range(len(texts))), set(range(len(texts)))
        while True:
            _extend(texts, batch, going, logits, draws)
            going &= {i for i in going if len(texts[i].tokens) < n_tokens and texts[i].finite}
            alive = sorted(going)
            ended = are_done([texts[i].tokens for i in alive]) if alive else []
            going -= {i for i, end in zip(alive, ended, strict=True) if end}
            if not going:
                return texts
            if len(going) < SPARSE * len(batch):
                stay = [j for j, i in enumerate(batch) if i in going]
                own.keep(stay)
                batch = [batch[j] for j in stay]
            last = np.array([texts[i].tokens[-1] for i in batch], np.int32)
            step = Step(kept, n_shared, own)
            every = np.arange(len(batch), dtype=np.int32)
            logits = forward(model, step, last, n_shared + own.lengths, every)
            own.lengths += 1


def _extend(
    texts: Sequence[Text],
    batch: Sequence[int],
    going: Collection[int],
    logits: torch.Tensor,
    draws: Draws | None,
) -> None:
    """Adds a token to each text of the batch that goes on, by its row of logits."""
    logits = logits.float()
    finite = ~logits.isnan().any(-1)
    logits = logits.nan_to_num() if not bool(finite.all()) else logits
    best, tokens = logits.max(-1)
    if draws is not None:
        tokens = draws.tokens(logits, batch)
        best = logits.gather(-1, tokens[:, None])[:, 0]
    logps = best - logits.logsumexp(-1)
    for i, token, logp, number in zip(
        batch, tokens.tolist(), logps.tolist(), finite.tolist(), strict=True
    ):
        if i in going:
            text = texts[i]
            text.tokens.append(token)
            text.logp += logp if number else math.nan
            text.finite &= number


def _run_shared(model: Any, kept: KeptKeys, prompts: Sequence[Ints], budget: Budget) -> int:
    """Runs the prefix that the prompts share, as far as it is not kept; returns its length."""
    n_shared = min(len(prompt) for prompt in prompts) - 1  # the last token is asked what follows
    for prompt in prompts:
        n_shared = min(n_shared, n_common(prompt, prompts[0]))
    if n_shared * (len(prompts) - 1) < LEAST_SHARED:
        return 0
    even = n_shared // EVEN * EVEN
    for low, high in ((0, even), (even, n_shared)):
        for row in rows(node(prompts[0][low:high]), budget, low) if high > low else ():
            if not kept.has(row):
                run_row(model, row, np.zeros(1, np.int32), kept)
    return n_shared


def _run_distinct(
    model: Any, kept: KeptKeys, prompts: Sequence[Ints], start: int, budget: Budget
) -> tuple[OwnKeys, torch.Tensor]:
    """As `_run_prompts`, which runs a prompt once however many texts are wanted behind it."""
    firsts: dict[bytes, int] = {}
    places = [firsts.setdefault(prompt.tobytes(), len(firsts)) for prompt in prompts]
    if len(firsts) == len(prompts):
        return _run_prompts(model, kept, prompts, start, budget)
    distinct = [prompts[places.index(place)] for place in range(len(firsts))]
    own, logits = _run_prompts(model, kept, distinct, start, budget)
    own.keep(places)
    return own, logits[places]


def _run_prompts(
    model: Any, kept: KeptKeys, prompts: Sequence[Ints], start: int, budget: Budget
) -> tuple[OwnKeys, torch.Tensor]:
    """Runs what each prompt has of its own; returns its keys and the logits at its end."""
    own = OwnKeys(np.array([len(prompt) for prompt in prompts], np.int32))
    found: dict[int, torch.Tensor] = {}
    for row, pieces in _prompt_rows(prompts, start, budget):
        ends = [p for p in pieces if p.offset + p.high - p.low == len(prompts[p.text])]
        positions = np.array([p.high - 1 for p in ends] or [0], np.int32)

        def keep(layer: int, keys: Any, values: Any, pieces: Sequence[Piece] = pieces) -> None:
            for piece in pieces:
                own.fill(layer, piece, keys, values)

        logits = run_row(model, row, positions, kept, keep)
        found.update({p.text: logits[i] for i, p in enumerate(ends)})
    return own, torch.stack([found[i] for i in range(len(prompts))])


def _prompt_rows(
    prompts: Sequence[Ints], start: int, budget: Budget
) -> Iterator[tuple[Row, list[Piece]]]:
    """Rows of short prompts beside each other, and of long ones cut into pieces."""
    together: list[int] = []
    for i, prompt in enumerate(prompts):
        size = sum(len(prompts[j]) for j in together) + len(prompt)
        if together and (size > budget.tokens or len(together) == budget.scored):
            yield _beside(prompts, together, start)
            together = []
        if len(prompt) <= budget.tokens:
            together.append(i)
            continue
        for offset in range(0, len(prompt), budget.tokens):
            (row,) = rows(node(prompt[offset : offset + budget.tokens]), budget, start + offset)
            yield row, [Piece(i, offset, 0, len(row.tokens))]
    if together:
        yield _beside(prompts, together, start)


def _beside(
    prompts: Sequence[Ints], together: Sequence[int], start: int
) -> tuple[Row, list[Piece]]:
    ends = np.cumsum([len(prompts[i]) for i in together]).tolist()
    begins = [0, *ends[:-1]]
    pieces = [Piece(i, 0, a, b) for i, a, b in zip(together, begins, ends, strict=True)]
    sizes = [piece.high - piece.low for piece in pieces]
    row = Row(
        start,
        np.concatenate([prompts[i] for i in together]),
        np.concatenate([np.arange(start, start + size, dtype=np.int32) for size in sizes]),
        np.repeat(np.array(ends, np.int32), sizes),
        NOTHING,
        begins,
    )
    return row, pieces
