"""Repetition and diversity of texts: distinct-n and seq-rep-n, on words or on token ids."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence

SEVERAL = {"distinct_1": 1, "distinct_2": 2, "seq_rep_4": 4}
"""What `diversity` gives, and the n of each."""

# Kana, and Chinese characters in Chinese and Japanese: written without spaces, each counts alone.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['\u2019][^\W{_UNSPACED}]+)*|[^\w\s]")


def words_of(text: str) -> list[str]:
    """A text's words as they are written, upper and lower case apart; every other sign alone.

    No tokenizer is needed, so that texts of all engines and checkpoints are counted alike. A
    Chinese or Japanese character is a word.
    """
    return _WORD.findall(text)


def distinct(units: Sequence[Hashable], n: int) -> float:
    """The share of different n-grams among the n-grams of one text.

    Args:
        units: words, as `words_of` gives them, or token ids, in their order.
        n: units in an n-gram, 1 or more.

    Returns:
        Above 0, and 1 where no n-gram comes twice; NaN where there are fewer than n units, and so
        no n-gram.

    Source: Li et al. 2016, arxiv.org/abs/1510.03055. There the n-grams of all generated texts are
    counted together and divided by the number of tokens. Ours is of one text, so that it is an
    item's and has an interval, and is divided by the number of n-grams, so that it reaches 1.
    Either way longer texts have less: words run out.
    """
    n_different, n_grams = _counted(units, n)
    return n_different / n_grams if n_grams > 0 else math.nan


def seq_rep(units: Sequence[Hashable], n: int) -> float:
    """The share of n-grams of one text that repeat an earlier one: 0 where none does.

    Args:
        units: words, as `words_of` gives them, or token ids, in their order.
        n: units in an n-gram, 1 or more.

    Returns:
        From 0 to below 1; NaN where there are fewer than n units.

    Source: Welleck et al. 2020, seq-rep-n, arxiv.org/abs/1908.04319: on tokens, of continuations
    of one fixed length.
    """
    n_different, n_grams = _counted(units, n)
    return (n_grams - n_different) / n_grams if n_grams > 0 else math.nan


def _counted(units: Sequence[Hashable], n: int) -> tuple[int, int]:
    """How many different n-grams a text has, and how many in all."""
    n_grams = len(units) - n + 1
    return len({tuple(units[i : i + n]) for i in range(n_grams)}), n_grams


def diversity(texts: Sequence[str]) -> dict[str, float]:
    """distinct_1, distinct_2 and seq_rep_4 of an item: means over its texts, on words.

    A text too short to have an n-gram says nothing about its repetition: it is neither 0 nor 1 but
    left out of the mean, and a quantity that no text has is left out of what is returned.
    """
    words = [words_of(text) for text in texts]
    found = {}
    for name, n in SEVERAL.items():
        of = seq_rep if name.startswith("seq_rep") else distinct
        known = [value for one in words if not math.isnan(value := of(one, n))]
        if known:
            found[name] = math.fsum(known) / len(known)
    return found
