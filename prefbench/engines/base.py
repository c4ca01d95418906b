"""An engine: one loaded checkpoint that answers, behind lm-eval's TemplateLM."""

from __future__ import annotations

import hashlib
import itertools
from abc import abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from numpy.typing import NDArray

from prefbench.errors import EngineError, InputError


class TokenRequest(NamedTuple):
    """A continuation to score behind its context, as token ids."""

    context: Sequence[int]
    continuation: Sequence[int]


class Logp(NamedTuple):
    """Sum of a continuation's log-probs in nats, whether it is the greedy one, and what was cut.

    With details also every token's own, and the sum of the hidden states that the output layer
    reads where it predicts them, (width,), if the engine has them.
    """

    logp: float
    greedy: bool
    n_cut: int = 0
    tokens: tuple[float, ...] = ()
    states: NDArray[np.float64] | None = None


class Generation(NamedTuple):
    """A generated text up to its stop string; `finished` is false where the token limit cut it.

    `n_tokens` counts the stop string and not the end-of-sequence token; `finite` is false where a
    token was picked from log-probs that are not all numbers. `tokens` are all that were drawn for
    it, an end-of-sequence token among them; empty where the engine does not know them.
    """

    text: str
    n_tokens: int
    finished: bool
    n_cut: int = 0
    finite: bool = True
    tokens: tuple[int, ...] = ()


TEXTS_AT_ONCE = 16
"""Texts that are generated together where lm-eval drives the engine."""


@dataclass(frozen=True)
class Sampling:
    """How text is generated; temperature 0 is greedy."""

    until: tuple[str, ...] = ()
    max_gen_toks: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True)
class ServerSettings:
    """An OpenAI-compatible endpoint, and how it is asked.

    Args:
        base_url: as OpenAI clients take it, usually ending in /v1.
        model: the name it serves the checkpoint under; by default the one that is the checkpoint's.
        api_key_env: the environment variable that holds the key, where one is needed.
        api: completions for token ids and log-probs, chat where the server renders messages itself.
        concurrency: requests under way at once.
        timeout: seconds that one request may take.

    Raises:
        InputError: no request could be under way.
    """

    base_url: str
    model: str | None = None
    api_key_env: str | None = None
    api: Literal["completions", "chat"] = "completions"
    concurrency: int = 32
    timeout: float = 600.0

    def __post_init__(self) -> None:
        if self.concurrency < 1:  # every request would wait for the end of another, for good
            raise InputError(f"concurrency must be at least 1, not {self.concurrency}")


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is started with; `dtype` is a torch name, e.g. bfloat16."""

    dtype: str = "float32"
    device: str = "auto"
    max_length: int | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    tensor_parallel_size: int = 1
    """GPUs that one checkpoint is spread over; for engines that can."""
    gpu_memory_utilization: float = 0.9
    """Share of a GPU's memory that an engine with a memory of its own may take."""
    n_engines: int = 1
    """Engines that share this machine's own memory."""
    timeout: float = 900.0
    """Seconds without progress after which an engine in another process counts as hung."""
    log_folder: Path | None = None
    """Where engines in other processes keep what they print; the temporary directory if None."""
    server: ServerSettings | None = None
    """For an engine that is asked over a network."""


class Engine(TemplateLM):  # type: ignore[misc]  # lm-eval ships no types
    """What every engine gives; the lm-eval methods below rest on the three abstract ones."""

    kind: str
    batch_size: int = 32
    """Items that it is best asked at once, unless the user says otherwise."""
    tokenizer_key: str
    """Equal for two engines exactly if they turn every text into the same token ids."""

    @property
    def notes(self) -> Sequence[str]:
        """What became known while it worked and is worth keeping with the numbers."""
        return ()

    @property
    def facts(self) -> Mapping[str, Any]:
        """What else the manifest should say of it."""
        return {}

    @property
    def template_digest(self) -> str | None:
        """Hash of the chat template, if there is one."""
        template = getattr(self.tokenizer, "chat_template", None)
        return hashlib.sha256(str(template).encode()).hexdigest() if template else None

    @property
    def n_vocabulary(self) -> int | None:
        """Token ids that the weights know, where that is known."""
        return None

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Longest context and answer together, in tokens."""

    @abstractmethod
    def score(self, requests: Sequence[TokenRequest], *, details: bool = False) -> list[Logp]:
        """Log-probs of continuations, in order; with details, as far as the engine has them.

        A request longer than the context length loses tokens from the left of its context, as in
        lm-eval; `n_cut` counts them.

        Raises:
            EngineError: a context or a continuation is empty, or the latter alone longer than the
                context length.
        """

    @abstractmethod
    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] = ()
    ) -> list[Generation]:
        """A text per prompt, in order; a prompt that leaves no room is cut from the left.

        Args:
            prompts: token ids; several samples of a prompt are as many prompts.
            sampling: how it is generated.
            seeds: of each prompt's text where it is drawn, which then depends on nothing else;
                by default `sampling.seed` and the numbers after it.

        Raises:
            EngineError: `max_gen_toks` alone fills the context length, or a prompt has an id that
                is none of the vocabulary.
        """

    def generate_together(
        self,
        others: Sequence[Engine],
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int] = (),
    ) -> list[list[Generation]]:
        """A text per prompt by this engine and by each of the others; raises as `generate` does."""
        return [one.generate(prompts, sampling, seeds) for one in (self, *others)]

    def encode(
        self, texts: Sequence[str], add_special_tokens: bool | None = None
    ) -> list[array[int]]:
        """Token ids of many texts at once, each as `tok_encode` gives them, four bytes an id."""
        return [
            array("i", self.tok_encode(text, add_special_tokens=add_special_tokens))
            for text in texts
        ]

    def rolling_windows(self, tokens: Sequence[int]) -> list[TokenRequest]:
        """A long text as disjoint windows that together score every token once."""
        windows = get_rolling_token_windows(
            token_list=list(tokens),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [TokenRequest(*make_disjoint_window(window)) for window in windows]

    def check(self, request: TokenRequest) -> str | None:
        """Why a request cannot be scored, if it cannot."""
        if not len(request.continuation):
            return "the answer has no tokens"
        if not len(request.context):
            return "there is no token before the answer"
        if reason := self.check_prompt(request.context) or self.check_prompt(request.continuation):
            return reason
        if len(request.continuation) > self.max_length:
            return (
                f"the answer has {len(request.continuation)} tokens, "
                f"the context length is {self.max_length}"
            )
        return None

    def check_prompt(self, ids: Sequence[int], n_more: int = 0) -> str | None:
        """Why token ids cannot be asked about, with so many to come, if they cannot."""
        n = self.n_vocabulary
        if n is not None and len(ids) and (highest := int(np.max(ids))) >= n:
            return (
                f"the tokenizer gives the id {highest}, the model has {n}; resize its embeddings "
                "to the tokenizer"
            )
        return None

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[object, list[int], list[int]]],
        disable_tqdm: bool = False,
    ) -> list[tuple[float, bool]]:
        scored = self.score([TokenRequest(context, answer) for _, context, answer in requests])
        return [(one.logp, one.greedy) for one in scored]

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        windows = [self.rolling_windows(self.tok_encode(request.args[0])) for request in requests]
        return [sum(one.logp for one in self.score(text)) for text in windows]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        prompts = [self.tok_encode(request.args[0]) for request in requests]
        settings = [sampling_of(request.args[1]) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: (repr(settings[i]), -len(prompts[i]), i))
        texts: dict[int, str] = {}
        for sampling, group in itertools.groupby(order, key=settings.__getitem__):
            alike = list(group)
            for start in range(0, len(alike), TEXTS_AT_ONCE):
                batch = alike[start : start + TEXTS_AT_ONCE]
                generated = self.generate([prompts[i] for i in batch], sampling)
                texts.update(zip(batch, (one.text for one in generated), strict=True))
        return [texts[i] for i in range(len(requests))]


def sampling_of(settings: dict[str, object]) -> Sampling:
    """lm-eval's `generation_kwargs` as ours.

    Raises:
        EngineError: a setting that no engine of ours carries out; nothing is silently dropped.
    """
    rest = dict(settings)
    until = rest.pop("until", None) or ()
    stops = (until,) if isinstance(until, str) else tuple(str(stop) for stop in until)  # type: ignore[attr-defined]
    greedy = not rest.pop("do_sample", True)
    numbers = {
        name: float(rest.pop(name, default))  # type: ignore[arg-type]
        for name, default in (
            ("max_gen_toks", 256),
            ("temperature", 0.0),
            ("top_p", 1.0),
            ("top_k", 0),
            ("seed", 0),
        )
    }
    if rest:
        raise EngineError(f"generation_kwargs: unknown keys {', '.join(sorted(rest))}")
    return Sampling(
        until=stops,
        max_gen_toks=int(numbers["max_gen_toks"]),
        temperature=0.0 if greedy else numbers["temperature"],
        top_p=numbers["top_p"],
        top_k=int(numbers["top_k"]),
        seed=int(numbers["seed"]),
    )
