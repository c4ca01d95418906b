"""Toys: what comes out of them is what is known of them, and a difference would be told."""

from __future__ import annotations

import dataclasses
from math import log

import numpy as np
import pytest
import torch

from prefbench.demo.toys import actions, entangled
from prefbench.demo.toys.actions import ipo_of_two, ipo_optimum, train
from prefbench.demo.toys.curves import LOSSES, Loss, surface
from prefbench.demo.toys.entangled import (
    SURER_CHOSEN,
    SURER_REJECTED,
    Confidence,
    entanglement,
    known_products,
    turning_point,
)
from prefbench.demo.toys.findings import Finding, Toys, findings, toys_as_text, work_out
from prefbench.demo.toys.shared_token import LAWS, Law, descended, slopes
from prefbench.objectives import OBJECTIVES, PairLogps

GRID = np.linspace(0.03, 0.97, 21)


@pytest.fixture(scope="module")
def toys() -> Toys:
    """Short training: long enough for IPO, not for DPO."""
    return work_out(n_steps=2500, n_seeds=3)


# --- three actions


@pytest.mark.parametrize(
    ("tau", "known"),
    [
        (0.1, (0.9644, 0.0344, 0.0012)),
        (0.5, (0.5627, 0.2889, 0.1483)),
        (1.0, (0.4484, 0.3213, 0.2302)),
    ],
)
def test_the_closed_form_is_least_squares(tau: float, known: tuple[float, ...]) -> None:
    assert ipo_optimum(tau) == pytest.approx(known, abs=5e-5)
    margins = np.zeros((3, 3))
    for row, (better, worse) in enumerate(actions.ORDER):
        margins[row, better], margins[row, worse] = 1, -1
    logits = np.linalg.lstsq(margins, np.full(3, 1 / (2 * tau)), rcond=None)[0]
    powers = np.exp(logits)
    assert ipo_optimum(tau) == pytest.approx(powers / powers.sum(), abs=1e-12)


def test_the_objective_is_flat_at_the_closed_form_and_nowhere_near() -> None:
    def slope(probabilities: np.ndarray) -> float:
        logits = torch.as_tensor(np.log(probabilities)).requires_grad_()
        logps = torch.log_softmax(logits, 0)
        better, worse = ([pair[i] for pair in actions.ORDER] for i in (0, 1))
        ones = torch.ones(3)
        uniform = torch.full((3,), -log(3))
        loss = OBJECTIVES["ipo_sum"](
            PairLogps(logps[better], logps[worse], ones, ones),
            PairLogps(uniform, uniform, ones, ones),
            tau=0.5,
        )
        (gradient,) = torch.autograd.grad(loss.sum(), [logits])
        return float(gradient.abs().max())

    assert slope(ipo_optimum(0.5)) < 1e-6
    assert slope(ipo_optimum(0.6)) > 0.1


def test_ipo_on_all_pairs_at_once_comes_to_the_closed_form() -> None:
    for learning in train("ipo_sum", rng=None, n_steps=1800, n_seeds=1):
        assert learning.probabilities[0, 0] == pytest.approx([1 / 3] * 3)
        assert learning.probabilities[-1, 0] == pytest.approx(ipo_optimum(learning.tau), abs=1e-4)


def test_ipo_on_mini_batches_stays_about_the_closed_form(toys: Toys) -> None:
    for learning in toys.ipo:
        known = ipo_optimum(learning.tau)
        assert learning.late == pytest.approx(np.broadcast_to(known, (3, 3)), abs=5e-3)
        seeds = learning.probabilities[-1]
        assert seeds.std(axis=0).max() > 0  # they are drawn, so seeds differ
        assert seeds.sum(axis=1) == pytest.approx([1, 1, 1])


def test_dpo_gives_everything_to_the_best_where_ipo_does_not(toys: Toys) -> None:
    for dpo in toys.dpo:
        best = dpo.probabilities[:, :, 0].min(axis=1)
        assert best[-1] > 0.97
        assert best[-1] > ipo_optimum(dpo.tau)[0]
        assert 1 - best[-1] < (1 - best[-30]) / 2  # and it still goes on
    strict, loose = (toys.dpo[i].probabilities[-1, :, 0] for i in (0, -1))
    assert (strict > loose).all()


@pytest.mark.parametrize(("tau", "known"), [(0.1, 0.993307), (0.5, 0.731059), (1.0, 0.622459)])
def test_of_two_actions_ipo_keeps_both(toys: Toys, tau: float, known: float) -> None:
    assert ipo_of_two(tau) == pytest.approx(known, abs=1e-6)
    (learning,) = (one for one in toys.of_two if one.tau == tau)
    assert learning.probabilities[-1, 0, 0] == pytest.approx(known, abs=1e-4)


def test_a_seed_is_a_sequence_of_mini_batches() -> None:
    def run(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return train("ipo_sum", (0.5,), rng=rng, n_steps=50, n_seeds=2)[0].probabilities

    assert (run(1) == run(1)).all()
    assert (run(1) != run(2)).any()
    assert (run(1)[-1, 0] != run(1)[-1, 1]).any()


# --- a shared token


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.title)
def test_slopes_at_a_shared_token(law: Law) -> None:
    assert slopes(law, GRID) == pytest.approx(law.slope(GRID), abs=1e-12)


def test_a_shared_token_by_hand() -> None:
    at = {law.title.split()[0]: law.slope(np.array([0.25]))[0] for law in LAWS}
    assert at == {"MLE": -0.75, "ExMATE": -0.5625, "Unlikelihood": -0.5, "DPO": 0.0}


def test_weak_exmate_is_nearly_mle() -> None:
    (exmate,) = (law for law in LAWS if law.objective == "exmate")
    weak = dataclasses.replace(exmate, parameters={"lambda_": 0.05})
    assert slopes(weak, GRID) == pytest.approx(-(1 - GRID) * (1 - 0.05 * GRID), abs=1e-12)


def test_descent_comes_to_rest_where_the_slope_is_zero() -> None:
    starts = np.array([0.05, 0.4, 0.95])
    ends = {law.objective: descended(law, starts) for law in LAWS}
    assert ends["unlikelihood"] == pytest.approx([0.5] * 3, abs=1e-9)
    assert ends["dpo"] == pytest.approx(starts, abs=1e-12)
    # Descent on z at rate 1: 1 − p goes like 1 / t, and like 1 / √(2t).
    assert 1 - ends["sft"] == pytest.approx([1 / 1000] * 3, rel=0.1)
    assert 1 - ends["exmate"] == pytest.approx([1 / np.sqrt(2000)] * 3, rel=0.1)


# --- losses over two probabilities


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.title)
def test_slopes_of_losses(loss: Loss) -> None:
    found = surface(loss, GRID[None, :], GRID[:, None])
    p, q = found.chosen, found.rejected
    assert found.chosen_slopes == pytest.approx(loss.chosen_slope(p, q), rel=1e-9, abs=1e-9)
    assert found.rejected_slopes == pytest.approx(loss.rejected_slope(p, q), rel=1e-9, abs=1e-9)
    # 1e-6 to either side, no probability being where DPOP has its kink.
    up, down = (surface(loss, GRID[None, :] + d, GRID[:, None]).values for d in (1e-6, -1e-6))
    smooth = np.abs(p - 0.5) > 1e-3
    assert found.chosen_slopes[smooth] == pytest.approx(((up - down) / 2e-6)[smooth], abs=1e-4)


def test_losses_by_hand() -> None:
    at = {loss.objective: surface(loss, np.array(0.4), np.array(0.8)).values for loss in LOSSES}
    assert at["sft"] == pytest.approx(-log(0.4))
    assert at["unlikelihood"] == pytest.approx(-log(0.4) - log(0.2))
    assert at["exmate"] == pytest.approx(-log(0.4) + 0.8)
    assert at["dpo"] == pytest.approx(log(3))
    assert at["dpop"] == pytest.approx(log(1 + 2 * 0.5 / 0.4))
    assert at["ipo_sum"] == pytest.approx((log(0.5) - 0.5) ** 2)


# --- one differing token


@pytest.mark.parametrize("n_tokens", [4, 50, 1000])
def test_a_differing_token_alone_is_ideal(n_tokens: int) -> None:
    found = entanglement(SURER_CHOSEN, 0, n_tokens=n_tokens)
    assert found.products.inner == pytest.approx(-1 / n_tokens)
    assert found.products.chosen == found.products.rejected == pytest.approx(1 - 1 / n_tokens)
    assert found.products.cosine == pytest.approx(-1 / (n_tokens - 1))
    assert found.actual.chosen > 0 > found.actual.rejected


@pytest.mark.parametrize("sure", [SURER_CHOSEN, SURER_REJECTED, Confidence(0.4, 0.4)])
def test_each_shared_token_adds_the_same(sure: Confidence) -> None:
    s, t = (np.full(50, (1 - share) / 49) for share in sure)
    s[2], t[2] = sure
    added = 1 - s[2] - t[2] + s @ t
    inner = [entanglement(sure, n).products.inner for n in range(6)]
    assert np.diff(inner) == pytest.approx([added] * 5)
    for n_shared in range(6):
        assert tuple(entanglement(sure, n_shared).products) == pytest.approx(
            tuple(known_products(sure, n_shared))
        )


def test_shared_tokens_make_both_fall_and_the_other_way_round_both_rise() -> None:
    assert turning_point(SURER_CHOSEN) == pytest.approx(6.125)
    ideal, fallen = (entanglement(SURER_CHOSEN, n) for n in (6, 7))
    assert ideal.actual.chosen > 0 > ideal.actual.rejected
    assert max(fallen.actual) < 0
    risen = entanglement(SURER_REJECTED, 7)
    assert min(risen.actual) > 0


def test_equally_sure_responses_stay_ideal_however_alike_their_gradients() -> None:
    found = entanglement(Confidence(0.4, 0.4), 60)
    assert turning_point(found.confidence) == float("inf")
    assert found.products.cosine > 0.95
    assert found.actual.chosen > 0 > found.actual.rejected


@pytest.mark.parametrize("n_shared", [0, 3, 14])
def test_the_first_order_predicts_a_step(n_shared: int) -> None:
    for sure in (SURER_CHOSEN, SURER_REJECTED):
        found = entanglement(sure, n_shared)
        assert tuple(found.actual) == pytest.approx(tuple(found.predicted), rel=0.005)
        assert found.actual.chosen > found.actual.rejected  # the margin always grows


def test_tokens_before_the_difference_change_nothing_but_the_products() -> None:
    plain, longer = (entanglement(SURER_CHOSEN, 3, n_before=n) for n in (0, 5))
    assert longer.products.inner > plain.products.inner + 4
    assert tuple(longer.predicted) == pytest.approx(tuple(plain.predicted))
    assert tuple(longer.actual) == pytest.approx(tuple(plain.actual), rel=1e-6)


# --- what is told


def test_all_agree_but_dpo_after_few_steps(toys: Toys) -> None:
    """DPO is certain only in the end: the short training shows that a difference is told."""
    found = findings(toys)
    differing = [finding.what for finding in found if not finding.agrees]
    assert differing
    assert all(what.startswith("DPO, β = ") for what in differing), differing
    text = toys_as_text(toys)
    assert text.count("DIFFERS") == len(differing)
    assert f"{len(found) - len(differing)} of {len(found)} agree." in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("found", "agrees"), [((0.5, 1.0), True), ((0.5, 1.2), False), ((float("nan"), 1.0), False)]
)
def test_a_finding_agrees_within_its_tolerance(found: tuple[float, ...], agrees: bool) -> None:
    assert Finding("toy", "what", (0.5, 1.05), found, 0.1).agrees is agrees


def test_the_vocabulary_of_the_toy_is_the_one_that_is_told(toys: Toys) -> None:
    assert f"M = {entangled.N_TOKENS}" in toys_as_text(toys)
