"""The length-controlled win rate, and win rates of which the prompt is the unit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from prefbench.stats.bootstrap import Array, Refit, Resampling
from prefbench.stats.estimates import estimate, estimates
from prefbench.stats.paired import difference
from prefbench.stats.winrate import has_both, length_controlled

N = 150


def judged(seed: int = 0, *, n: int = N, theta: float = 1.0, phi: float = 0.4) -> Array:
    """Wins in quarters, the lengths of both answers: longer ones are preferred, (n, 3)."""
    rng = np.random.default_rng(seed)
    own, opponent = rng.integers(100, 3000, (2, n)).astype(float)
    delta = opponent - own
    preferred = expit(phi - theta * np.tanh(delta / delta.std(ddof=1)))
    return np.stack([rng.binomial(4, preferred) / 4, own, opponent], axis=1)


def value(columns: Array) -> float:
    return float(length_controlled(columns, np.ones((1, len(columns))))[0])


def exchanged(columns: Array) -> Array:
    return np.stack([1 - columns[:, 0], columns[:, 2], columns[:, 1]], axis=1)


def by_optimizer(columns: Array) -> float:
    """A second implementation: soft labels as two rows with weights, any optimizer, no ridge."""
    win, own, opponent = columns.T
    delta = opponent - own
    design = np.stack([np.tanh(delta / np.std(delta, ddof=1)), np.ones_like(delta)], axis=1)
    design, weight = np.concatenate([design, -design]), np.concatenate([win, 1 - win])

    def loss(parameters: Array) -> float:
        return float(weight @ np.logaddexp(0, -design @ parameters))

    def gradient(parameters: Array) -> Array:
        return np.asarray(-design.T @ (weight * expit(-design @ parameters)))

    fitted = minimize(loss, np.zeros(2), jac=gradient, method="BFGS", options={"gtol": 1e-9})
    return float(expit(fitted.x[1]))


@pytest.mark.parametrize("theta", [-2.0, 0.0, 1.0, 5.0])
@pytest.mark.parametrize("phi", [0.0, -3.0])
def test_agrees_with_an_optimizer(theta: float, phi: float) -> None:
    columns = judged(1, theta=theta, phi=phi)
    assert value(columns) == pytest.approx(by_optimizer(columns), abs=1e-6)


def test_a_draw_is_its_items_as_often_as_it_holds_them() -> None:
    columns = judged(2)
    counts = np.random.default_rng(0).multinomial(N, np.full(N, 1 / N), size=20)
    expected = [by_optimizer(np.repeat(columns, row, axis=0)) for row in counts]
    np.testing.assert_allclose(
        length_controlled(columns, counts.astype(float)), expected, atol=1e-7
    )


def test_it_finds_what_the_wins_were_made_from() -> None:
    columns = judged(3, n=100_000, phi=0.4)
    columns[:, 1] += 1000  # the checkpoint writes more, which is preferred
    delta = columns[:, 2] - columns[:, 1]
    preferred = expit(0.4 - np.tanh(delta / delta.std(ddof=1)))
    columns[:, 0] = np.random.default_rng(0).random(100_000) < preferred
    assert value(columns) == pytest.approx(expit(0.4), abs=0.01)
    assert columns[:, 0].mean() > expit(0.4) + 0.05


def test_a_checkpoint_against_itself_wins_exactly_half() -> None:
    columns = judged()
    columns[:, 0] = 0.5
    assert value(columns) == 0.5
    columns[:, 2] = columns[:, 1]
    assert value(columns) == 0.5
    found = estimate(columns, Refit(length_controlled), resampling=Resampling(np.arange(N), seed=0))
    assert found[:3] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_only_wins_or_only_losses_are_certain_at_any_length(share: float) -> None:
    columns = judged()
    columns[:, 0] = share
    assert value(columns) == share


@pytest.mark.parametrize("lead", [0.0, 250.0])
def test_without_differences_in_length_it_is_the_win_rate(lead: float) -> None:
    columns = judged()
    columns[:, 2] = columns[:, 1] + lead
    assert value(columns) == columns[:, 0].mean()


def test_lengths_far_apart_leave_nothing_to_compare() -> None:
    """All Δ at the far end of the tanh: no slope can be told from the intercept."""
    columns = judged()
    columns[:, 2] = columns[:, 1] + 1e6 + np.arange(N) % 7
    assert value(columns) == pytest.approx(columns[:, 0].mean(), abs=1e-6)


def test_exchanging_checkpoint_and_opponent_gives_the_rest() -> None:
    columns = judged(4)
    counts = np.random.default_rng(0).multinomial(N, np.full(N, 1 / N), size=200).astype(float)
    there, back = length_controlled(columns, counts), length_controlled(exchanged(columns), counts)
    np.testing.assert_allclose(there + back, 1, atol=1e-12)


def separated(*deltas: float, wins_from: float) -> Array:
    """The longer the opponent's answer is, the better for the checkpoint, without exception."""
    delta = np.array(deltas)
    return np.stack([delta >= wins_from, np.full(len(delta), 1e4), 1e4 + delta], axis=1)


def test_where_length_decides_all_the_boundary_is_in_the_middle_of_the_gap() -> None:
    assert value(separated(-300, -200, 200, 300, wins_from=200)) == pytest.approx(0.5)


@pytest.mark.parametrize("turned", [1, -1])
def test_where_lengths_separate_and_none_is_equal_it_is_as_sure_as_a_share(turned: int) -> None:
    among_wins = separated(-300, -250, -200, 300, wins_from=-200)
    among_losses = separated(-300, 200, 250, 300, wins_from=250)
    for columns, end in ((among_wins, 1.0), (among_losses, 0.0)):
        columns[:, 2] = 1e4 + turned * (columns[:, 2] - 1e4)
        assert value(columns) == end
        found = estimates(
            columns[:, None],
            Refit(length_controlled),
            resampling=Resampling(np.arange(4), n_resamples=200, seed=0),
            proportion=True,
        )[0]
        assert found.method == "wilson"
        assert found.high - found.low == pytest.approx(0.49, abs=0.01)
    tie = separated(-300, -250, -200, 300, wins_from=-200)
    tie[1, 0] = 0.5  # speaks for both, on the boundary
    assert value(tie) == 1
    tie[3, 0] = 0.5  # and among the wins: not separated any more
    assert 0.5 < value(tie) < 1


def test_few_losses_leave_a_value_without_an_interval() -> None:
    columns = judged(n=60)
    for n_losses, known in ((0, True), (1, False), (9, False), (10, True), (51, False), (60, True)):
        columns[:, 0] = np.arange(60) >= n_losses
        assert has_both(columns) is known
        found = estimate(
            columns,
            Refit(length_controlled, has_both),
            resampling=Resampling(np.arange(60), n_resamples=100, seed=0),
            proportion=True,
        )
        assert 0 <= found.value <= 1
        assert np.isfinite(found.low) == known
    columns[:4, 0] = 0.5
    assert has_both(columns[:4])  # against itself


def test_a_judge_that_only_counts_characters_is_fitted_too() -> None:
    columns = judged(n=400)
    columns[:, 0] = columns[:, 1] > columns[:, 2] + 600
    counts = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), size=50).astype(float)
    assert (length_controlled(columns, counts) < 1e-6).all()


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_few_items_have_a_value_in_every_draw(n: int) -> None:
    """Draws of few items are separated more often than not, by gaps of any width."""
    rng = np.random.default_rng(n)
    for _ in range(30):
        lengths = np.rint(np.exp(rng.normal(6, rng.choice([0.01, 0.5, 3]), (2, n))))
        columns = np.stack([rng.random(n) < rng.choice([0.1, 0.5]), *lengths], axis=1)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=50).astype(float)
        found = length_controlled(columns, counts)
        assert ((found >= 0) & (found <= 1)).all()
        turned = length_controlled(exchanged(columns), counts)
        np.testing.assert_allclose(found + turned, 1, atol=1e-9)


def test_one_loss_among_many_wins_has_a_value_wherever_it_is() -> None:
    columns = judged(n=400)
    order = np.argsort(columns[:, 2] - columns[:, 1])
    for lost in order[[0, 1, 200, 399]]:
        columns[:, 0] = 1
        columns[lost, 0] = 0
        assert 0.9 < value(columns) <= 1


def test_a_draw_without_items_has_no_value() -> None:
    assert np.isnan(length_controlled(judged(), np.zeros((1, N)))).all()
    assert length_controlled(np.zeros((0, 3)), np.zeros((2, 0))) == pytest.approx(
        [np.nan, np.nan], nan_ok=True
    )


def test_a_checkpoint_has_the_same_bits_in_any_company() -> None:
    columns = np.stack([judged(seed) for seed in range(3)], axis=1)
    resampling = Resampling(np.arange(N), n_resamples=100, seed=0)
    fit = Refit(length_controlled)
    alone = [estimate(columns[:, i], fit, resampling=resampling) for i in range(3)]
    assert estimates(columns, fit, resampling=resampling) == alone
    assert estimates(columns[:, ::-1], fit, resampling=resampling) == alone[::-1]


def test_differences_are_paired() -> None:
    easy, hard = judged(5), judged(6)
    close = easy.copy()
    close[::10, 0] = 0.5
    resampling = Resampling(np.arange(N), n_resamples=500, seed=0)
    fit = Refit(length_controlled)
    near = difference(easy, close, fit, resampling=resampling)
    far = difference(easy, hard, fit, resampling=resampling, method="bca")
    assert near.value == pytest.approx(value(easy) - value(close), abs=1e-12)
    assert near.high - near.low < 0.6 * (far.high - far.low)
    assert far.method == "bca"
    assert difference(easy, easy, fit, resampling=resampling)[:3] == (0, 0, 0)


def test_coverage_of_a_length_controlled_win_rate() -> None:
    n_simulated = 400
    columns = np.stack([judged(seed, n=120) for seed in range(n_simulated)], axis=1)
    draws = Resampling(np.arange(120), n_resamples=400, seed=0)
    found = estimates(columns, Refit(length_controlled), resampling=draws)
    covered = np.mean([one.low <= expit(0.4) <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=0.03)


def test_coverage_of_a_win_rate_needs_prompts_as_units() -> None:
    """Two orders of four samples of one prompt are far from eight independent verdicts.

    The prompt decides most, the sample some; the judge prefers what it reads first.
    """
    n_prompts, n_simulated = 100, 1000
    rng = np.random.default_rng(0)
    prompt = rng.normal(0, 1.5, (n_prompts, 1, 1, n_simulated))
    sample = rng.normal(0, 0.7, (n_prompts, 4, 1, n_simulated))
    order = np.array([0.5, -0.5])[:, None]
    wins = rng.random((n_prompts, 4, 2, n_simulated)) < expit(0.3 + prompt + sample + order)
    # The truth by quadrature over the sum of both normal terms.
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    logit = 0.3 + node * np.hypot(1.5, 0.7) + order
    truth = float((expit(logit) @ weight).mean() / weight.sum())

    def coverage(values: Array, clusters: Array) -> float:
        columns = np.stack([values, np.ones_like(values)], axis=-1)
        found = estimates(
            columns,
            lambda sums: sums[..., 0] / sums[..., 1],
            resampling=Resampling(clusters, n_resamples=1000, seed=0),
        )
        return float(np.mean([one.low <= truth <= one.high for one in found]))

    by_prompt = coverage(wins.mean(axis=(1, 2)), np.arange(n_prompts))
    rows = wins.reshape(-1, n_simulated).astype(float)
    assert by_prompt == pytest.approx(0.95, abs=0.02)
    assert coverage(rows, np.repeat(np.arange(n_prompts), 8)) == by_prompt
    assert coverage(rows, np.arange(len(rows))) == pytest.approx(0.72, abs=0.05)
