from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefbench.stats.diversity import distinct, diversity, seq_rep, words_of

units = st.lists(st.integers(0, 4), max_size=30)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's ten o'clock, isn't it?", ["It's", "ten", "o'clock", ",", "isn't", "it", "?"]),
        ("3.5 € — no!!", ["3", ".", "5", "€", "—", "no", "!", "!"]),
        ("naïve\n\n  Straße\tx_1", ["naïve", "Straße", "x_1"]),
        ("東京は大きいabc", [*"東京は大きい", "abc"]),
        ("don\u2019t 'quote'", ["don\u2019t", "'", "quote", "'"]),
        ("  \n", []),
        ("\ud800 \x00", ["\ud800", "\x00"]),  # what a broken checkpoint may write
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_by_hand() -> None:
    sentence = words_of("the cat saw the cat saw the dog")
    assert distinct(sentence, 1) == 4 / 8
    assert distinct(sentence, 2) == 4 / 7  # the cat, cat saw, saw the, the dog
    assert seq_rep(sentence, 4) == 1 / 5  # the cat saw the
    assert seq_rep([7] * 100, 4) == pytest.approx(96 / 97)  # token ids, looping
    assert seq_rep(range(100), 4) == 0


@pytest.mark.parametrize("n", [1, 2, 4])
def test_too_short_for_an_n_gram_is_missing(n: int) -> None:
    assert math.isnan(distinct("abcd"[: n - 1], n))
    assert math.isnan(seq_rep("abcd"[: n - 1], n))
    assert distinct("abcd"[:n], n) == 1
    assert seq_rep("abcd"[:n], n) == 0


@given(units=units, n=st.integers(1, 5))
def test_a_second_way_to_count(units: list[int], n: int) -> None:
    grams = Counter(zip(*(units[i:] for i in range(n)), strict=False))
    if not grams:
        assert math.isnan(seq_rep(units, n))
        return
    again = sum(times - 1 for times in grams.values())
    assert seq_rep(units, n) == pytest.approx(again / grams.total())
    assert 0 <= seq_rep(units, n) < 1
    assert distinct(units, n) == pytest.approx(len(grams) / grams.total())
    assert distinct(units, n) + seq_rep(units, n) == pytest.approx(1)


@given(units=units.filter(bool))
def test_names_of_units_do_not_matter(units: list[int]) -> None:
    assert distinct(units, 2) == pytest.approx(distinct([f"w{u}" for u in units], 2), nan_ok=True)


def test_an_item_is_the_mean_over_its_texts() -> None:
    found = diversity(["a b c d", "a a a a a"])
    assert found == {
        "distinct_1": pytest.approx((1 + 1 / 5) / 2),
        "distinct_2": pytest.approx((1 + 1 / 4) / 2),
        "seq_rep_4": pytest.approx((0 + 1 / 2) / 2),
    }


def test_texts_without_an_n_gram_are_left_out() -> None:
    assert diversity(["Yes.", "", "no no no no no"]) == {
        "distinct_1": pytest.approx((1 + 1 / 5) / 2),
        "distinct_2": pytest.approx((1 + 1 / 4) / 2),
        "seq_rep_4": pytest.approx(1 / 2),
    }
    assert set(diversity(["Yes."])) == {"distinct_1", "distinct_2"}
    assert diversity(["", " "]) == {}
    assert diversity([]) == {}
