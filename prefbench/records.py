"""The nouns every floor speaks: Checkpoint, Answer, Record, Estimate, Score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from prefbench.stats.estimates import Estimate

State = Literal["ready", "incomplete", "refused"]

METHODS: Mapping[str, str] = {
    "base": "Base",
    "sft": "SFT",
    "unlikelihood": "Unlikelihood",
    "exmate": "ExMATE",
    "exmate_token": "ExMATE (token)",
    "dpo": "DPO",
    "dpop": "DPOP",
    "ipo": "IPO",
    "slic": "SLiC",
    "hinge": "Hinge",
    "rrhf": "RRHF",
    "spin": "SPIN",
    "dpo_exmate": "DPO+ExMATE",
    "dpo_nll": "DPO+NLL",
    "simpo": "SimPO",
    "orpo": "ORPO",
    "sppo": "SPPO",
    "kto": "KTO",
}
"""Canonical method names and how a table writes them, in the table's order."""

REFERENCE, ROUND_ROBIN = "reference", "round_robin"
"""Opponents of a comparison that are no checkpoint: the data's own answer, and all others."""


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights on disk and where it came from.

    `reference` is the checkpoint it was tuned from, `base` the full weights an adapter needs; both
    as the path they resolve to, or as written where nothing is there. `origins` says for each
    of method, step, seed, reference and base where it was learnt.
    """

    name: str
    path: Path
    state: State
    reason: str | None = None
    method: str | None = None
    step: int | None = None
    seed: int | None = None
    reference: str | None = None
    base: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    architecture: str | None = None
    dtype: str | None = None
    n_parameters: int | None = None
    n_bytes: int = 0
    adapter: bool = False


@dataclass(frozen=True)
class Answer:
    """What one checkpoint gave for one item.

    Lists run over the item's continuations (choices, both texts of a pair, one rolling text) or
    over its generations. Log-probs are sums in nats. `reason` says why there is no answer.
    """

    item: int
    texts: tuple[str, ...] = ()
    logps: tuple[float, ...] = ()
    greedy: tuple[bool, ...] = ()
    n_tokens: tuple[int, ...] = ()
    n_bytes: tuple[int, ...] = ()
    n_cut: int = 0
    """Prompt tokens dropped because prompt and answer exceeded the context length."""
    unfinished: tuple[bool, ...] = ()
    """Per generation: it reached the token limit before a stop string or end-of-sequence."""
    reason: str | None = None
    token_ids: tuple[tuple[int, ...], ...] = ()
    """Of each text of a pair, or of each generation that is scored or judged later on."""
    token_logps: tuple[tuple[float, ...], ...] = ()
    """Of each text of a pair, token by token, the end-of-turn token included."""
    gram: tuple[float, ...] = ()
    """Of the texts of a pair, where the engine has hidden states: the inner products of their sums
    at the positions that predict each text's tokens, row by row (n_texts × n_texts)."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What gradients gave, by quantity."""
    cosines: tuple[float, ...] = ()
    """Of the gradients of a pair's tokens, row by row (n_chosen × n_rejected); `texts` are then
    both texts' tokens."""

    @property
    def written(self) -> tuple[str, ...]:
        """The texts that the checkpoint wrote itself."""
        return () if self.cosines else self.texts


class Record(NamedTuple):
    """One number for one item under one quantity, or the reason there is none."""

    item: int
    quantity: str
    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Score:
    """An estimate and what it is an estimate of."""

    checkpoint: str
    task: str
    metric: str
    estimate: Estimate
    higher_is_better: bool | None
