"""The length-controlled win rate: what a win rate would be between answers of equal length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from prefbench.stats.bootstrap import Array

RIDGE = 1e-6
"""Of the length's slope θ: ½ · RIDGE · θ² is taken off the log-likelihood."""
ENOUGH = 1e-5
"""Log-odds: a Newton step as small leaves an error of about its square."""
SHORT = 0.8
"""Log-odds: on a shorter step no item's curvature changes so much that it could overshoot: the
Newton decrement shrinks at least by a fifth (Bach 2010, arxiv.org/abs/0910.4627)."""
N_STEPS = 200
FEWEST = 10
"""Of the rarer outcome for each slope that a logistic model fits, by the usual rule (Peduzzi et al.
1996, doi.org/10.1016/S0895-4356(96)00236-3)."""


def has_both(columns: Array) -> bool:
    """Whether there are wins and losses enough, `FEWEST` of each, for an interval; or one alone.

    Fewer leave a logistic fit biased towards certainty, in the draws as in the data. All wins, all
    losses and a checkpoint against itself need no fit.

    Args:
        columns: win in [0, 1] and lengths, (n_items, 3).
    """
    wins = float(columns[:, 0].sum())
    losses = len(columns) - wins
    even = bool((columns[:, 0] == 0.5).all())
    return even or min(wins, losses) == 0 or min(wins, losses) >= FEWEST


def length_controlled(columns: Array, counts: Array) -> Array:
    """Length-controlled win rate, fitted in each draw.

    The model is logit P = θ · tanh(Δ / sd(Δ)) + φ, Δ the opponent's length minus the checkpoint's.
    The value is σ(φ), the preference at Δ = 0. Preferences may be soft: an item counts as `win` of
    a win and as 1 − `win` of a loss. There is no intercept besides φ.

    Length alone may separate wins from losses, as it can with few items or few losses. The
    likelihood then rises with θ for ever. Where Δ = 0 lies beyond the boundary, among wins or among
    losses, φ is infinite and the value exactly 1 or 0: so it has the interval of a share that no
    item contradicts, and not the none of a bootstrap whose draws are all separated too. Where Δ = 0
    lies in the gap between the two, φ is undetermined, and a ridge on θ puts the boundary in the
    middle of the gap. Elsewhere θ moves by its RIDGE-th part over its Fisher information, nothing
    that is ever printed. φ has no penalty: exchanging checkpoint and opponent gives the rest to 1.

    Where all answers of one side are longer, the value is an extrapolation with a wide interval.

    Args:
        columns: win in [0, 1], n_chars of the checkpoint, n_chars of the opponent, (n_items, 3).
        counts: how often each draw holds each item, (n_draws, n_items). Each draw has its own sd.

    Returns:
        Between 0 and 1, (n_draws,). The raw win rate where the Δ of a draw are all equal, and where
        all are wins or all are losses (1 or 0: φ is infinite, as where Δ = 0 lies beyond all that
        speaks against it). NaN for a draw without items.

    Source: Dubois et al. 2024, arxiv.org/abs/2404.04475, and the minimal formula of alpaca_eval's
    glm_winrate.py. That code penalises as cross-validation finds best, and on AlpacaEval's own
    prompts it has a term for how difficult each is.
    """
    win, n_chars, n_chars_opponent = columns.T.copy()
    delta = n_chars_opponent - n_chars
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.asarray(_total(counts, win) / counts.sum(axis=1))
    drawn = counts > 0
    mixed = (drawn & (win > 0)).any(axis=1) & (drawn & (win < 1)).any(axis=1)
    longest = np.where(drawn, delta, -np.inf).max(axis=1, initial=-np.inf)
    shortest = np.where(drawn, delta, np.inf).min(axis=1, initial=np.inf)
    certain = _beyond(delta, drawn & (win > 0), drawn & (win < 1))
    rate = np.where(mixed & ~np.isnan(certain), certain, rate)
    fitted = np.flatnonzero(mixed & (longest > shortest) & np.isnan(certain))
    counts = counts[fitted]
    length = np.tanh(delta / _sd(delta, counts)[:, None])
    rate[fitted] = expit(_intercept(length, win, counts, start=logit(rate[fitted])))
    return rate


def _beyond(
    delta: Array, wins: NDArray[np.bool_], losses: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """1 or 0 for draws that length separates, with Δ = 0 among wins or losses; NaN for others.

    Args:
        delta: (n_items,).
        wins: which items speak for the checkpoint in each draw, (n_draws, n_items); ties do both.
        losses: which speak against it.
    """

    def ends(some: NDArray[np.bool_]) -> tuple[Array, Array]:
        return (
            np.where(some, delta, np.inf).min(axis=1, initial=np.inf),
            np.where(some, delta, -np.inf).max(axis=1, initial=-np.inf),
        )

    (win_low, win_high), (loss_low, loss_high) = ends(wins), ends(losses)
    wins_above, wins_below = loss_high <= win_low, win_high <= loss_low
    apart = wins_above ^ wins_below  # both: all lengths are equal
    sure = np.full(len(wins), np.nan)
    sure[apart & ((wins_above & (win_low < 0)) | (wins_below & (win_high > 0)))] = 1.0
    sure[apart & ((wins_above & (loss_high > 0)) | (wins_below & (loss_low < 0)))] = 0.0
    return sure


def _total(counts: Array, values: Array) -> Array:
    """Sums by draw: (n_draws, n_items) and (n_items,) or (n_draws, n_items) to (n_draws,)."""
    # einsum and not a matrix product: the same bits with any number of threads.
    return np.asarray(np.einsum("di,...i->d" if values.ndim == 1 else "di,di->d", counts, values))


def _sd(delta: Array, counts: Array) -> Array:
    """Standard deviation of each draw, over n − 1 as alpaca_eval has it from pandas."""
    total = counts.sum(axis=1)
    deviation = delta - (_total(counts, delta) / total)[:, None]
    return np.asarray(np.sqrt(_total(counts, deviation**2) / (total - 1)))


def _intercept(length: Array, win: Array, counts: Array, *, start: Array) -> Array:
    """φ of each draw; NaN where Newton's method has not converged.

    A step that goes beyond the maximum along its line is halved until it does not, which by
    concavity keeps at least half of the gain; a short step is safe whole. Draws that have converged
    are set aside.
    """
    found = np.full(len(start), np.nan)
    left: NDArray[np.intp] = np.arange(len(start))
    point = np.stack([np.zeros_like(start), start])  # θ and φ, (2, n_draws)
    step, share = np.zeros_like(point), np.ones_like(start)
    preference = 2 * win - 1
    for _ in range(N_STEPS):
        slope, intercept = point + share * step
        # With t = 2σ − 1, the hyperbolic tangent of half the log-odds, y − σ = (2y − 1 − t)/2 and
        # σ(1 − σ) = (1 − t²)/4; the fewer passes over the draws' items, the better.
        centred = length * (slope / 2)[:, None]
        centred += (intercept / 2)[:, None]
        np.tanh(centred, out=centred)
        surprise = preference - centred
        surprise *= counts
        of_slope = _total(surprise, length) / 2 - RIDGE * slope
        of_intercept = surprise.sum(axis=1) / 2
        weight = np.square(centred, out=centred)
        np.subtract(1, weight, out=weight)
        weight *= counts
        alone = weight.sum(axis=1) / 4
        weight *= length
        both, twice = weight.sum(axis=1) / 4, _total(weight, length) / 4 + RIDGE
        near = np.abs(step).sum(axis=0) <= SHORT
        kept = near | (of_slope * step[0] + of_intercept * step[1] >= 0)
        point = np.where(kept, [slope, intercept], point)
        share = np.where(kept, 1.0, share / 2)
        newton = np.stack(
            [alone * of_slope - both * of_intercept, twice * of_intercept - both * of_slope]
        ) / (twice * alone - both**2)
        step = np.where(kept, newton, step)
        done = kept & (np.abs(step).sum(axis=0) <= ENOUGH)
        if done.any():
            found[left[done]] = (point + step)[1, done]
            go = ~done
            if not go.any():
                break
            left, length, counts = left[go], length[go], counts[go]
            point, step, share = point[:, go], step[:, go], share[go]
    return found
