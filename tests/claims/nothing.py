"""Zoos of which no claim is true, nor its contrary: all lies at the neutral value but for noise.

`python -m tests.claims.nothing` says how often a family of all claims finds something there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from prefbench.claims.checking import check
from prefbench.leaderboard import Gathered, Measured
from tests.claims.made import cell, gathered, margins, pairs, row

ROWS = (
    row("sft"),
    row("unlikelihood", reference="/zoo/sft"),
    row("exmate"),
    row("dpo", reference="/zoo/sft"),
    row("dpop", reference="/zoo/sft"),
    row("ipo", reference="/zoo/sft"),
    row("slic", reference="/zoo/sft"),
    row("rrhf", reference="/zoo/sft"),
    row("spin1", "spin", reference="/zoo/sft"),
    row("spin2", "spin", reference="/zoo/spin1"),
    row("dpo_exmate", reference="/zoo/exmate"),
)


def world(rng: np.random.Generator, n: int) -> Gathered:
    """Eleven rows that differ by noise alone, on eight tasks of n items."""
    shared = {task: np.log(rng.gamma(3.0, size=n)) for task in ("p", "q")}
    distance = np.where(rng.permutation(n) % 2 == 0, 0.05, 0.8)
    cells = [one for each in ROWS for one in _cells(each.name, rng, n, shared, distance)]
    return gathered(ROWS, cells)


def _cells(
    name: str,
    rng: np.random.Generator,
    n: int,
    shared: dict[str, np.ndarray],
    distance: np.ndarray,
) -> Iterator[Measured]:
    # How a row differs from another: skewed, of mean 0, and the same for both texts of a pair.
    for task, hard in shared.items():
        own = 0.1 * (rng.gamma(2.0, size=n) - 2.0)
        given = pairs(1.5, 0.7, hard)
        for text in ("chosen", "rejected"):
            given[f"sum_logp_{text}"] += 10 * 0.1 * (rng.gamma(2.0, size=n) - 2.0) + own
        yield cell(name, task, given)
    low = (distance < 0.1).astype(float)
    # Symmetric around 0; that a pair is ranked right says nothing of how it was before.
    chosen, rejected = rng.standard_t(4, size=(2, n))
    given = margins(chosen, rejected, low=low)
    given |= {
        "ches": rng.normal(size=n),
        "edit_distance": distance,
        "ranking_accuracy": rng.integers(2, size=n),
        "delta_chosen_after": chosen,
        "n_chosen_after": rng.integers(1, 30, size=n),
    }
    yield cell(name, "m", given)
    # Of the texts that a trained model has never seen to fall, a quarter and a tenth fall both.
    yield cell(name, "g", _gradients(rng, n, distance, rng.random(n) < 0.35))
    yield cell(name, "near", _gradients(rng, n, np.full(n, 0.05), rng.random(n) < 0.35, two=True))
    yield cell(name, "w", {"win": rng.integers(3, size=n) / 2})
    yield cell(name, "r", {"kendall_tau": rng.integers(-3, 4, size=n) / 3})
    yield cell(name, "d", {"seq_rep_4": rng.beta(0.5, 5.0, size=n)})
    yield cell(name, "a", {"exact_match,strict-match": rng.random(n) < 0.8})


def _gradients(
    rng: np.random.Generator, n: int, distance: np.ndarray, fall: np.ndarray, *, two: bool = False
) -> dict[str, np.ndarray | float]:
    cosine = rng.beta(2.0, 2.0, size=n)
    low, high = distance < 0.1, distance >= 0.5
    given: dict[str, np.ndarray | float] = {
        "cosine": cosine,
        "edit_distance": distance,
        "in@low_edit": low,
        "in@high_edit": high,
        "cosine@low_edit": cosine * low,
        "cosine@high_edit": cosine * high,
        "chosen_rises/dpo": 1.0 - fall,
        "rejected_falls/dpo": 1.0,
    }
    for text in ("chosen", "rejected"):
        for end in ("", "_adamw"):
            given[f"{text}_agrees{end}"] = rng.integers(2, size=n)
    for t in (1, 2, 3):
        given[f"information_difference@{t}"] = rng.gamma(2.0, size=n)
        for end in ("", "_random") if two else ():
            given[f"probability_difference_l2{end}@{t}"] = rng.gamma(2.0, size=n)
    # Of one prompt for both answers, whose steps do differ, by construction: nothing else of them.
    given.setdefault("probability_difference_l2@1", 0.0)
    return given


def found(rng: np.random.Generator, n: int, n_resamples: int) -> tuple[int, int]:
    """How many lines hold or do not, and how many tests there were."""
    checked = check(world(rng, n), n_resamples=n_resamples)
    told = [line.claim.id for line in checked.lines if line.verdict in ("holds", "does not hold")]
    return len(told), checked.n_tested


if __name__ == "__main__":
    n_worlds, n_items, n_draws = map(int, sys.argv[1:])
    generator = np.random.default_rng(0)
    each = [found(generator, n_items, n_draws) for _ in range(n_worlds)]
    false = sum(lines > 0 for lines, _ in each)
    print(f"{each[0][1]} tests; something found in {false} of {n_worlds} worlds")
