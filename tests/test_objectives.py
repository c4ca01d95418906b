"""Objectives: closed forms, derivatives, invariances, extremes and error messages."""

from __future__ import annotations

import inspect
from functools import partial
from math import e, exp, log

import numpy as np
import pytest
import torch

from prefbench import objectives
from prefbench.errors import InputError
from prefbench.objectives import OBJECTIVES, PairLogps, rrhf_candidates

# c, r, c_ref, r_ref, n_w, n_l: the chosen response has fallen below the reference, margin −1.5.
UNIT = (-13.0, -13.5, -12.0, -14.0, 8, 11)

# objective, parameters, loss, ∂loss/∂c, ∂loss/∂r of the unit pair, worked out by hand and
# confirmed by finite differences
VECTORS = [
    ("dpo", {"beta": 0.1}, 0.770957, -0.053743, 0.053743),
    ("dpop", {"beta": 0.3, "lambda_": 50}, 15.45, -15.299997, 0.3),
    ("dpop", {"beta": 0.1, "lambda_": 50}, 5.155783, -5.070594, 0.099423),
    ("ipo_sum", {"tau": 0.1}, 42.25, -13.0, 13.0),
    ("ipo_mean", {"tau": 0.1}, 26.7336, -1.292614, 0.940083),
    ("slic_hf", {"delta": 1, "lambda_": 0.5}, 7.0, -1.5, 1.0),
    ("hinge", {"gamma": 0.1}, 1.15, -0.1, 0.1),
    ("rrhf", {"weight": 1}, 13.397727, -1.125, 0.090909),
    ("exmate", {"lambda_": 0.05}, 1.639655, -0.125, 0.001332),
    ("exmate", {"lambda_": 1}, 1.918091, -0.125, 0.026645),
    ("exmate", {"lambda_": 1, "form": "sequence"}, 13.000001, -1.0, 1.37e-06),
    ("unlikelihood_sequence", {"alpha": 1}, 13.000001, -1.0, 1.37e-06),
    ("dpo_nll", {"beta": 0.1, "alpha": 1}, 2.395957, -0.178743, 0.053743),
    ("simpo", {"beta": 2, "gamma": 1}, 1.949078, -0.214399, 0.155926),
    ("orpo", {"lambda_": 0.1}, 1.723989, -0.134781, 0.008081),
    ("sppo", {"beta": 0.1}, 66.25, -12.0, 11.0),
    ("sft", {}, 13.0, -1.0, 0.0),
    ("sft", {"form": "mean"}, 1.625, -0.125, 0.0),
]
IDS = [f"{name}-{parameters}" for name, parameters, *_ in VECTORS]


def pairs(c, r, n_w, n_l, *, dtype=torch.float64, tokens=False) -> PairLogps:
    """PairLogps of one or more pairs; with tokens, each response's tokens are equally likely."""
    library = torch if isinstance(dtype, torch.dtype) else np
    c, r = (library.asarray(np.atleast_1d(v), dtype=dtype) for v in (c, r))
    n_w, n_l = (library.asarray(np.broadcast_to(n, c.shape).copy()) for n in (n_w, n_l))
    if not tokens:
        return PairLogps(c, r, n_w, n_l)
    c_tokens, r_tokens = (
        library.asarray(np.tile((v / n)[:, None], int(n.max())), dtype=dtype)
        for v, n in ((c, n_w), (r, n_l))
    )
    return PairLogps(c, r, n_w, n_l, c_tokens, r_tokens)


def loss_and_gradient(name, parameters, pair=UNIT):
    c, r, c_ref, r_ref, n_w, n_l = pair
    policy = pairs(c, r, n_w, n_l)
    policy.chosen.requires_grad_(), policy.rejected.requires_grad_()
    policy = policy._replace(
        rejected_tokens=(policy.rejected / n_l)[:, None].expand(-1, n_l),
    )
    loss = OBJECTIVES[name](policy, pairs(c_ref, r_ref, n_w, n_l), **parameters)
    gradients = torch.autograd.grad(
        loss.sum(), (policy.chosen, policy.rejected), materialize_grads=True
    )
    return loss.item(), *(g.item() for g in gradients)


@pytest.mark.parametrize(("name", "parameters", "loss", "d_chosen", "d_rejected"), VECTORS, ids=IDS)
def test_unit_pair(name, parameters, loss, d_chosen, d_rejected):
    got = loss_and_gradient(name, parameters)
    assert got[0] == pytest.approx(loss, abs=6e-7)
    assert got[1] == pytest.approx(d_chosen, abs=6e-7)
    assert got[2] == pytest.approx(d_rejected, abs=6e-7, rel=1e-3 if d_rejected < 1e-5 else None)


@pytest.mark.parametrize(
    ("placement", "loss"), [("inside_beta", 5.1558), ("inside_sigmoid", 50.15), ("outside", 50.771)]
)
def test_dpop_penalty_placements(placement, loss):
    parameters = {"beta": 0.1, "lambda_": 50, "penalty_placement": placement}
    assert loss_and_gradient("dpop", parameters)[0] == pytest.approx(loss, abs=5e-5)


def test_conservative_dpo_mixes_both_preferences():
    c, r, c_ref, r_ref, n_w, n_l = UNIT
    plain = loss_and_gradient("dpo", {})[0]
    flipped = loss_and_gradient("dpo", {}, (r, c, r_ref, c_ref, n_l, n_w))[0]
    assert loss_and_gradient("dpo", {"label_smoothing": 0.2})[0] == pytest.approx(
        0.8 * plain + 0.2 * flipped
    )


def test_dpo_exmate_is_the_sum():
    joint = loss_and_gradient("dpo_exmate", {"beta": 0.2, "kappa": 3.0, "lambda_": 0.5})
    dpo = loss_and_gradient("dpo", {"beta": 0.2})
    exmate = loss_and_gradient("exmate", {"lambda_": 0.5})
    assert joint == pytest.approx([d + 3.0 * x for d, x in zip(dpo, exmate, strict=True)])


def test_token_forms_by_hand():
    # Two chosen tokens of probability 1/2; rejected tokens 1/4, 1/2, and padding that says nothing.
    policy = PairLogps(
        np.log([0.25]), np.log([0.125]), np.array([2]), np.array([2]), None,
        np.array([[log(0.25), log(0.5), np.nan]]),
    )  # fmt: skip
    expected = log(2) - 0.7 * (log(0.75) + log(0.5)) / 2
    assert OBJECTIVES["unlikelihood"](policy, alpha=0.7) == pytest.approx(expected)
    expected = log(2) + 0.7 * (0.25 + 0.5) / 2
    assert OBJECTIVES["exmate_token"](policy, lambda_=0.7) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["unlikelihood", "exmate_token"])
@pytest.mark.parametrize("padding", [0.0, -np.inf, np.nan])
def test_padding_has_neither_value_nor_gradient(name, padding):
    tokens = torch.tensor([[-1.0, -2.0, padding], [-1.0, -2.0, -3.0]], requires_grad=True)
    sums, counts = torch.tensor([-3.0, -6.0]), torch.tensor([2, 3])
    loss = OBJECTIVES[name](PairLogps(sums, sums, counts, counts, None, tokens))
    (gradient,) = torch.autograd.grad(loss.sum(), tokens)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()
    assert gradient[0, 2] == 0
    assert gradient[1, 2] != 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_numpy_and_torch_agree_and_keep_the_dtype(name):
    rng = np.random.default_rng(0)
    c, r, c_ref, r_ref = rng.uniform(-60, -2, (4, 7))
    n_w, n_l = rng.integers(2, 30, (2, 7))
    losses = {}
    for dtype in (np.float64, np.float32, torch.float64, torch.float32):
        policy = pairs(c, r, n_w, n_l, dtype=dtype, tokens=True)
        losses[dtype] = OBJECTIVES[name](policy, pairs(c_ref, r_ref, n_w, n_l, dtype=dtype))
        assert losses[dtype].dtype == dtype
        assert losses[dtype].shape == (7,)
    np.testing.assert_allclose(losses[torch.float64].numpy(), losses[np.float64], rtol=1e-12)
    np.testing.assert_allclose(losses[torch.float32].numpy(), losses[np.float64], rtol=1e-3)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_match_finite_differences(name):
    rng = np.random.default_rng(1)
    c, r, c_ref, r_ref = (float(v) for v in rng.uniform(-12, -2, 4))
    _, *gradients = loss_and_gradient(name, {}, (c, r, c_ref, r_ref, 5, 7))

    def loss(c, r):
        return loss_and_gradient(name, {}, (c, r, c_ref, r_ref, 5, 7))[0]

    h = 1e-5
    numeric = [(loss(c + h, r) - loss(c - h, r)) / 2 / h, (loss(c, r + h) - loss(c, r - h)) / 2 / h]
    assert gradients == pytest.approx(numeric, rel=1e-5, abs=1e-7)


# --- properties


@pytest.mark.parametrize("name", ["dpo", "dpop", "ipo_sum", "hinge"])
def test_losses_of_the_margin_ignore_a_common_shift(name):
    c, r, c_ref, r_ref, n_w, n_l = UNIT
    parameters = {"lambda_": 0} if name == "dpop" else {}
    shifted = (c + 3.7, r + 3.7, c_ref, r_ref, n_w, n_l)
    expected = loss_and_gradient(name, parameters)
    assert loss_and_gradient(name, parameters, shifted) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "parameters"), [("ipo_mean", {}), ("simpo", {}), ("slic_hf", {"lambda_": 0})]
)
def test_normalised_losses_ignore_a_common_shift_of_their_means(name, parameters):
    c, r, c_ref, r_ref, n_w, n_l = UNIT
    per_token = (1, 1) if name == "slic_hf" else (n_w, n_l)
    shifted = (c - 0.4 * per_token[0], r - 0.4 * per_token[1], c_ref, r_ref, n_w, n_l)
    expected = loss_and_gradient(name, parameters)
    assert loss_and_gradient(name, parameters, shifted) == pytest.approx(expected)


def test_dpop_without_penalty_is_dpo():
    above_reference = (-11.0, *UNIT[1:])
    for placement in ("inside_beta", "inside_sigmoid", "outside"):
        dpop = partial(loss_and_gradient, "dpop")
        dpo = partial(loss_and_gradient, "dpo", {"beta": 0.3})
        assert dpop({"lambda_": 0, "penalty_placement": placement}) == dpo()
        assert dpop({"penalty_placement": placement}, above_reference) == dpo(above_reference)


def test_policy_equal_to_reference():
    same = (-13.0, -13.5, -13.0, -13.5, 8, 11)
    assert loss_and_gradient("dpo", {}, same) == pytest.approx((log(2), -0.05, 0.05))
    # No penalty is owed before the first step: DPOP starts as DPO.
    assert loss_and_gradient("dpop", {}, same) == pytest.approx((log(2), -0.15, 0.15))
    for name in ("ipo_sum", "ipo_mean"):
        assert loss_and_gradient(name, {"tau": 0.25}, same)[0] == pytest.approx(4.0)
    assert loss_and_gradient("hinge", {}, same)[0] == 1.0


def test_rrhf_is_the_case_of_two_candidates():
    logps, counts = torch.tensor([UNIT[:2]]), torch.tensor([UNIT[4:]])
    for form in ("sum", "mean"):
        parameters = {"weight": 3.0, "sft_form": form}
        expected = loss_and_gradient("rrhf", parameters)[0]
        for order in ([0, 1], [1, 0]):
            got = rrhf_candidates(
                logps[:, order],
                counts[:, order],
                torch.tensor([[1.0, 0.0]])[:, order],
                **parameters,
            )
            assert got.item() == pytest.approx(expected)


def test_rrhf_of_many_candidates_by_hand():
    means = np.array([[-1.0, -0.5, -0.75], [-1.0, -0.5, -0.75]])
    rewards = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    # Item 1: (0,1) 0.5, (0,2) 0.25, (1,2) satisfied, −2 for the best. Item 2: all tie.
    got = rrhf_candidates(2 * means, np.full((2, 3), 2), rewards)
    assert got == pytest.approx([0.5 + 0.25 + 2.0, 2.0])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    ("name", "parameters", "derivative"),
    [
        ("sft", {}, lambda p: -(1 - p)),
        ("exmate", {"lambda_": 1}, lambda p: -((1 - p) ** 2)),
        ("exmate_token", {"lambda_": 1}, lambda p: -((1 - p) ** 2)),
        ("unlikelihood", {}, lambda p: 2 * p - 1),
        ("dpo", {}, lambda p: 0.0),
    ],
)
def test_what_a_shared_token_learns(name, parameters, derivative, p):
    """One step, the same token with the same probability on both sides, as a logit sees it."""
    logit = torch.tensor([log(p / (1 - p))], dtype=torch.float64, requires_grad=True)
    one = torch.tensor([1])
    logp = torch.nn.functional.logsigmoid(logit)
    policy = PairLogps(logp, logp, one, one, logp[:, None], logp[:, None])
    loss = OBJECTIVES[name](policy, pairs(-1.0, -2.0, 1, 1), **parameters)
    (gradient,) = torch.autograd.grad(loss.sum(), logit)
    assert gradient.item() == pytest.approx(derivative(p), abs=1e-12)


def test_inner_product_of_two_tokens_of_a_uniform_distribution():
    logits = torch.zeros(50, dtype=torch.float64, requires_grad=True)
    chosen, rejected = (
        torch.autograd.grad(torch.log_softmax(logits, 0)[i], logits)[0] for i in (3, 7)
    )
    assert (chosen @ rejected).item() == pytest.approx(-1 / 50)
    assert (chosen @ chosen).item() == pytest.approx(1 - 1 / 50)


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0])
def test_ipo_settles_where_its_paper_says(tau):
    """Three actions in total order, from the uniform policy (section 5.4 of the IPO paper)."""
    chosen, rejected = [0, 1, 0], [1, 2, 2]
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    reference = pairs([log(1 / 3)] * 3, [log(1 / 3)] * 3, 1, 1)
    descent = torch.optim.SGD([logits], lr=0.1)
    for _ in range(100):
        logps = torch.log_softmax(logits, 0)
        policy = reference._replace(chosen=logps[chosen], rejected=logps[rejected])
        descent.zero_grad()
        OBJECTIVES["ipo_sum"](policy, reference, tau=tau).sum().backward()
        descent.step()
    step = 1 / (3 * tau)
    expected = np.exp([2 * step, step, 0.0])
    found = torch.softmax(logits.detach(), 0).numpy()
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-9)
    if tau == 0.1:
        np.testing.assert_allclose(found, [0.9644, 0.0344, 0.0012], atol=5e-5)


@pytest.mark.parametrize(
    ("name", "parameters", "ratio"),
    [
        ("dpo", {}, 1.0),
        ("dpop", {}, 51.0),
        ("dpo_nll", {"beta": 0.1}, 1 + 1 / 8 / 0.0537430),
        ("ipo_sum", {}, 1.0),
        ("ipo_mean", {}, 11 / 8),
        ("simpo", {}, 11 / 8),
        ("slic_hf", {"lambda_": 0.5}, 1.5),
        ("rrhf", {"weight": 100.0, "sft_form": "mean"}, (101 / 8) / (100 / 11)),
        ("sppo", {"beta": 0.1}, (10 + 2) / (10 + 1)),
        ("exmate", {"lambda_": 1}, 11 / 8 * exp(13.5 / 11)),
        ("unlikelihood_sequence", {}, (1 - exp(-13.5)) / exp(-13.5)),
    ],
)
def test_weight_of_chosen_over_rejected(name, parameters, ratio):
    """−∇loss = d_w ∇c − d_l ∇r: the table of ratios d_w / d_l at the unit pair."""
    _, d_chosen, d_rejected = loss_and_gradient(name, parameters)
    assert -d_chosen / d_rejected == pytest.approx(ratio, rel=1e-6)


def test_weights_of_orpo():
    lambda_, p_w, p_l = 0.1, exp(-13 / 8), exp(-13.5 / 11)
    odds_ratio = (p_w / (1 - p_w)) / (p_l / (1 - p_l))
    falling = lambda_ / (1 + odds_ratio)
    _, d_chosen, d_rejected = loss_and_gradient("orpo", {"lambda_": lambda_})
    assert -d_chosen == pytest.approx((1 + falling / (1 - p_w)) / 8)
    assert d_rejected == pytest.approx(falling / (1 - p_l) / 11)


# --- extremes


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("sums", [(-1000, 0), (0, -1000), (-1000, -1000), (0, 0), (-1e-9, -1e-9)])
def test_finite_at_extremes_in_single_precision(name, sums):
    policy = pairs(*sums, 8, 11, dtype=torch.float32, tokens=True)
    inputs = [policy.chosen, policy.rejected, policy.rejected_tokens]
    for tensor in inputs:
        tensor.requires_grad_()
    loss = OBJECTIVES[name](policy, pairs(-12.0, -14.0, 8, 11, dtype=torch.float32))
    assert torch.isfinite(loss).all()
    for gradient in torch.autograd.grad(loss.sum(), inputs, materialize_grads=True):
        assert torch.isfinite(gradient).all()


def test_a_certain_rejected_token_is_clamped():
    tokens = torch.tensor([[-1e-6]], requires_grad=True)
    one = torch.tensor([1])
    policy = PairLogps(torch.tensor([-1.0]), tokens[:, 0], one, one, None, tokens)
    loss = OBJECTIVES["unlikelihood"](policy)
    assert loss.item() == pytest.approx(1 - log(1e-5), rel=1e-3)
    assert torch.autograd.grad(loss, tokens)[0].item() == 0


def test_log_sigmoid_and_log1mexp_are_exact_in_both_tails():
    x = np.array([-1000.0, -40.0, 0.0, 40.0])
    np.testing.assert_allclose(
        objectives._log_sigmoid(x), [-1000, -40 - exp(-40), -log(2), -exp(-40)], rtol=1e-15
    )
    x = np.array([-1e-4, -log(2), -1.0, -50.0])
    expected = [log(1e-4) - 0.5e-4, -log(2), log(1 - 1 / e), -exp(-50)]
    np.testing.assert_allclose(objectives._log1mexp(x), expected, rtol=1e-9)


# --- the table


def test_every_objective_is_in_the_table_under_its_own_name():
    functions = {
        name
        for name, function in inspect.getmembers(objectives, inspect.isfunction)
        if function.__module__ == objectives.__name__ and not name.startswith("_")
    }
    assert functions - {"rrhf_candidates"} == set(OBJECTIVES)
    assert all(objective.loss.__name__ == name for name, objective in OBJECTIVES.items())
    assert OBJECTIVES["dpop"].parameters == {
        "beta": 0.3, "lambda_": 50.0, "penalty_placement": "inside_beta",
    }  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_an_objective_needs_is_what_it_says(name):
    objective = OBJECTIVES[name]
    policy = pairs(-13.0, -13.5, 8, 11, tokens=True)
    assert ("reference" in inspect.signature(objective.loss).parameters) == (
        objective.needs_reference
    )
    if objective.needs_reference:
        with pytest.raises(InputError, match=f"{name} compares with a reference, and none"):
            objective(policy)
    else:
        assert objective(policy, policy) == objective(policy)
    sums_only = policy._replace(chosen_tokens=None, rejected_tokens=None)
    if objective.needs_tokens:
        with pytest.raises(InputError, match=r"every rejected token \(rejected_tokens\)"):
            objective(sums_only)
    else:
        assert objective(sums_only, sums_only) == objective(policy, policy)


def test_a_misspelt_parameter_is_named():
    with pytest.raises(InputError, match="dpo has no parameter lamda; it takes beta, label_smoo"):
        OBJECTIVES["dpo"](pairs(-1.0, -1.0, 1, 1), lamda=0.1)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("sft", "form"), ("exmate", "form"), ("rrhf", "sft_form"), ("dpop", "penalty_placement")],
)
def test_a_misspelt_choice_is_refused(name, argument):
    policy = pairs(-1.0, -1.0, 1, 1)
    with pytest.raises(InputError, match=r"form is one of|penalty_placement is one of .*'middle'"):
        OBJECTIVES[name](policy, policy, **{argument: "middle"})
    ones = np.ones((1, 2))
    with pytest.raises(InputError, match="sft_form is one of sum, mean, not 'middle'"):
        rrhf_candidates(ones, ones, ones, sft_form="middle")
