"""Bounds of a mean that hold at all times at once: judging may stop as soon as it is sure."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array

N_MEANS = 1000
"""Means that are tried, evenly over 0 to 1; bounds are rounded outwards to them."""
BESIDE_HALF = 1e-9
"""A mean is tried on either side of ½ too, so that the bounds leave ½ out as soon as they can."""
MOST = 0.5
"""Share of the capital at stake at most: with more, win rates near ½ take longer to tell apart."""


def confidence_sequence(values: ArrayLike, *, confidence: float = 0.95) -> tuple[Array, Array]:
    """Bounds of the mean of numbers in [0, 1] after each of them.

    With probability `confidence` the mean lies between the bounds at every n, so that one may look
    after each number and stop whenever one likes. For an interval at an n that was fixed before,
    this price is not worth paying.

    Two gamblers bet on every number, one that it lies above a supposed mean m and one that it
    lies below it. If m is the mean they win nothing in expectation, and one of them ever has
    2/α times what it began with only with probability α/2. The bounds hold those m at which
    neither ever had. The stakes depend on what came before, never on the number at hand.

    Args:
        values: (n,), in [0, 1], of any distribution: what has the same mean given all before it,
            such as prompts in random order. Samples and judge orders of a prompt are one number.
        confidence: between 0 and 1.

    Returns:
        Lower and upper bounds (n,), each the best so far. Where the lower one is above the upper
        one no mean fits: either the unlikely happened, or the order was not random.

    Source: Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting",
    arxiv.org/abs/2010.09686, theorem 3 (hedged capital) with the predictable plug-in stakes that it
    recommends, cut at `MOST`.
    """
    numbers = _checked(values, confidence)
    stakes = _stakes(numbers, confidence)
    low, high = np.zeros(len(numbers)), np.ones(len(numbers))
    means = np.append(np.linspace(0, 1, N_MEANS + 1), [0.5 - BESIDE_HALF, 0.5 + BESIDE_HALF])
    for some in np.array_split(means, 20):
        above, below = _refuted(numbers, stakes, some, confidence)
        low = np.maximum(low, np.where(above, some, 0).max(axis=1))
        high = np.minimum(high, np.where(below, some, 1).min(axis=1))
    return np.maximum.accumulate(low), np.minimum.accumulate(high)


def sure_after(values: ArrayLike, *, confidence: float = 0.95) -> int | None:
    """The first n after which the bounds of `confidence_sequence` leave out ½; None if they do not.

    Args:
        values: (n,), as there.
        confidence: between 0 and 1.
    """
    numbers = _checked(values, confidence)
    beside = np.array([0.5 - BESIDE_HALF, 0.5 + BESIDE_HALF])
    above, below = _refuted(numbers, _stakes(numbers, confidence), beside, confidence)
    sure = np.flatnonzero(above[:, 1] | below[:, 0])
    return int(sure[0]) + 1 if len(sure) else None


def _checked(values: ArrayLike, confidence: float) -> Array:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise InputError(f"values must be (n,), not {numbers.shape}")
    if not ((numbers >= 0) & (numbers <= 1)).all():
        raise InputError("values must lie between 0 and 1: leave missing ones out")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, not {confidence}")
    return numbers


def _stakes(numbers: Array, confidence: float) -> Array:
    """What is bet on each number, from those before it: (n,)."""
    n = np.arange(1, len(numbers) + 1)
    mean = (0.5 + np.cumsum(numbers)) / (n + 1)
    variance = (0.25 + np.cumsum((numbers - mean) ** 2)) / (n + 1)
    known = np.concatenate([[0.25], variance[:-1]])
    return np.asarray(np.sqrt(2 * np.log(2 / (1 - confidence)) / (known * n * np.log(n + 1))))


def _refuted(
    numbers: Array, stakes: Array, means: Array, confidence: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """After which numbers either gambler is too rich for a mean: two of (n, n_means).

    First the one who bets that numbers are larger, then the one who bets that they are smaller.
    """
    beyond = numbers[:, None] - means
    with np.errstate(divide="ignore"):
        up = np.minimum(stakes[:, None], MOST / means)
        down = np.minimum(stakes[:, None], MOST / (1 - means))
    enough = np.log(2 / (1 - confidence))
    return (
        np.cumsum(np.log1p(up * beyond), axis=0) >= enough,
        np.cumsum(np.log1p(-down * beyond), axis=0) >= enough,
    )
