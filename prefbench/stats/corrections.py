"""Families of comparisons: p-values corrected for their number, and rows in letter groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array

Correction: TypeAlias = Literal["holm", "bh", "none"]


def holm(p: ArrayLike) -> Array:
    """p-values corrected so that even one false finding in a family is no likelier than α.

    Args:
        p: of all comparisons of the family, (n,); NaN where there is none, which is not counted.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65–70.
    """
    return _of_known(p, _holm)


def benjamini_hochberg(p: ArrayLike) -> Array:
    """p-values corrected so that of all findings at most a share of α are false, on average.

    That holds where comparisons do not depend on each other, or do so positively; Holm's level
    holds however they do.

    Args:
        p: of all comparisons of the family, (n,); NaN where there is none, which is not counted.

    Source: Benjamini and Hochberg 1995, doi.org/10.1111/j.2517-6161.1995.tb02031.x.
    """
    return _of_known(p, lambda known: np.asarray(false_discovery_control(known, method="bh")))


CORRECTIONS: Mapping[str, Callable[[ArrayLike], Array]] = {
    "holm": holm,
    "bh": benjamini_hochberg,
    "none": lambda p: np.asarray(p, dtype=np.float64),
}


def corrected(p: ArrayLike, correction: Correction = "holm") -> Array:
    """p-values of one family, corrected.

    Raises:
        InputError: there is no such correction.
    """
    if correction not in CORRECTIONS:
        raise InputError(f"correction is one of {', '.join(CORRECTIONS)}, not {correction!r}")
    return CORRECTIONS[correction](p)


def _of_known(p: ArrayLike, correct: Callable[[Array], Array]) -> Array:
    values = np.asarray(p, dtype=np.float64)
    known = ~np.isnan(values)
    result = np.full(values.shape, np.nan)
    if known.any():
        result[known] = correct(values[known])
    return result


def _holm(p: Array) -> Array:
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(1.0, steps)
    return result


def letter_groups(differ: NDArray[np.bool_]) -> list[str]:
    """Letters such that two rows share one exactly where they do not differ.

    Each group grows from the first row that lacks one with some row it does not differ from, by
    whichever row brings most of such pairs together. So there are fewer groups than pairs of rows
    and rows, where all that could be formed may be exponentially many. That no fewer would do is
    not promised.

    Args:
        differ: whether each two rows differ significantly, (n, n), symmetric; rows best first.

    Returns:
        A row's letters in order, (n,); the first row has `a`. No group lies inside another, and
        none could be left out.

    Source: the clique-growing heuristic of Gramm et al. 2007, doi.org/10.1016/j.csda.2006.09.035.
    """
    n = len(differ)
    alike = ~np.asarray(differ, dtype=bool) | np.eye(n, dtype=bool)
    apart = alike.copy()
    groups: list[NDArray[np.intp]] = []
    while apart.any():
        group = _grown(alike, apart)
        apart[np.ix_(group, group)] = False
        groups.append(group)
    groups.sort(key=list)
    letters = [""] * n
    for place, group in enumerate(_needed(groups, n)):
        for member in group:
            letters[member] += _letter(place)
    return letters


def _grown(alike: NDArray[np.bool_], apart: NDArray[np.bool_]) -> NDArray[np.intp]:
    """A group that cannot grow, from the first row that is still apart from one it is alike.

    A row is apart from itself as long as it has no group at all.
    """
    first = int(np.argmax(apart.any(axis=1)))
    inside = np.arange(len(alike)) == first
    fits = alike[first] & ~inside
    while fits.any():
        gain = apart[:, inside].sum(axis=1)
        best = int(np.argmax(np.where(fits, gain, -1)))
        inside[best] = True
        fits &= alike[best] & ~inside
    return np.flatnonzero(inside)


def _needed(groups: list[NDArray[np.intp]], n: int) -> list[NDArray[np.intp]]:
    """The groups without those whose pairs others have too; later ones go first."""
    shared = np.zeros((n, n), dtype=np.int64)
    for group in groups:
        shared[np.ix_(group, group)] += 1
    kept = []
    for group in reversed(groups):
        pairs = np.ix_(group, group)
        if (shared[pairs] > 1).all():
            shared[pairs] -= 1
        else:
            kept.append(group)
    return kept[::-1]


def _letter(place: int) -> str:
    """a to z, then A to Z, then numbers in brackets."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return letters[place] if place < len(letters) else f"({place + 1})"
