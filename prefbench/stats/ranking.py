"""Strengths of many checkpoints from comparisons of each two: Bradley–Terry with ties."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import Method, present
from prefbench.stats.shared import Found, found_of

ENOUGH = 1e-7
"""Log-strength: a Newton step as small leaves an error of about its square."""
N_STEPS = 200


class Strengths(NamedTuple):
    """What is fitted to comparisons."""

    strengths: Array
    """Log-strengths in nats, (..., k), with mean 0 over the k checkpoints."""
    tie: Array
    """ν of the model, (...): ν / (2 + ν) of comparisons between equals are ties."""


def davidson(wins: ArrayLike, ties: ArrayLike) -> Strengths:
    """Maximum-likelihood strengths: i beats j : j beats i : tie = eˢⁱ : eˢʲ : ν · e^((sⁱ+sʲ)/2).

    Without ties ν is 0 and the model is Bradley and Terry's.

    Args:
        wins: how often, or with what weight, i beats j, (..., k, k). The diagonal is ignored.
        ties: how often i and j tie, (..., k, k), symmetric; [i, j] and [j, i] are the same ties.

    Returns:
        Log-strengths and ν; NaN where the comparisons do not determine them. They do where
        checkpoints are connected both ways (a path from each to each, from winner to loser and
        along ties either way), and some round trip has more wins than ties. Otherwise some are
        infinitely stronger than others: a group that never lost or tied outside itself, or a
        pecking order without one upset, where ever more ties and ever larger distances explain all.
        Only ties, connected: strengths 0, ν infinite.

    Source: Davidson 1970, doi.org/10.1080/01621459.1970.10481082; the log-likelihood is concave in
    the strengths and ln ν, and is maximised by Newton's method with steps damped as in Sun and
    Tran-Dinh 2019, arxiv.org/abs/1703.04599, so that it converges from anywhere.
    """
    won, tied = np.asarray(wins, dtype=np.float64), np.asarray(ties, dtype=np.float64)
    k = _checked(won, tied)
    shape = won.shape[:-2]
    off = ~np.eye(k, dtype=bool)
    won, tied = (np.where(off, part, 0).reshape(-1, k, k) for part in (won, tied))
    if not (np.isfinite(won).all() and np.isfinite(tied).all()):
        raise InputError("wins or ties hold NaN or infinity: give 0 where none were compared")
    strengths, tie = np.full((len(won), k), np.nan), np.full(len(won), np.nan)
    connected, uneven = _determined(won > 0, tied > 0)
    only_ties = connected & ~(won > 0).any(axis=(1, 2))
    strengths[only_ties] = 0
    tie[only_ties] = np.inf if k > 1 else np.nan
    fitted = np.flatnonzero(connected & uneven)
    strengths[fitted], tie[fitted] = _newton(won[fitted], tied[fitted])
    return Strengths(strengths.reshape(*shape, k), tie.reshape(shape))


def elo(strengths: ArrayLike, *, scale: float = 400, mean: float = 1500) -> Array:
    """Log-strengths in nats on Elo's scale, on which `scale` points are odds of 10 to 1.

    Source: Elo 1978, The Rating of Chessplayers, for the scale.
    """
    return np.asarray(mean + scale / math.log(10) * np.asarray(strengths, dtype=np.float64))


def ranking(
    wins: ArrayLike,
    ties: ArrayLike,
    *,
    resampling: Resampling,
    baseline: int | None = None,
    confidence: float = 0.95,
    method: Method = "percentile",
    pairs: bool = False,
) -> Found:
    """Log-strengths of all checkpoints with their intervals, and their paired differences.

    Prompts are drawn with all their comparisons: those of one prompt share answers and difficulty.
    A strength is relative to the mean of the checkpoints at hand; a difference is not.

    Args:
        wins: by prompt, with what weight i beats j, (n_items, k, k); 0 where they were not
            compared. An item with a NaN off the diagonal is missing, and counted.
        ties: the same for ties, symmetric.
        resampling: the task's draws.
        baseline: the checkpoint that the others' differences are taken to.
        confidence: of the intervals.
        method: as for `estimate`.
        pairs: compare each two checkpoints as well.

    Returns:
        Log-strengths in nats, and their differences. NaN where `davidson` is; NaN bounds where it
        is in any draw, as with few prompts or a checkpoint that hardly ever loses.
    """
    won, tied = np.asarray(wins, dtype=np.float64), np.asarray(ties, dtype=np.float64)
    if won.ndim != 3:
        raise InputError(f"wins by prompt must be (n_items, k, k), not {won.shape}")
    k = _checked(won, tied)
    off = ~np.eye(k, dtype=bool)
    columns = np.concatenate([won[:, off], tied[:, off]], axis=1)
    rows = present(columns)
    kept = resampling.only(rows)

    def strengths(sums: Array) -> Array:
        matrices = np.zeros((2, *sums.shape[:-1], k, k))
        matrices[0][..., off], matrices[1][..., off] = np.split(sums, 2, axis=-1)
        return davidson(*matrices).strengths

    return found_of(
        kept.replicate(columns[rows], strengths),
        baseline=baseline,
        n=kept.n_items,
        n_missing=resampling.n_items - kept.n_items,
        confidence=confidence,
        method=method,
        pairs=pairs,
    )


def _checked(won: Array, tied: Array) -> int:
    if won.shape != tied.shape or won.ndim < 2 or won.shape[-1] != won.shape[-2]:
        raise InputError(f"wins {won.shape} and ties {tied.shape} must both be (..., k, k)")
    if (won < 0).any() or (tied < 0).any():
        raise InputError("wins and ties must not be negative")
    if not np.array_equal(tied, np.swapaxes(tied, -1, -2), equal_nan=True):
        raise InputError("ties must be symmetric: those of i with j are those of j with i")
    return int(won.shape[-1])


def _determined(
    won: NDArray[np.bool_], tied: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether all are connected both ways; whether some round trip has more wins than ties.

    By shortest paths (Floyd–Warshall) where a win costs −1 and a tie 1: strengths v with v_i − v_j
    at least 1 for wins and at most 1 either way for ties exist unless a round trip is negative.
    """
    k = won.shape[-1]
    cost = np.where(won, -1.0, np.where(tied, 1.0, np.inf))
    cost[:, np.arange(k), np.arange(k)] = 0
    for via in range(k):
        through = cost[:, :, via, None] + cost[:, via, None, :]
        # No shorter than that, lest negative round trips double with every step.
        cost = np.maximum(np.minimum(cost, through), -2.0 * k)
    return np.isfinite(cost).all(axis=(1, 2)), (np.einsum("nii->ni", cost) < 0).any(axis=1)


def _newton(won: Array, tied: Array) -> tuple[Array, Array]:
    """Strengths (n, k) and ν (n,) of comparisons that determine them."""
    n, k, _ = won.shape
    found, tie = np.full((n, k), np.nan), np.full(n, np.nan)
    left = np.arange(n)
    played = won + np.swapaxes(won, 1, 2) + tied
    n_tied = tied.sum(axis=(1, 2)) / 2
    score = (won + tied / 2).sum(axis=2)
    some = n_tied > 0
    s = np.zeros((n, k))
    log_tie = np.log(2 * n_tied / won.sum(axis=(1, 2)), out=np.full(n, -np.inf), where=some)
    for _ in range(N_STEPS):
        gap = s[:, :, None] - s[:, None, :]
        # Outcomes over the tie's e^((sⁱ+sʲ)/2): i wins, j wins, tie.
        first, second, even = np.exp(gap / 2), np.exp(-gap / 2), np.exp(log_tie)[:, None, None]
        total = first + second + even
        ahead, drawn = (first - second) / total, even / total
        gradient = np.empty((len(s), k + 1))
        gradient[:, :k] = score - (played * (1 + ahead) / 2).sum(axis=2)
        gradient[:, k] = np.where(some, n_tied - (played * drawn).sum(axis=(1, 2)) / 2, 0)
        # Covariances of half the outcome (½, −½, 0) and of being a tie, over all comparisons.
        of_outcome = played * ((1 - drawn) - ahead**2) / 4
        of_both = -(played * ahead * drawn / 2).sum(axis=2)
        of_tie = (played * drawn * (1 - drawn)).sum(axis=(1, 2)) / 2
        information = np.empty((len(s), k + 1, k + 1))
        information[:, :k, :k] = -of_outcome
        diagonal = np.arange(k)
        information[:, diagonal, diagonal] += of_outcome.sum(axis=2)
        # Only differences are determined: this holds the strengths' mean at 0.
        information[:, :k, :k] += of_outcome.sum(axis=(1, 2), keepdims=True) / k**2
        information[:, :k, k] = information[:, k, :k] = np.where(some[:, None], of_both, 0)
        information[:, k, k] = np.where(some, of_tie, 1)
        step = np.linalg.solve(information, gradient[..., None])[..., 0]
        move = np.ptp(step[:, :k], axis=1) + np.abs(step[:, k])
        share = np.divide(np.log1p(move), move, out=np.ones_like(move), where=move > 0)[:, None]
        s = s + share * step[:, :k]
        log_tie = log_tie + share[:, 0] * step[:, k]
        done = move <= ENOUGH
        if done.any():
            found[left[done]] = s[done] - s[done].mean(axis=1, keepdims=True)
            tie[left[done]] = np.exp(log_tie[done])
            go = ~done
            if not go.any():
                break
            left, played, score, n_tied, some, s, log_tie = (
                part[go] for part in (left, played, score, n_tied, some, s, log_tie)
            )
    return found, tie
