"""Work that needs another cell's answers: samples that are scored, and gradients of pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prefbench.engines.base import Engine, TokenRequest
from prefbench.engines.gradients import (
    Prober,
    Probing,
    TokenPair,
    domain_products,
    randomly_initialised,
)
from prefbench.errors import EngineError
from prefbench.measures.answers import NOT_FINITE, SAMPLE_SEED
from prefbench.measures.items import Item
from prefbench.measures.requests import Requests
from prefbench.records import Answer, Record
from prefbench.stats.edits import BANDS, band_of, edit_distance

LARGE = 500_000_000
"""Parameters from which on activations are computed again rather than kept."""
NO_PAIR = "there is no rejected text, or no chosen one"
NO_IDS = "the engine that drew the samples gave no token ids; draw them with hf or vllm"


def apart(token_ids: Sequence[Sequence[int]], n_cut: int, theirs: Answer) -> str | None:
    """Why a reference's log-probs are of something else than ours, if they are.

    Args:
        token_ids: of the texts as we scored them.
        n_cut: how many tokens of the prompt we did not read.
        theirs: what the reference gave.
    """
    if list(map(tuple, token_ids)) != list(theirs.token_ids):
        return "its tokenizer splits the texts otherwise"
    if n_cut != theirs.n_cut:
        return f"it read the prompt without {theirs.n_cut} tokens, the checkpoint without {n_cut}"
    return None


def score_samples(
    requests: Requests, engine: Engine, samples: Mapping[int, Answer], batch: Sequence[int]
) -> list[Answer]:
    """Log-probs of texts that a checkpoint drew, token by token as they were drawn.

    Args:
        requests: of the task that they were drawn for.
        engine: who scores them.
        samples: the texts by item.
        batch: places of the items.
    """
    reasons: dict[int, str] = {}
    flat: list[TokenRequest] = []
    owners: list[int] = []
    for index in batch:
        texts = samples[index]
        reason = texts.reason or (None if texts.token_ids else NO_IDS)
        # As the prompt was read when they were drawn.
        context = [] if reason else requests.tokens(index)[0].context[texts.n_cut :]
        asked = [TokenRequest(context, ids) for ids in texts.token_ids]
        reason = reason or next((why for one in asked if (why := engine.check(one))), None)
        if reason:
            reasons[index] = reason
            continue
        flat += asked
        owners += [index] * len(asked)
    scored: dict[int, list[float]] = {index: [] for index in batch}
    for index, one in zip(owners, engine.score(flat), strict=True):
        scored[index].append(one.logp)
        if one.n_cut:  # as it was drawn, it stood behind the whole
            reasons[index] = "its context has no room for the prompt that was answered"
        elif not math.isfinite(one.logp):
            reasons[index] = NOT_FINITE
    return [
        Answer(index, reason=reasons[index])
        if index in reasons
        else Answer(
            index,
            logps=tuple(scored[index]),
            n_tokens=tuple(map(len, samples[index].token_ids)),
        )
        for index in batch
    ]


class PairProbe:
    """A checkpoint's gradients on the pairs of one task."""

    def __init__(
        self,
        requests: Requests,
        items: Sequence[int],
        engine: Any,
        reference: Mapping[int, Answer] | None,
        objective: str,
    ) -> None:
        """Chooses the parameters, and makes an untrained model where the task wants one.

        Args:
            requests: of the task.
            items: places of the pairs that are going to be looked at.
            engine: the checkpoint in transformers.
            reference: its reference's answers on the same pairs, by item, where it has one.
            objective: whose step is tried.

        Raises:
            EngineError: the engine has no weights of its own.
            InputError: the checkpoint has no such parameters.
        """
        if getattr(engine, "model", None) is None:
            raise EngineError(f"the engine {engine.kind} has no gradients; they need hf")
        recipe = requests.task.recipe
        self.requests = requests
        self.engine = engine
        self.items = items
        self._mapped = {*items[: recipe.heat_maps]}
        self._reference = reference
        large = sum(one.numel() for one in engine.model.parameters()) >= LARGE
        self._probing = Probing(parameters=recipe.parameters, own=objective, checkpointing=large)
        untrained = randomly_initialised(engine.model, SAMPLE_SEED) if recipe.untrained else None
        self._prober = Prober(
            engine.model, self._probing, random_model=untrained, max_length=engine.max_length
        )

    @property
    def notes(self) -> list[str]:
        return [f"gradients of {self._prober.what}", *self._prober.notes]

    def ask(self, batch: Sequence[int]) -> list[Answer]:
        """What the gradients of some pairs are; a pair that has none says why."""
        return [self._ask(index) for index in batch]

    def _ask(self, index: int) -> Answer:
        pair = self._pair(index)
        if isinstance(pair, str):
            return Answer(index, reason=pair)
        numbers = self._prober.probe(pair)
        if not numbers.keys() >= {"norm_chosen", "norm_rejected"}:
            return Answer(index, reason=NOT_FINITE)
        n_cut = max(map(self._n_cut, pair[:2]))
        distance = edit_distance(pair.chosen.continuation, pair.rejected.continuation)
        numbers["edit_distance"] = distance
        for band in BANDS:
            inside = float(band == band_of(distance))
            numbers[f"in@{band}"] = inside
            for name in ("cosine", "entanglement"):
                if name in numbers:
                    numbers[f"{name}@{band}"] = numbers[name] * inside
        if index not in self._mapped:
            return Answer(index, numbers=numbers, n_cut=n_cut)
        cosines = self._prober.heat_map(pair)
        return Answer(
            index,
            texts=tuple(self._read(one) for one in pair[:2]),
            n_tokens=tuple(len(one.continuation) for one in pair[:2]),
            n_cut=n_cut,
            numbers=numbers,
            cosines=tuple(cosines.ravel().tolist()),
        )

    def domains(self) -> dict[int, dict[str, float]]:
        """Products with the mean gradient of the other domain, by item; none without domains."""
        places: dict[str, list[int]] = {}
        pairs: dict[str, list[TokenPair]] = {}
        for index in self.items:
            domain = self.requests.item(index).fields.get("domain")
            pair = self._pair(index)
            if domain and not isinstance(pair, str):
                places.setdefault(str(domain), []).append(index)
                pairs.setdefault(str(domain), []).append(pair)
        if len(pairs) < 2:
            return {}
        found = domain_products(
            self.engine.model, pairs, self._probing, max_length=self.engine.max_length
        )
        return {
            index: numbers
            for domain, several in found.items()
            for index, numbers in zip(places[domain], several, strict=True)
        }

    def _pair(self, index: int) -> TokenPair | str:
        """The first chosen and the first rejected text of an item, or why it cannot be asked."""
        item = self.requests.item(index)
        if item.reason:
            return item.reason
        tokens, n_chosen = self.requests.tokens(index), len(item.fields["chosen"])
        if not 0 < n_chosen < len(tokens):
            return NO_PAIR
        both = tokens[0], tokens[n_chosen]
        for one in both:
            if reason := self.engine.check(one):
                return str(reason)
        return TokenPair(*both, self._under_reference(item, tokens, n_chosen))

    def _under_reference(
        self, item: Item, tokens: Sequence[TokenRequest], n_chosen: int
    ) -> tuple[float, float] | None:
        """Both log-probs under the reference; None where it has none of the same."""
        theirs = self._reference.get(item.item) if self._reference else None
        if theirs is None or theirs.reason:
            return None
        if apart([one.continuation for one in tokens], max(map(self._n_cut, tokens)), theirs):
            return None
        return theirs.logps[0], theirs.logps[n_chosen]

    def _n_cut(self, request: TokenRequest) -> int:
        """Tokens on the left that the context length leaves out."""
        n = len(request.context) + len(request.continuation)
        return int(max(0, n - self.engine.max_length - 1))

    def _read(self, request: TokenRequest) -> str:
        """A text token by token."""
        return SEPARATOR.join(
            self.engine.tokenizer.decode([token]).replace(SEPARATOR, "")
            for token in request.continuation
        )


SEPARATOR = "\u241f"
"""Between the tokens of a heat map's text."""


def number_records(answers: Sequence[Answer]) -> Iterator[Record]:
    """What gradients gave, item by item."""
    for answer in answers:
        if answer.reason:
            yield Record(answer.item, "answer", None, answer.reason)
            continue
        yield Record(answer.item, "cut", float(answer.n_cut > 0))
        for name, value in answer.numbers.items():
            yield Record(answer.item, name, value)
