"""Corrected p-values and letter groups, beside statsmodels and by hand."""

import re
import string
import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.stats.multitest import multipletests

from prefbench.errors import InputError
from prefbench.stats.corrections import (
    CORRECTIONS,
    benjamini_hochberg,
    corrected,
    holm,
    letter_groups,
)

LETTER = r"\(\d+\)|[a-zA-Z]"
THEIRS = {"holm": "holm", "bh": "fdr_bh"}
P = arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1))
FEW_VALUES = arrays(np.float64, st.integers(1, 12), elements=st.sampled_from([0, 0.01, 0.04, 1]))


@pytest.mark.parametrize("correction", THEIRS)
@pytest.mark.parametrize("n", [1, 2, 7, 40, 300])
def test_as_statsmodels(correction, n):
    # Few vectors: statsmodels collects garbage at every call. A third are ties, one is 0, one 1.
    p = np.random.default_rng(n).random(n) ** 4
    p[: n // 3] = p[n // 3]
    p[n // 2 : n // 2 + 2] = np.arange(2)[: len(p[n // 2 : n // 2 + 2])]
    theirs = multipletests(p, method=THEIRS[correction])[1]
    np.testing.assert_allclose(corrected(p, correction), theirs, rtol=1e-12)


def test_holm_by_hand():
    # 4 × 0.01, 3 × 0.015; then 2 × 0.02 = 0.04 must not fall below 0.045, and so on.
    np.testing.assert_allclose(holm([0.02, 0.01, 0.9, 0.015]), [0.045, 0.04, 0.9, 0.045])


def test_benjamini_hochberg_by_hand():
    # 4/1 × 0.01 is above 4/2 × 0.015, and that above 4/3 × 0.02, which all three get.
    third = 0.02 * 4 / 3
    np.testing.assert_allclose(
        benjamini_hochberg([0.02, 0.01, 0.9, 0.015]), [third, third, 0.9, third]
    )


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_one_comparison_needs_no_correction(correction):
    np.testing.assert_array_equal(corrected([0.03], correction), [0.03])


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_no_comparisons(correction):
    assert corrected([], correction).shape == (0,)
    np.testing.assert_array_equal(corrected([np.nan, np.nan], correction), [np.nan, np.nan])


@pytest.mark.parametrize("correction", CORRECTIONS)
@settings(deadline=None)
@given(p=P, where=st.data())
def test_what_was_not_compared_does_not_count(correction, p, where):
    places = where.draw(st.lists(st.integers(0, len(p)), max_size=4))
    found = corrected(np.insert(p, places, np.nan), correction)
    np.testing.assert_array_equal(found[~np.isnan(found)], corrected(p, correction))
    assert np.isnan(found).sum() == len(places)


@pytest.mark.parametrize("correction", CORRECTIONS)
@settings(deadline=None)
@given(p=P | FEW_VALUES, order=st.randoms(use_true_random=False))
def test_order_is_kept_and_no_p_falls(correction, p, order):
    found = corrected(p, correction)
    assert ((p <= found) & (found <= 1)).all()
    assert (np.diff(found[np.argsort(p, kind="stable")]) >= 0).all()
    shuffled = np.array(order.sample(range(len(p)), len(p)))
    np.testing.assert_allclose(corrected(p[shuffled], correction), found[shuffled], rtol=1e-12)


@settings(deadline=None)
@given(p=P)
def test_holm_is_the_stricter(p):
    assert (holm(p) >= benjamini_hochberg(p) * (1 - 1e-12)).all()


def test_rates_in_families_of_true_nulls_and_with_half_of_them_true():
    """One finding or more with rate α, for any dependence; a share α of the findings is false."""
    rng = np.random.default_rng(0)
    p = rng.random((4000, 20))
    some = np.mean([(holm(one) < 0.05).any() for one in p])
    assert some == pytest.approx(0.05, abs=0.012)
    assert np.mean((p < 0.05).any(axis=1)) == pytest.approx(1 - 0.95**20, abs=0.03)
    p[:, :10] *= 1e-3
    found = np.array([benjamini_hochberg(one) for one in p]) < 0.05
    false = found[:, 10:].sum(axis=1) / np.maximum(1, found.sum(axis=1))
    # Benjamini and Hochberg's rate is α times the share of true nulls.
    assert np.mean(false) == pytest.approx(0.025, abs=0.005)


def test_message():
    with pytest.raises(InputError, match="correction is one of holm, bh, none, not 'fdr'"):
        corrected([0.1], "fdr")
    with pytest.raises(InputError, match="not 'fdr'"):
        corrected([], "fdr")


def matrix(n, pairs):
    differ = np.zeros((n, n), dtype=bool)
    for i, j in pairs:
        differ[i, j] = differ[j, i] = True
    return differ


@st.composite
def differences(draw):
    n = draw(st.integers(1, 8))
    pairs = list(combinations(range(n), 2))
    return matrix(n, [pair for pair in pairs if draw(st.booleans())])


def sharing(letters):
    return np.array([[bool(set(one) & set(other)) for other in letters] for one in letters])


@settings(max_examples=300, deadline=None)
@given(differ=differences())
def test_rows_share_a_letter_exactly_where_they_do_not_differ(differ):
    letters = letter_groups(differ)
    np.testing.assert_array_equal(sharing(letters), ~differ)
    assert letters[0][0] == "a"
    used = sorted(set("".join(letters)))
    assert used == list(string.ascii_lowercase[: len(used)])
    for one in letters:
        assert list(one) == sorted(set(one))
    for letter in used:
        without = [one.replace(letter, "") for one in letters]
        assert (sharing(without) != ~differ).any(), f"{letter} of {letters} is not needed"
    groups = [{i for i, one in enumerate(letters) if letter in one} for letter in used]
    assert not any(one < other for one in groups for other in groups)


@pytest.mark.parametrize(
    ("n", "pairs", "letters"),
    [
        (0, [], []),
        (1, [], ["a"]),
        (3, [], ["a", "a", "a"]),
        (3, [(0, 1), (0, 2), (1, 2)], ["a", "b", "c"]),
        # The best and the worst differ, what is between is like both.
        (3, [(0, 2)], ["a", "ab", "b"]),
        # Gramm et al. 2007, figure 2: rows 1 and 5, 2 and 3, 2 and 5, 3 and 5 differ.
        (5, [(0, 4), (1, 2), (1, 4), (2, 4)], ["ab", "a", "b", "abc", "c"]),
        # Two rows in the middle differ, though those around them do not: a noisy measurement.
        (4, [(1, 2)], ["ab", "a", "b", "ab"]),
    ],
)
def test_textbook(n, pairs, letters):
    assert letter_groups(matrix(n, pairs)) == letters


@settings(deadline=None)
@given(ends=st.lists(st.integers(0, 11), min_size=1, max_size=12))
def test_differences_that_grow_with_rank_give_one_letter_to_each_stretch(ends):
    """Rows alike up to a point each, as with one standard error for all: lines beside a list."""
    n = len(ends)
    reach = np.maximum.accumulate(np.minimum(np.maximum(ends, np.arange(n)), n - 1))
    differ = matrix(n, [(i, j) for i in range(n) for j in range(reach[i] + 1, n)])
    stretches = sum(i == 0 or reach[i] > reach[i - 1] for i in range(n))
    letters = letter_groups(differ)
    assert len(set("".join(letters))) == stretches
    for letter in set("".join(letters)):
        rows = [i for i, one in enumerate(letters) if letter in one]
        assert rows == list(range(rows[0], rows[-1] + 1))


def couples(n):
    """Each row differs from one other: 2^(n/2) groups that cannot grow."""
    return matrix(n, [(i, i + 1) for i in range(0, n, 2)])


def noisy(n, share):
    pairs = combinations(range(n), 2)
    rng = np.random.default_rng(0)
    return matrix(n, [pair for pair in pairs if rng.random() < share])


@pytest.mark.parametrize(
    "differ", [couples(40), noisy(40, 0.1), noisy(40, 0.3), noisy(40, 0.6), noisy(40, 0.9)]
)
def test_forty_rows_that_differ_in_no_order_are_quick(differ):
    start = time.process_time()
    letters = letter_groups(differ)
    assert time.process_time() - start < 1
    np.testing.assert_array_equal(sharing([re.findall(LETTER, one) for one in letters]), ~differ)


def test_beyond_fifty_two_letters_come_numbers():
    letters = letter_groups(matrix(54, combinations(range(54), 2)))
    assert letters[25:28] == ["z", "A", "B"]
    assert letters[51:] == ["Z", "(53)", "(54)"]
