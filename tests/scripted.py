"""An engine whose log-probs a test has written down; every character is a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prefbench.engines.base import Engine, Generation, Logp, Sampling, TokenRequest

END, START = 0, 1


class ScriptedEngine(Engine):
    """Answers from a script: a text's log-prob, or its continuation.

    Args:
        logps: the log-prob of each continuation, by its text without the end-of-turn token, or a
            function of context and continuation; -1 a token where it says nothing.
        replies: the text that is generated for each prompt.
        max_length: of context and continuation together.
    """

    kind = "scripted"
    tokenizer_key = "characters"

    def __init__(
        self,
        logps: Mapping[str, float] | Callable[[str, str], float] | None = None,
        replies: Mapping[str, str] | None = None,
        *,
        max_length: int = 100_000,
    ) -> None:
        super().__init__()
        self.logps = logps if callable(logps) else (logps or {})
        self.replies = replies or {}
        self._max_length = max_length
        self.scored: list[TokenRequest] = []

    @property
    def max_length(self) -> int:
        return self._max_length

    @property
    def eot_token_id(self) -> int:
        return END

    @property
    def prefix_token_id(self) -> int:
        return START

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer_key

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        return [ord(character) for character in string]

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(chr(token) for token in tokens if token not in (END, START))

    def score(self, requests: Sequence[TokenRequest], *, details: bool = False) -> list[Logp]:
        self.scored += requests
        found = [self._score(request) for request in requests]
        if not details:
            return found
        # Every token has an equal part of the log-prob, and every text its own direction.
        return [
            one._replace(tokens=(one.logp / n,) * n, states=np.eye(len(requests))[i])
            for i, one in enumerate(found)
            for n in [len(requests[i].continuation)]
        ]

    def _score(self, request: TokenRequest) -> Logp:
        context, text = self.text(request.context), self.text(request.continuation)
        if callable(self.logps):
            logp = self.logps(context, text)
        else:
            logp = self.logps.get(text, -float(len(request.continuation)))
        n_cut = max(0, len(request.context) + len(request.continuation) - self.max_length - 1)
        return Logp(logp, False, n_cut)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] = ()
    ) -> list[Generation]:
        texts = [self.replies[self.text(prompt)] for prompt in prompts]
        return [Generation(text, len(text), True) for text in texts]
