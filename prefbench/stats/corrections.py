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
    """p-values corrected so that a family of true nulls yields one finding at most with rate α.

    Args:
        p: of all comparisons of the family, (n,); NaN where there is none, which is not counted.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65–70.
    """
    return _of_known(p, _holm)


def benjamini_hochberg(p: ArrayLike) -> Array:
    """p-values corrected so that of all findings at most a share of α are false, on average.

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

    Args:
        differ: whether each two rows differ significantly, (n, n), symmetric; rows best first.

    Returns:
        A row's letters in order, (n,); the first row has `a`.

    Source: the insert-and-absorb algorithm of Piepho 2004, doi.org/10.1198/1061860043515.
    """
    n = len(differ)
    groups: list[frozenset[int]] = [frozenset(range(n))] if n else []
    for i in range(n):
        for j in range(i + 1, n):
            if not differ[i, j]:
                continue
            split = [part for one in groups for part in _parted(one, i, j)]
            groups = [
                one
                for at, one in enumerate(split)
                if not any(one < other for other in split) and one not in split[:at]
            ]
    groups.sort(key=sorted)
    letters = [""] * n
    for place, group in enumerate(groups):
        for member in group:
            letters[member] += _letter(place)
    return letters


def _parted(group: frozenset[int], i: int, j: int) -> list[frozenset[int]]:
    """The group without either of two rows that differ, where it has both."""
    return [group - {i}, group - {j}] if {i, j} <= group else [group]


def _letter(place: int) -> str:
    """a to z, then A to Z, then numbers in brackets."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return letters[place] if place < len(letters) else f"({place + 1})"
