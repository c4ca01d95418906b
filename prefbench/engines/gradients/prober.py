"""Probing a checkpoint: pairs in, numbers about their gradients out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prefbench.engines.checks import is_out_of_memory
from prefbench.engines.gradients.aligned import aligned
from prefbench.engines.gradients.conditions import Change, Gram, Weights, change, weights_of
from prefbench.engines.gradients.heat import token_cosines
from prefbench.engines.gradients.pair import PairGradients
from prefbench.engines.gradients.parameters import ready, select
from prefbench.engines.gradients.passes import fitting, respond_to_all, summed
from prefbench.engines.gradients.probing import Probing, TokenPair
from prefbench.engines.gradients.steps import By, copy_to, taken_back
from prefbench.errors import EngineError
from prefbench.objectives import OBJECTIVES

NOISE = 16
"""Rounding of a summed log-prob, in units of the number format's own per nat and per token."""
ANGLES = {"float64": 1e-12, "float32": 1e-4, "float16": 0.05, "bfloat16": 0.1}
"""Cosines of gradients that are rounding alone, several times what was seen on a small model."""


class Prober:
    """A loaded checkpoint whose gradients are looked at, pair by pair.

    Between calls the model is as it was, bit for bit. `what` says what the gradients are of, and
    `notes` what could not be measured.
    """

    def __init__(
        self,
        model: Any,
        probing: Probing,
        *,
        random_model: Any = None,
        max_length: int | None = None,
    ) -> None:
        """Chooses the parameters.

        Args:
            model: a transformers model, perhaps with an adapter.
            probing: what is asked.
            random_model: one of the same shape that has learnt nothing, for `..._random@t`.
            max_length: the context length; contexts are cut from the left to fit.

        Raises:
            InputError: the model has no such parameters.
        """
        self.model = model
        self.probing = probing
        self.random_model = random_model
        self.max_length = max_length
        selected = select(model, probing.parameters)
        self.what = f"{selected.what} ({selected.n_numbers:,} numbers)"
        self.notes: list[str] = []
        self._parameters = selected.tensors
        coarsest = max((torch.finfo(one.dtype) for one in selected.tensors), key=lambda i: i.eps)
        self._epsilon = coarsest.eps
        self._angle = ANGLES.get(coarsest.dtype, 0.1)
        self._can_step = coarsest.bits >= 32
        if not self._can_step:
            self.notes.append(
                f"in {coarsest.dtype} cosines of gradients are off by some hundredths, and no step "
                "was observed, as rounding would swallow it; --dtype float32 observes it"
            )

    def probe(self, pair: TokenPair) -> dict[str, float]:
        """Quantities of a pair by name; those that cannot be known are absent.

        norm_chosen, norm_rejected, inner, cosine and entanglement = inner / min(‖g_w‖², ‖g_l‖²) are
        of g_w and g_l, the gradients of the summed log-probs in nats. The conditions,
        chosen_rises/<objective> and rejected_falls/<objective>, are 1 where they hold, and absent
        where the objective needs a reference that there is none of or asks nothing of the pair.
        predicted_* are first-order changes of the own objective per unit of step, observed_* are
        nats of a step small enough to change neither log-prob by more than some hundredths; both
        are absent within the noise of rounding. Aligned steps are told in `aligned`.

        Raises:
            EngineError: a response is empty or too long, or memory runs out.
        """
        pair = self._fitting(pair)
        names = self.probing.known(pair.reference)
        own = self.probing.own if self.probing.own in names else None
        by_token = any(OBJECTIVES[name].needs_tokens for name in names)
        with self._ready():
            gradients = PairGradients(
                self.model,
                pair,
                self._parameters,
                n_steps=self.probing.n_steps,
                keep=by_token or own is not None,
                retain=by_token,
            )
            found = _entanglement(gradients.gram)
            weights = weights_of(
                names,
                gradients.first.logps,
                gradients.second.logps,
                pair.reference,
                self.probing.settings,
            )
            changes = {
                name: change(one, gradients.gram, gradients.of_tokens(one.tokens))
                for name, one in weights.items()
                if name != own and not one.is_nothing
            }
            if own and not weights[own].is_nothing:
                changes[own], stepped = self._step(pair, gradients, weights[own])
                found |= stepped
        for name in self.probing.objectives:
            if name in changes and all(map(math.isfinite, changes[name])):
                found[f"chosen_rises/{name}"] = float(changes[name].chosen > 0)
                found[f"rejected_falls/{name}"] = float(changes[name].rejected < 0)
        found |= self._aligned(pair, gradients)
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def heat_map(self, pair: TokenPair) -> NDArray[np.float64]:
        """Cosines of the gradients of single tokens' log-probs, (n_chosen, n_rejected).

        NaN where a gradient is 0. As many backward passes as tokens for a small model, and more
        for one whose gradients take much memory; raises as `probe` does.
        """
        pair = self._fitting(pair)
        with self._ready():
            return token_cosines(self.model, pair, self._parameters)

    def _step(
        self, pair: TokenPair, gradients: PairGradients, weights: Weights
    ) -> tuple[Change, dict[str, float]]:
        """What a step down the own objective is to change, and what it does change."""
        direction = gradients.direction(weights)
        predicted = direction.change("sgd")
        gram, v = gradients.gram, direction.norm
        noise = [self._angle * math.sqrt(square) * v for square in (gram.chosen, gram.rejected)]
        found = _above(noise, predicted, "predicted_{}")
        # A step along rounding alone would say nothing.
        ways: tuple[By, ...] = ("sgd", "adamw") if self._can_step and found else ()
        ways = tuple(by for by in ways if math.isfinite(direction.size(by)))
        before = [float(one.logps.double().sum()) for one in (gradients.first, gradients.second)]
        lengths = [len(pair.chosen.continuation), len(pair.rejected.continuation)]
        noise = [NOISE * self._epsilon * (abs(b) + n) for b, n in zip(before, lengths, strict=True)]
        # The chosen gradient is needed no more; its tensors hold the parameters meanwhile.
        copies = gradients.g_w
        if ways:
            copy_to(copies, self._parameters)
        for by in ways:
            with taken_back(self._parameters, copies):
                direction.move(self._parameters, by)
                after = summed(self.model, pair[:2])
            suffix = "" if by == "sgd" else "_adamw"
            seen = Change(after[0] - before[0], after[1] - before[1])
            found |= _above(noise, seen, f"observed_{{}}{suffix}")
            found |= _agreement(found, suffix)
        return predicted, found

    def _aligned(self, pair: TokenPair, gradients: PairGradients) -> dict[str, float]:
        n = self.probing.n_steps
        if not n:
            return {}
        found = aligned(pair.chosen, pair.rejected, gradients.first, gradients.second, n)
        if self.random_model is None:
            return found
        # Its later steps are asked for by nobody.
        some = [one._replace(continuation=one.continuation[:n]) for one in pair[:2]]
        first, second = respond_to_all(self.random_model, some, n)
        return found | aligned(pair.chosen, pair.rejected, first, second, n, "_random")

    def _fitting(self, pair: TokenPair) -> TokenPair:
        chosen, rejected = (fitting(one, self.max_length) for one in pair[:2])
        return TokenPair(chosen, rejected, pair.reference)

    @contextmanager
    def _ready(self) -> Iterator[None]:
        try:
            with ready(self.model, self._parameters, checkpointing=self.probing.checkpointing):
                yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise EngineError(
                f"no memory for the gradients of {self.what}: it takes the weights, two gradients "
                "and the activations; activation checkpointing, bfloat16, or parameters: "
                "last_layer need less"
            ) from error


def _entanglement(gram: Gram) -> dict[str, float]:
    norms = math.sqrt(gram.chosen), math.sqrt(gram.rejected)
    found = {"norm_chosen": norms[0], "norm_rejected": norms[1], "inner": gram.inner}
    if all(norms):
        found["cosine"] = gram.inner / (norms[0] * norms[1])
        found["entanglement"] = gram.inner / min(gram.chosen, gram.rejected)
    return found


def _above(noise: list[float], values: Change, name: str) -> dict[str, float]:
    """The changes of both responses that are larger than the noise, by name."""
    sides = zip(("chosen", "rejected"), values, noise, strict=True)
    return {name.format(side): value for side, value, least in sides if abs(value) > least}


def _agreement(found: dict[str, float], suffix: str) -> dict[str, float]:
    """Whether a response went where it was predicted to go, where both are known."""
    agreed = {}
    for side in ("chosen", "rejected"):
        predicted, observed = f"predicted_{side}", f"observed_{side}{suffix}"
        if predicted in found and observed in found:
            agreed[f"{side}_agrees{suffix}"] = float(
                (found[predicted] > 0) == (found[observed] > 0)
            )
    return agreed
