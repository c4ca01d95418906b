"""All toys at once: what is known of each, what came out, and whether the two agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from prefbench.demo.toys import actions, entangled
from prefbench.demo.toys.actions import Learning, ipo_of_two, ipo_optimum
from prefbench.demo.toys.curves import LOSSES, Surface, surface
from prefbench.demo.toys.entangled import Confidence, Entanglement, known_products, turning_point
from prefbench.demo.toys.shared_token import LAWS, Slopes, slopes_of
from prefbench.stats.bootstrap import Array

PROBABILITIES = np.linspace(0.02, 0.98, 97)
N_SHARED = range(15)
CONFIDENCES = (entangled.SURER_CHOSEN, entangled.SURER_REJECTED, Confidence(0.4, 0.4))
_TWO_STEPS = 2000
_EXACT = 1e-9


@dataclass(frozen=True)
class Toys:
    """What came out of every toy."""

    ipo: tuple[Learning, ...]
    dpo: tuple[Learning, ...]
    of_two: tuple[Learning, ...]
    """IPO with two actions."""
    slopes: tuple[Slopes, ...]
    surfaces: tuple[Surface, ...]
    """Each (n_rejected, n_chosen), over PROBABILITIES both ways."""
    entangled: tuple[tuple[Entanglement, ...], ...]
    """For each of CONFIDENCES, by the number of shared tokens."""


@dataclass(frozen=True)
class Finding:
    """One thing that is known of a toy, and the same as it came out."""

    toy: str
    what: str
    known: tuple[float, ...]
    found: tuple[float, ...]
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether no number is further from the known one than the tolerance; NaN never is near."""
        return all(
            abs(known - found) <= self.tolerance
            for known, found in zip(self.known, self.found, strict=True)
        )


def work_out(
    seed: int = 0, *, n_steps: int = actions.N_STEPS, n_seeds: int = actions.N_SEEDS
) -> Toys:
    """Every toy; with the paper's numbers of steps and seeds, in half a minute of one core."""
    ipo, dpo = (
        # The same mini-batches for both.
        tuple(
            actions.train(name, rng=np.random.default_rng(seed), n_steps=n_steps, n_seeds=n_seeds)
        )
        for name in ("ipo_sum", "dpo")
    )
    two = actions.train("ipo_sum", rng=None, pairs=((0, 1),), n_steps=_TWO_STEPS, n_seeds=1)
    return Toys(
        ipo,
        dpo,
        tuple(two),
        tuple(slopes_of(law, PROBABILITIES) for law in LAWS),
        tuple(surface(loss, PROBABILITIES[None, :], PROBABILITIES[:, None]) for loss in LOSSES),
        tuple(tuple(entangled.entanglements(sure, N_SHARED)) for sure in CONFIDENCES),
    )


def toys_as_text(toys: Toys | None = None) -> str:
    """What is known, what came out and whether they agree; worked out first where not given."""
    found = findings(toys or work_out())
    lines = []
    for toy, some in groupby(found, key=lambda finding: finding.toy):
        lines += ["", toy]
        for finding in some:
            verdict = "agrees" if finding.agrees else "DIFFERS"
            lines += [f"  {verdict:9}{finding.what}", f"{'':11}{compared(finding)}"]
    n_agree = sum(finding.agrees for finding in found)
    return "\n".join([*lines[1:], "", f"{n_agree} of {len(found)} agree.", ""])


def compared(finding: Finding) -> str:
    """The numbers of a finding in words."""
    known, found = (
        " ".join(f"{value:.4g}".replace("-", "−") for value in values)
        for values in (finding.known, finding.found)
    )
    within = f" (±{finding.tolerance:g})" if finding.tolerance else ""
    return f"known {known}{within}, found {found}"


def findings(toys: Toys) -> list[Finding]:
    """All that is known of the toys, in their order."""
    return [*_of_actions(toys), *_of_slopes(toys), *_of_surfaces(toys), *_of_entanglement(toys)]


def _of_actions(toys: Toys) -> Iterator[Finding]:
    n_steps, n_seeds = int(toys.ipo[0].steps[-1]), toys.ipo[0].late.shape[0]
    toy = f"Three actions, learnt from a > b > c: {n_steps:,} steps of Adam, {n_seeds} seeds"
    for learning in toys.ipo:
        yield Finding(
            toy,
            f"IPO, τ = {learning.tau:g}: the closed form; probabilities of a, b, c, second half",
            tuple(map(float, ipo_optimum(learning.tau))),
            tuple(map(float, learning.late.mean(axis=0))),
            2e-3,
        )
    for learning in toys.dpo:
        yield Finding(
            toy,
            f"DPO, β = {learning.tau:g}: nothing but a; largest share of the others, at the end",
            (0.0,),
            (float(learning.probabilities[-1, :, 1:].sum(axis=-1).max()),),
            1e-4,
        )
    for learning in toys.of_two:
        yield Finding(
            toy,
            f"IPO of two actions, τ = {learning.tau:g}: the better one has σ(1 / 2τ)",
            (ipo_of_two(learning.tau),),
            (float(learning.probabilities[-1, 0, 0]),),
            1e-4,
        )


def _of_slopes(toys: Toys) -> Iterator[Finding]:
    toy = "A token that both responses share, at the same probability p"
    for one in toys.slopes:
        law = one.law
        yield Finding(
            toy,
            f"{law.title}: d loss / d logit is {law.formula}; largest distance",
            (0.0,),
            (_farthest(one.slopes, law.slope(one.probabilities)),),
            _EXACT,
        )
        starts = tuple(map(float, one.starts))
        where = "nowhere" if law.rests is None else f"to {law.rests:g}"
        yield Finding(
            toy,
            f"{law.title}: descent takes p {where}, from {starts[0]:g} and from {starts[1]:g}",
            starts if law.rests is None else (law.rests,) * len(starts),
            tuple(map(float, one.ends)),
            # MLE and ExMATE come near 1 like 1 / t and 1 / √(2t), and never there.
            0.03 if law.rests == 1 else 1e-6,
        )


def _of_surfaces(toys: Toys) -> Iterator[Finding]:
    toy = "Losses over the probabilities of a chosen and a rejected response of one token"
    for one in toys.surfaces:
        yield Finding(
            toy,
            f"{one.loss.title}: slopes as worked out by hand; largest distance, relative",
            (0.0,),
            (max(map(_relatively_farthest, *_slopes_and_known(one))),),
            _EXACT,
        )


def _slopes_and_known(one: Surface) -> tuple[Sequence[Array], Sequence[Array]]:
    formulas = (one.loss.chosen_slope, one.loss.rejected_slope)
    return (
        (one.chosen_slopes, one.rejected_slopes),
        [formula(one.chosen, one.rejected) for formula in formulas],
    )


def _of_entanglement(toys: Toys) -> Iterator[Finding]:
    size = entangled.N_TOKENS
    toy = f"Two responses that differ in one token, of a vocabulary of M = {size}"
    first = toys.entangled[0][0]
    yield Finding(
        toy,
        "alone: ⟨g_w, g_l⟩ = −1/M, ‖g_w‖² = ‖g_l‖² = 1 − 1/M",
        (-1 / size, 1 - 1 / size, 1 - 1 / size),
        tuple(first.products),
        _EXACT,
    )
    for cases in toys.entangled:
        sure = cases[0].confidence
        shares = f"shared tokens at {sure.chosen:g} and {sure.rejected:g}"
        known = np.array([known_products(sure, case.n_shared) for case in cases])
        yield Finding(
            toy,
            f"{shares}: closed form of the products; largest distance",
            (0.0,),
            (_farthest(np.array([case.products for case in cases]), known),),
            _EXACT,
        )
        actual, predicted = (
            np.array([getattr(case, moves) for case in cases]) for moves in ("actual", "predicted")
        )
        yield Finding(
            toy,
            f"{shares}: first order and step of DPO; largest distance, relative",
            (0.0,),
            (_farthest(actual, predicted) / float(np.abs(predicted).max()),),
            1e-3,
        )
        turn = turning_point(sure)
        same = [case for case in cases if case.actual.chosen * case.actual.rejected > 0]
        yield Finding(
            toy,
            f"{shares}: one step of DPO moves both alike, in how many of {len(cases)}",
            (float(sum(case.n_shared > turn for case in cases)),),
            (float(len(same)),),
            0,
        )


def _farthest(found: Array, known: Array) -> float:
    return float(np.abs(found - known).max())


def _relatively_farthest(found: Array, known: Array) -> float:
    return float((np.abs(found - known) / (1 + np.abs(known))).max())
