"""How far two token sequences differ: edit distance, its bands, and where they first differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rapidfuzz.distance import Levenshtein

BANDS: Mapping[str, float] = {"low_edit": 0.1, "mid_edit": 0.5, "high_edit": float("inf")}
"""The normalised edit distance that each band ends below; each begins where the one before ends.

Ours. Pal et al. 2024, arxiv.org/abs/2402.13228, speak of low and high edit distance without a
border; their low one, arithmetic with one wrong number, is about 0.065.
"""


def edit_distance(first: Sequence[int], second: Sequence[int]) -> float:
    """Levenshtein distance over the longer length, 0 to 1; 0 where both are empty."""
    return float(Levenshtein.normalized_distance(first, second))


def band_of(distance: float) -> str:
    """The name of the band that a distance lies in."""
    return next(name for name, end in BANDS.items() if distance < end)


def first_difference(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with: the place of the first that differs, or where one ends."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))
