"""Drawing tokens where the temperature is above 0, each text by numbers of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from prefbench.engines.base import Sampling


class Draws:
    """Draws the tokens of several texts; what a text gets depends on nothing of the others."""

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        """Begins at each text's first token.

        Args:
            sampling: with a temperature above 0.
            seeds: of each text's numbers.
        """
        self._temperature = sampling.temperature
        self._cuts: list[Any] = []
        if sampling.top_k > 0:
            self._cuts.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._cuts.append(TopPLogitsWarper(sampling.top_p))
        self._numbers = [np.random.default_rng(seed) for seed in seeds]

    def tokens(self, logits: torch.Tensor, texts: Sequence[int]) -> torch.Tensor:
        """The next token of some texts, (n_texts,), from float32 logits (n_texts, n_vocabulary).

        A uniform number picks the token at its place in the sums of the shares, in the order of
        the ids: rounding in the logits, which other texts may change, then moves no more than the
        bounds between tokens, by a ten millionth or so.
        """
        # Taken from the highest logit, so that a tiny temperature gives no infinity; one that is
        # infinite itself has all the share.
        scores = (logits - logits.max(-1, keepdim=True).values).nan_to_num(nan=0.0)
        scores = scores / self._temperature
        for cut in self._cuts:
            scores = cut(None, scores)
        bounds = scores.softmax(-1).double().cumsum(-1)
        bounds = bounds / bounds[:, -1:]  # so that the last is 1, above any number drawn
        numbers = [[self._numbers[text].random()] for text in texts]
        places = torch.tensor(numbers, dtype=torch.float64, device=bounds.device)
        return torch.searchsorted(bounds, places, right=True)[:, 0]
