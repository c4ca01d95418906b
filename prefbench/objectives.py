"""Objectives: log-probs of pairs under policy and reference → loss per pair.

Every function works on numpy arrays and torch tensors alike and keeps the dtype it is given.
`policy` and `reference` are PairLogps; losses are in nats unless squared, `(n_pairs,)`, and are
minimised. Signs and defaults follow the paper named as source; where code in circulation differs,
the docstring says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from math import log, log1p
from typing import Any, Literal, NamedTuple, TypeAlias

from array_api_compat import array_namespace, device

from prefbench.errors import InputError

Array: TypeAlias = Any
"""A numpy array or torch tensor; the array API has no type of its own."""

SMALLEST_COMPLEMENT = 1e-5
"""1 − p is never taken smaller than this; there the gradient is zero."""


class PairLogps(NamedTuple):
    """Log-probs of pairs under one checkpoint, in nats, float32 or wider.

    Sums and token counts (at least 1) are `(n_pairs,)`, per-token log-probs `(n_pairs, longest)`;
    what stands at or beyond a row's count is ignored.
    """

    chosen: Array
    rejected: Array
    n_chosen: Array
    n_rejected: Array
    chosen_tokens: Array | None = None
    rejected_tokens: Array | None = None


# --- without a reference


def sft(policy: PairLogps, *, form: Literal["sum", "mean"] = "sum") -> Array:
    """Negative log-likelihood of the chosen response, summed or per token.

    Source: "Preferred-FT" of Rafailov et al. 2023, arxiv.org/abs/2305.18290, is the sum.
    """
    _check("form", form, "sum", "mean")
    return -policy.chosen if form == "sum" else -_chosen_mean(policy)


def unlikelihood(policy: PairLogps, *, alpha: float = 1.0) -> Array:
    """Mean over chosen tokens of −log p, plus alpha × mean over rejected tokens of −log(1 − p).

    1 − p is clamped at 1e-5, as in the released code: a rejected token more certain than that
    adds a constant and no gradient.

    Source: Welleck et al. 2019, arxiv.org/abs/1908.04319, with the rejected response's
    tokens as the negative candidates.
    """
    return -_chosen_mean(policy) - alpha * _mean_rejected_token(policy, _log1mexp)


def unlikelihood_sequence(policy: PairLogps, *, alpha: float = 1.0) -> Array:
    """−log P(chosen) − alpha × log(1 − P(rejected)), P of whole responses.

    Inert on text: P of a response is about e⁻¹⁰⁰, and the loss is that of `sft`. 1 − P is clamped
    as in `unlikelihood`.
    """
    return -policy.chosen - alpha * _log1mexp(policy.rejected)


def exmate(
    policy: PairLogps, *, lambda_: float = 0.05, form: Literal["mean", "sequence"] = "mean"
) -> Array:
    """Log-likelihood up on the chosen response, probability down on the rejected one.

    The mean form is −c̄ + lambda_ × exp(r̄) over token means c̄, r̄. The sequence form,
    −c + lambda_ × exp(r) over sums, is inert on long text: exp(−100) is nothing, and the loss is
    that of `sft`.

    Source: Tuan et al. 2022, arxiv.org/abs/2212.10515, in its released code, where the means run
    over a batch; here over each response, so that a pair's loss does not depend on its batch.
    """
    _check("form", form, "mean", "sequence")
    xp = array_namespace(policy.chosen)
    if form == "sequence":
        return -policy.chosen + lambda_ * xp.exp(policy.rejected)
    return -_chosen_mean(policy) + lambda_ * xp.exp(_rejected_mean(policy))


def exmate_token(policy: PairLogps, *, lambda_: float = 0.05) -> Array:
    """Mean over chosen tokens of −log p, plus lambda_ × mean over rejected tokens of p.

    Ours: `exmate` taken at each token, so that one unlikely token does not silence the others.
    """
    xp = array_namespace(policy.chosen)
    return -_chosen_mean(policy) + lambda_ * _mean_rejected_token(policy, xp.exp)


def slic_hf(policy: PairLogps, *, delta: float = 1.0, lambda_: float = 0.5) -> Array:
    """Hinge on sequence log-probs with margin delta, minus lambda_ × log P(chosen).

    The paper's regulariser takes an SFT target or the best candidate; here it is the chosen
    response. Our lambda_: the paper's value could not be verified.

    Source: Zhao et al. 2023, eq. 4, arxiv.org/abs/2305.10425.
    """
    return _relu(delta - policy.chosen + policy.rejected) - lambda_ * policy.chosen


def rrhf(
    policy: PairLogps, *, weight: float = 1.0, sft_form: Literal["sum", "mean"] = "sum"
) -> Array:
    """Weight × hinge without margin on token means, plus `sft` of the chosen response.

    The released code takes weight 100 and the mean form of `sft`.

    Source: Yuan et al. 2023, arxiv.org/abs/2304.05302, for two candidates.
    """
    ranking = _relu(_rejected_mean(policy) - _chosen_mean(policy))
    return weight * ranking + sft(policy, form=sft_form)


def rrhf_candidates(
    logps: Array,
    n_tokens: Array,
    rewards: Array,
    *,
    weight: float = 1.0,
    sft_form: Literal["sum", "mean"] = "sum",
) -> Array:
    """RRHF over any number of ranked candidates: `rrhf` is its case of two.

    Args:
        logps: summed log-probs of the candidates, in nats, (n_items, n_candidates).
        n_tokens: their token counts, at least 1, (n_items, n_candidates).
        rewards: their rewards, higher better, (n_items, n_candidates); candidates with equal
            rewards are not compared, and of several best the first is learnt.
        weight: of the ranking term.
        sft_form: whether the best candidate's log-likelihood is a sum or a mean over tokens.

    Returns:
        Loss in nats, (n_items,).

    Source: Yuan et al. 2023, arxiv.org/abs/2304.05302.
    """
    _check("sft_form", sft_form, "sum", "mean")
    xp = array_namespace(logps)
    means = _token_mean(logps, n_tokens)
    worse = rewards[:, :, None] < rewards[:, None, :]
    excess = _relu(means[:, :, None] - means[:, None, :])
    ranking = xp.sum(xp.where(worse, excess, xp.zeros_like(excess)), axis=(1, 2))
    target = logps if sft_form == "sum" else means
    positions = xp.arange(logps.shape[1], device=device(logps))
    best = positions[None, :] == xp.argmax(rewards, axis=1)[:, None]
    return weight * ranking - xp.sum(xp.where(best, target, xp.zeros_like(target)), axis=1)


def simpo(policy: PairLogps, *, beta: float = 2.0, gamma: float = 1.0) -> Array:
    """−log σ(beta × difference of token means − gamma); papers also quote gamma / beta.

    Source: Meng et al. 2024, eq. 6, arxiv.org/abs/2405.14734.
    """
    return -_log_sigmoid(beta * (_chosen_mean(policy) - _rejected_mean(policy)) - gamma)


def orpo(policy: PairLogps, *, lambda_: float = 0.1) -> Array:
    """`sft` per token, minus lambda_ × log σ of the log odds ratio, P = exp(token mean).

    1 − P is clamped at 1e-5. TRL calls lambda_ beta and takes the first term over prompt and
    response; here it is the response alone.

    Source: Hong et al. 2024, eqs. 6-7, arxiv.org/abs/2403.07691.
    """
    chosen, rejected = _chosen_mean(policy), _rejected_mean(policy)
    log_odds_ratio = (chosen - _log1mexp(chosen)) - (rejected - _log1mexp(rejected))
    return -chosen - lambda_ * _log_sigmoid(log_odds_ratio)


# --- with a reference


def dpo(
    policy: PairLogps, reference: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.0
) -> Array:
    """Loss of a pair: how surprised the implicit reward is by the preference.

    Args:
        policy: log-probabilities of the checkpoint, in nats, each (n_pairs,).
        reference: the same pairs under the reference, each (n_pairs,).
        beta: strength of the pull towards the reference, above 0.
        label_smoothing: share of preferences taken to be flipped ("conservative DPO"), 0 to 0.5.

    Returns:
        Loss in nats, (n_pairs,); ln 2 where policy and reference agree.

    Source: Rafailov et al. 2023, eq. 7, arxiv.org/abs/2305.18290.
    """
    reward_margin = beta * _margin(policy, reference)
    loss = -(1 - label_smoothing) * _log_sigmoid(reward_margin)
    return loss - label_smoothing * _log_sigmoid(-reward_margin)


def dpop(
    policy: PairLogps,
    reference: PairLogps,
    *,
    beta: float = 0.3,
    lambda_: float = 50.0,
    penalty_placement: Literal["inside_beta", "inside_sigmoid", "outside"] = "inside_beta",
) -> Array:
    """DPO with a penalty where the chosen response has become less likely than under the reference.

    Three placements circulate: −log σ(beta × (h − penalty)), −log σ(beta × h − penalty) and
    −log σ(beta × h) + penalty, with penalty = lambda_ × max(0, −ρ) for the chosen log-ratio ρ.

    Source: Pal et al. 2024, eq. 3 of version 2 (inside_beta), arxiv.org/abs/2402.13228.
    """
    _check("penalty_placement", penalty_placement, "inside_beta", "inside_sigmoid", "outside")
    margin = _margin(policy, reference)
    penalty = lambda_ * _relu(reference.chosen - policy.chosen)
    if penalty_placement == "inside_beta":
        return -_log_sigmoid(beta * (margin - penalty))
    if penalty_placement == "inside_sigmoid":
        return -_log_sigmoid(beta * margin - penalty)
    return -_log_sigmoid(beta * margin) + penalty


def ipo_sum(policy: PairLogps, reference: PairLogps, *, tau: float = 0.1) -> Array:
    """Squared distance of the margin from 1 / (2 tau), in nats²; log-ratios are sums.

    Source: Azar et al. 2023, eq. 17, arxiv.org/abs/2310.12036.
    """
    return (_margin(policy, reference) - 1 / (2 * tau)) ** 2


def ipo_mean(policy: PairLogps, reference: PairLogps, *, tau: float = 0.1) -> Array:
    """`ipo_sum` with each log-ratio divided by its token count: TRL's `ipo`, whose beta is tau.

    A tau means different strengths in the two: compare like with like.
    """
    chosen = _token_mean(policy.chosen - reference.chosen, policy.n_chosen)
    rejected = _token_mean(policy.rejected - reference.rejected, policy.n_rejected)
    return (chosen - rejected - 1 / (2 * tau)) ** 2


def hinge(policy: PairLogps, reference: PairLogps, *, gamma: float = 0.1) -> Array:
    """max(0, 1 − gamma × margin); often called SLiC, and TRL's `hinge`, whose beta is gamma.

    Source: "hinge-norm" of Liu et al. 2023 (RSO), arxiv.org/abs/2309.06657.
    """
    return _relu(1 - gamma * _margin(policy, reference))


def sppo(policy: PairLogps, reference: PairLogps, *, beta: float = 1e-3) -> Array:
    """Squares of chosen log-ratio − 1 / (2 beta) and rejected log-ratio + 1 / (2 beta), added.

    Hard labels, as TRL's `sppo_hard`; other code averages the two squares.

    Source: Wu et al. 2024, eq. 4.7, arxiv.org/abs/2405.00675.
    """
    target = 1 / (2 * beta)
    chosen = policy.chosen - reference.chosen - target
    rejected = policy.rejected - reference.rejected + target
    return chosen**2 + rejected**2


def dpo_nll(
    policy: PairLogps, reference: PairLogps, *, beta: float = 0.1, alpha: float = 1.0
) -> Array:
    """`dpo` plus alpha × `sft` per token.

    Source: Pang et al. 2024 (iterative RPO), eq. 1, arxiv.org/abs/2404.19733.
    """
    return dpo(policy, reference, beta=beta) - alpha * _chosen_mean(policy)


def dpo_exmate(
    policy: PairLogps,
    reference: PairLogps,
    *,
    beta: float = 0.1,
    kappa: float = 1.0,
    lambda_: float = 0.05,
) -> Array:
    """`dpo` plus kappa × `exmate`, in one step.

    Ours. Tuan & Wang 2024, arxiv.org/abs/2408.16751, may mean two stages instead: ExMATE, then
    DPO with that checkpoint as reference.
    """
    return dpo(policy, reference, beta=beta) + kappa * exmate(policy, lambda_=lambda_)


# --- the table


@dataclass(frozen=True)
class Objective:
    """A loss and what it must be given."""

    name: str
    loss: Callable[..., Array]
    needs_reference: bool = False
    needs_tokens: bool = False
    """It reads the policy's `rejected_tokens`."""

    def __call__(
        self, policy: PairLogps, reference: PairLogps | None = None, **parameters: Any
    ) -> Array:
        """Loss per pair; a reference that is not needed is not looked at.

        Raises:
            InputError: for a missing reference, missing token log-probs or an unknown parameter.
        """
        if unknown := sorted(parameters.keys() - self.parameters):
            raise InputError(
                f"objective {self.name} has no parameter {', '.join(unknown)}; "
                f"it takes {', '.join(self.parameters)}"
            )
        if not self.needs_reference:
            return self.loss(policy, **parameters)
        if reference is None:
            raise InputError(
                f"objective {self.name} compares with a reference, and none is given; "
                "name the checkpoint the policy was tuned from"
            )
        return self.loss(policy, reference, **parameters)

    @property
    def parameters(self) -> dict[str, Any]:
        """Names of its parameters and their defaults."""
        arguments = inspect.signature(self.loss).parameters.values()
        return {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY}


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("sft", sft),
        Objective("unlikelihood", unlikelihood, needs_tokens=True),
        Objective("unlikelihood_sequence", unlikelihood_sequence),
        Objective("exmate", exmate),
        Objective("exmate_token", exmate_token, needs_tokens=True),
        Objective("slic_hf", slic_hf),
        Objective("rrhf", rrhf),
        Objective("simpo", simpo),
        Objective("orpo", orpo),
        Objective("dpo", dpo, needs_reference=True),
        Objective("dpop", dpop, needs_reference=True),
        Objective("ipo_sum", ipo_sum, needs_reference=True),
        Objective("ipo_mean", ipo_mean, needs_reference=True),
        Objective("hinge", hinge, needs_reference=True),
        Objective("sppo", sppo, needs_reference=True),
        Objective("dpo_nll", dpo_nll, needs_reference=True),
        Objective("dpo_exmate", dpo_exmate, needs_reference=True),
    )
}


OBJECTIVE_OF: dict[str, str] = {
    "base": "sft",
    "sft": "sft",
    "unlikelihood": "unlikelihood",
    "exmate": "exmate",
    "exmate_token": "exmate_token",
    "dpo": "dpo",
    "dpop": "dpop",
    "ipo": "ipo_sum",
    "slic": "slic_hf",
    "hinge": "hinge",
    "rrhf": "rrhf",
    "spin": "dpo",
    "dpo_exmate": "dpo",
    "dpo_nll": "dpo_nll",
    "simpo": "simpo",
    "orpo": "orpo",
    "sppo": "sppo",
}
"""What each method minimises on pairs, at its defaults; DPO+ExMATE in its second stage."""


# --- the checks and the arithmetic they share


def _check(argument: str, value: str, *choices: str) -> None:
    if value not in choices:
        raise InputError(f"{argument} is one of {', '.join(choices)}, not {value!r}")


def _margin(policy: PairLogps, reference: PairLogps) -> Array:
    """Chosen log-ratio minus rejected log-ratio, in nats, (n_pairs,)."""
    return (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)


def _chosen_mean(policy: PairLogps) -> Array:
    return _token_mean(policy.chosen, policy.n_chosen)


def _rejected_mean(policy: PairLogps) -> Array:
    return _token_mean(policy.rejected, policy.n_rejected)


def _token_mean(logps: Array, n_tokens: Array) -> Array:
    # Cast first: numpy would turn float32 / int64 into float64.
    return logps / array_namespace(logps).astype(n_tokens, logps.dtype)


def _mean_rejected_token(policy: PairLogps, function: Callable[[Array], Array]) -> Array:
    """Mean of function(log-prob) over each rejected response's tokens, (n_pairs,)."""
    tokens = policy.rejected_tokens
    if tokens is None:
        raise InputError(
            "this objective needs the log-prob of every rejected token (rejected_tokens), and only "
            "sums are here; ask the engine for token log-probs or choose an objective over sums"
        )
    xp = array_namespace(tokens)
    positions = xp.arange(tokens.shape[1], device=device(tokens))
    counted = positions[None, :] < policy.n_rejected[:, None]
    # Padding is replaced before the function, too: a NaN's gradient survives a later mask.
    values = function(xp.where(counted, tokens, xp.full_like(tokens, -1.0)))
    total = xp.sum(xp.where(counted, values, xp.zeros_like(values)), axis=1)
    return _token_mean(total, policy.n_rejected)


def _relu(x: Array) -> Array:
    """max(0, x), with gradient 0 at 0: there policy and reference agree, and nothing is owed."""
    xp = array_namespace(x)
    return xp.where(x > 0, x, xp.zeros_like(x))


def _log_sigmoid(x: Array) -> Array:
    xp = array_namespace(x)
    return -xp.logaddexp(xp.zeros_like(x), -x)


def _log1mexp(x: Array) -> Array:
    """log(1 − exp(x)) for x ≤ 0, with 1 − exp(x) clamped at SMALLEST_COMPLEMENT.

    Source: Maechler 2012, "Accurately computing log(1 − exp(−|a|))", eq. 7.
    """
    xp = array_namespace(x)
    largest = log1p(-SMALLEST_COMPLEMENT)
    x = xp.where(x < largest, x, xp.full_like(x, largest))
    return xp.where(x > -log(2), xp.log(-xp.expm1(x)), xp.log1p(-xp.exp(x)))
