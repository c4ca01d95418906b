"""Strengths with ties: closed form, evalica, an optimizer, and what does not determine them."""

from __future__ import annotations

import numpy as np
import pytest
from evalica import Winner, newman
from scipy.optimize import minimize

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.ranking import davidson, elo, ranking


def compared(k: int, seed: int = 0, *, most: int = 30) -> tuple[Array, Array]:
    """Whole numbers of wins and ties between each two of k."""
    rng = np.random.default_rng(seed)
    wins = rng.integers(1, most, (k, k)).astype(float)
    ties = np.triu(rng.integers(0, most, (k, k)), 1).astype(float)
    np.fill_diagonal(wins, 0)
    return wins, ties + ties.T


def matrices(k: int, won: str = "", tied: str = "") -> tuple[Array, Array]:
    """`matrices(3, "01 12", "02")`: 0 beats 1, 1 beats 2, 0 and 2 tie."""
    wins, ties = np.zeros((2, k, k))
    for i, j in won.split():
        wins[int(i), int(j)] += 1
    for i, j in tied.split():
        ties[int(i), int(j)] += 1
        ties[int(j), int(i)] += 1
    return wins, ties


def by_evalica(wins: Array, ties: Array) -> tuple[Array, float]:
    """Newman's iteration for the same model, of which his v is ν / 2."""
    k = len(wins)
    rows = [(i, j, Winner.X, wins[i, j]) for i in range(k) for j in range(k) if wins[i, j]]
    rows += [(i, j, Winner.Draw, ties[i, j]) for i in range(k) for j in range(i) if ties[i, j]]
    xs, ys, winners, weights = map(list, zip(*rows, strict=True))
    found = newman(xs, ys, winners, weights=weights, tolerance=1e-13, limit=100_000)
    strengths = np.log(found.scores.loc[list(range(k))].to_numpy())
    return strengths - strengths.mean(), 2 * found.v


def by_optimizer(wins: Array, ties: Array) -> tuple[Array, float]:
    """The likelihood written out, given to any optimizer."""
    k = len(wins)

    def loss(parameters: Array) -> float:
        strengths, tie = np.exp(parameters[:k]), np.exp(parameters[k])
        total = 0.0
        for i in range(k):
            for j in range(i):
                both = tie * np.sqrt(strengths[i] * strengths[j])
                share = np.array([strengths[i], strengths[j], both])
                weight = np.array([wins[i, j], wins[j, i], ties[i, j]])
                total -= weight @ np.log(share / share.sum())
        return float(total + parameters[:k].sum() ** 2)

    found = minimize(loss, np.zeros(k + 1), method="BFGS", options={"gtol": 1e-7}).x
    return found[:k] - found[:k].mean(), float(np.exp(found[k]))


def test_two_in_closed_form() -> None:
    found = davidson([[0, 30], [12, 0]], [[0, 8], [8, 0]])
    np.testing.assert_allclose(found.strengths, np.array([0.5, -0.5]) * np.log(30 / 12), rtol=1e-12)
    assert found.tie == pytest.approx(8 / np.sqrt(30 * 12), rel=1e-12)
    plain = davidson([[0, 30], [12, 0]], np.zeros((2, 2)))
    np.testing.assert_allclose(plain.strengths, found.strengths, rtol=1e-12)
    assert plain.tie == 0


@pytest.mark.parametrize("k", [2, 3, 8, 20])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_evalica(k: int, seed: int) -> None:
    wins, ties = compared(k, seed)
    strengths, tie = by_evalica(wins, ties)
    found = davidson(wins, ties)
    np.testing.assert_allclose(found.strengths, strengths, atol=1e-9)
    assert found.tie == pytest.approx(tie, abs=1e-9)


def test_agrees_with_an_optimizer() -> None:
    for wins, ties in (compared(4, 5), matrices(3, "01 12", "02"), matrices(3, "01 12 20 02")):
        strengths, tie = by_optimizer(wins, ties)
        found = davidson(wins, ties)
        np.testing.assert_allclose(found.strengths, strengths, atol=1e-4)
        assert found.tie == pytest.approx(tie, abs=1e-4)


@pytest.mark.parametrize("lopsided", [1, 1e3, 1e6])
def test_expected_results_are_the_observed_ones(lopsided: float) -> None:
    wins, ties = compared(6, 1)
    wins[np.triu_indices(6, 1)] *= lopsided
    strengths, tie = davidson(wins, ties)
    first = np.exp((strengths[:, None] - strengths) / 2)
    lost = first.T / (first + first.T + tie)
    tied = tie / (first + first.T + tie)
    played = wins + wins.T + ties
    np.testing.assert_allclose(
        (played * (lost + tied / 2)).sum(axis=1), (wins.T + ties / 2).sum(axis=1), rtol=1e-6
    )
    assert (played * tied).sum() == pytest.approx(ties.sum(), rel=1e-6)


def test_invariances() -> None:
    wins, ties = compared(5, 2)
    strengths, tie = davidson(wins, ties)
    assert strengths.mean() == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(davidson(wins.T, ties).strengths, -strengths, atol=1e-12)
    again = davidson(7 * wins, 7 * ties)
    np.testing.assert_allclose(again.strengths, strengths, atol=1e-12)
    assert again.tie == pytest.approx(tie)
    order = [3, 1, 4, 0, 2]
    turned = davidson(wins[np.ix_(order, order)], ties[np.ix_(order, order)])
    np.testing.assert_allclose(turned.strengths, strengths[order], atol=1e-12)


def test_many_at_once_equal_each_alone() -> None:
    some = [compared(4, seed) for seed in range(5)] + [matrices(4, "01"), matrices(4, "01 10")]
    some += [(wins, np.zeros_like(ties)) for wins, ties in some[:5]]
    wins, ties = (np.stack(part).reshape(3, 4, 4, 4) for part in zip(*some, strict=True))
    found = davidson(wins, ties)
    assert found.strengths.shape == (3, 4, 4)
    assert found.tie.shape == (3, 4)
    for at in np.ndindex(3, 4):
        alone = davidson(wins[at], ties[at])
        np.testing.assert_allclose(found.strengths[at], alone.strengths, atol=1e-12)
        np.testing.assert_allclose(found.tie[at], alone.tie, atol=1e-12)


@pytest.mark.parametrize(
    ("k", "won", "tied"),
    [
        (2, "01", ""),
        (2, "01", "01"),
        (3, "01 10", ""),
        (3, "01 10", "02"),
        (3, "01 10 02 12", ""),
        (3, "01", "02 12"),
        (4, "01 10 23 32", ""),
        (4, "01 12 23", "01 12 23"),
        (3, "", "01"),
    ],
    ids=lambda value: str(value) or "none",
)
def test_comparisons_that_do_not_determine_strengths(k: int, won: str, tied: str) -> None:
    found = davidson(*matrices(k, won, tied))
    # 2 ties with 0, and 0 and 1 beat each other: that is enough.
    if (won, tied) == ("01 10", "02"):
        assert np.isfinite(found.strengths).all()
    else:
        assert np.isnan(found.strengths).all()
        assert np.isnan(found.tie)


def test_without_an_upset_the_likelihood_has_no_maximum() -> None:
    """Why a pecking order with ties is NaN: it only gets likelier the further apart all are."""

    def likelihood(distance: float) -> float:
        # 0 beats 1; both tie with 2, half-way between them. ν grows with the distance.
        win = np.exp(distance / 2) / (2 * np.cosh(distance / 2) + np.exp(distance / 2))
        tie = np.exp(distance / 2) / (2 * np.cosh(distance / 4) + np.exp(distance / 2))
        return float(win * tie**2)

    assert likelihood(1) < likelihood(5) < likelihood(20) < likelihood(50) <= 0.5


def test_only_ties_are_equals() -> None:
    found = davidson(*matrices(3, "", "01 12"))
    np.testing.assert_array_equal(found.strengths, np.zeros(3))
    assert found.tie == np.inf
    assert davidson(np.zeros((1, 1)), np.zeros((1, 1))).strengths == 0


def test_elo() -> None:
    np.testing.assert_allclose(elo([0, np.log(10), -np.log(10)]), [1500, 1900, 1100])
    assert elo(np.log(10), scale=100, mean=0) == pytest.approx(100)


TRUE = np.array([0.6, 0.0, -0.6])


def judged(n: int, seed: int) -> tuple[Array, Array]:
    """Per prompt, one comparison of each two of three; ν is 1."""
    rng = np.random.default_rng(seed)
    wins, ties = np.zeros((2, n, 3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        gap = TRUE[i] - TRUE[j]
        shares = np.array([np.exp(gap / 2), np.exp(-gap / 2), 1])
        outcome = rng.choice(3, p=shares / shares.sum(), size=n)
        wins[:, i, j], wins[:, j, i] = outcome == 0, outcome == 1
        ties[:, i, j] = ties[:, j, i] = outcome == 2
    return wins, ties


def test_a_ranking_is_of_all_prompts_with_paired_differences() -> None:
    wins, ties = judged(200, 0)
    clusters = np.arange(200) // 2
    draws = Resampling(clusters, n_resamples=500, seed=0)
    found = ranking(wins, ties, resampling=draws, baseline=1)
    expected = davidson(wins.sum(axis=0), ties.sum(axis=0)).strengths
    np.testing.assert_allclose([one.value for one in found.estimates], expected, rtol=1e-12)
    assert all(one.low < one.value < one.high for one in found.estimates)
    assert found.differences[1] is None
    first = found.differences[0]
    assert first is not None
    assert first.value == pytest.approx(expected[0] - expected[1])
    assert 0 < first.low < first.value < first.high
    # The first draw, made by hand.
    counts = np.random.default_rng(0).integers(100, size=(500, 100))[0]
    rows = np.concatenate([[2 * c, 2 * c + 1] for c in counts])
    again = davidson(wins[rows].sum(axis=0), ties[rows].sum(axis=0)).strengths
    columns = np.concatenate([wins.reshape(200, 9), ties.reshape(200, 9)], axis=1)
    drawn = draws.sums(columns)[0].reshape(2, 3, 3)
    np.testing.assert_allclose(davidson(*drawn).strengths, again, atol=1e-12)


def test_missing_prompts_are_left_out_and_counted() -> None:
    wins, ties = judged(100, 1)
    gone = wins.copy()
    gone[[3, 50], 0, 2] = np.nan
    gone[:, 1, 1] = np.nan
    draws = Resampling(np.arange(100), n_resamples=200, seed=0)
    found = ranking(gone, ties, resampling=draws).estimates
    rows = ~np.isin(np.arange(100), [3, 50])
    kept = ranking(wins[rows], ties[rows], resampling=draws.only(rows)).estimates
    assert [one[:3] for one in found] == [one[:3] for one in kept]
    assert {(one.n, one.n_missing) for one in found} == {(98, 2)}


def test_a_checkpoint_that_lost_once_has_a_value_and_no_interval() -> None:
    wins, ties = judged(60, 2)
    wins[:, 1:, 0] = ties[:, 0] = ties[:, :, 0] = 0
    wins[7, 1, 0] = 1
    draws = Resampling(np.arange(60), n_resamples=200, seed=0)
    found = ranking(wins, ties, resampling=draws).estimates
    assert np.isfinite(found[0].value)
    assert np.isnan(found[0].low)
    assert found[0].method == "none"


def test_coverage_of_strengths_and_their_differences() -> None:
    n_simulated, covered = 600, np.zeros(5)
    truths = [*TRUE, TRUE[0] - TRUE[2], TRUE[1] - TRUE[2]]
    for seed in range(n_simulated):
        draws = Resampling(np.arange(150), n_resamples=400, seed=0)
        own, gaps, _ = ranking(*judged(150, seed), resampling=draws, baseline=2)
        both = [*own, *(gap for gap in gaps if gap is not None)]
        covered += [one.low <= truth <= one.high for one, truth in zip(both, truths, strict=True)]
    np.testing.assert_allclose(covered / n_simulated, 0.95, atol=0.03)


def test_messages() -> None:
    square, flat = np.zeros((2, 2)), np.zeros((2, 3))
    with pytest.raises(InputError, match=r"must both be \(\.\.\., k, k\)"):
        davidson(flat, flat)
    with pytest.raises(InputError, match="must not be negative"):
        davidson(-np.ones((2, 2)), square)
    with pytest.raises(InputError, match="ties must be symmetric"):
        davidson(square, [[0, 1], [0, 0]])
    with pytest.raises(InputError, match="give 0 where none were compared"):
        davidson([[0, np.nan], [1, 0]], square)
    with pytest.raises(InputError, match=r"must be \(n_items, k, k\), not \(2, 2\)"):
        ranking(square, square, resampling=Resampling(np.arange(2), seed=0))
