"""Metrics: how the quantities that every item has become one value of a checkpoint.

Each metric is a smooth function of sums over items, or is fitted to them, so that one bootstrap
serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prefbench.objectives import OBJECTIVES
from prefbench.stats.bootstrap import Array, Refit, Statistic
from prefbench.stats.edits import BANDS
from prefbench.stats.winrate import has_both, length_controlled

BEST_OF = "@best_of_"
"""Between a metric's name and a number n: an item's best among n texts."""
Unit = Literal["percent", "nats", "perplexity", "bits", "number"]


@dataclass(frozen=True)
class Metric:
    """A value of a checkpoint on a task.

    Attributes:
        name: its id; our own formulas carry their version, lm-eval's metrics their own names.
        quantities: what is summed over items, or fitted to; `1` counts the items.
        statistic: sums (..., len(quantities)) to values (...), or what is fitted in every draw.
        higher_is_better: None where neither direction is better.
        unit: how it is written.
        proportion: every item counts from 0 to 1. A value at an end, where all items count alike,
            has Wilson's interval: of such items, those that count 0 or 1 vary most, so that it is
            wide enough for others too.
    """

    name: str
    quantities: tuple[str, ...]
    statistic: Statistic | Refit
    higher_is_better: bool | None
    unit: Unit = "number"
    proportion: bool = False

    @property
    def title(self) -> str:
        """The name without its version, with an arrow towards better."""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return self.name.partition(".v")[0] + arrow

    @property
    def exponential(self) -> bool:
        """Whether it is exp of a mean, whose differences are better tested in logarithms."""
        return self.statistic is _exp_ratio


def _ratio(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / sums[..., 1])


def _exp_ratio(sums: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(-sums[..., 0] / sums[..., 1]))


def _bits(sums: Array) -> Array:
    return np.asarray(-sums[..., 0] / sums[..., 1] / math.log(2))


def _agility(sums: Array) -> Array:
    chosen, n_chosen, rejected, n_rejected = np.moveaxis(sums, -1, 0)
    return np.asarray(chosen / n_chosen - rejected / n_rejected)


def _perplexity_gap(sums: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(_exp_ratio(sums[..., 2:]) - _exp_ratio(sums[..., :2]))


def _mean_gap(sums: Array) -> Array:
    return np.asarray((sums[..., 0] - sums[..., 1]) / sums[..., 2])


_CHOSEN = ("sum_logp_chosen", "n_tokens_chosen")
_REJECTED = ("sum_logp_rejected", "n_tokens_rejected")
_BY_ITEM = ("mean_logp_chosen", "mean_logp_rejected", "1")
_BY_TEXT = ("text_logp_chosen", "text_logp_rejected", "1")

PAIR_METRICS: Mapping[str, Metric] = {
    metric.name.partition(".v")[0]: metric
    for metric in (
        # exp of minus the log-prob per token over all chosen texts (methods: corpus perplexity).
        Metric("perplexity.v1", _CHOSEN, _exp_ratio, False, "perplexity"),
        Metric("perplexity_rejected.v1", _REJECTED, _exp_ratio, None, "perplexity"),
        # Cross-entropy of the rejected minus that of the chosen texts, each per token over its own
        # set. The formula is ours: the papers that report agility print none that we could read.
        Metric("agility.v1", (*_CHOSEN, *_REJECTED), _agility, True, "nats"),
        Metric("agility_pair.v1", _BY_ITEM, _mean_gap, True, "nats"),
        Metric("agility_seq.v1", _BY_TEXT, _mean_gap, True, "nats"),
        Metric("agility_ppl_diff.v1", (*_CHOSEN, *_REJECTED), _perplexity_gap, True, "perplexity"),
        Metric("agility_acc.v1", ("preferred", "1"), _ratio, True, "percent", proportion=True),
        # Mean over items of the log-prob per token, then exp: each item counts alike.
        Metric("perplexity_by_item.v1", ("mean_logp_chosen", "1"), _exp_ratio, False, "perplexity"),
        Metric("logp_chosen.v1", ("sum_logp_chosen", "n_texts_chosen"), _ratio, True, "nats"),
        Metric("logp_rejected.v1", ("sum_logp_rejected", "n_texts_rejected"), _ratio, None, "nats"),
        Metric("bits_per_byte.v1", ("sum_logp_chosen", "n_bytes_chosen"), _bits, False, "bits"),
    )
}

_LENGTHS = ("n_chars", "n_chars_opponent")

# Of a judged comparison. An item's quantities are means over its samples and both judge orders.
COMPARISON_METRICS: Mapping[str, Metric] = {
    metric.name.partition(".v")[0]: metric
    for metric in (
        Metric("win_rate.v1", ("win", "1"), _ratio, True, "percent", proportion=True),
        Metric(
            "lc_win_rate.v1",
            ("win", *_LENGTHS),
            Refit(length_controlled, has_both),
            True,
            "percent",
            # All wins are 100 % at any length: as certain as the win rate is, and no more.
            proportion=True,
        ),
        # What follows says how the judge decided and what it read. It has no better side: an
        # undecided judge is not the checkpoint's fault, nor a long answer a bad one.
        Metric("tie_rate.v1", ("tied", "1"), _ratio, None, "percent", proportion=True),
        Metric("split_rate.v1", ("split", "1"), _ratio, None, "percent", proportion=True),
        # Of what was judged in both orders: identical answers never are.
        Metric(
            "position_consistency.v1",
            ("consistent", "compared"),
            _ratio,
            None,
            "percent",
            proportion=True,
        ),
        Metric(
            "first_preferred.v1", ("first", "compared"), _ratio, None, "percent", proportion=True
        ),
        Metric("identical_rate.v1", ("identical", "1"), _ratio, None, "percent", proportion=True),
        Metric("mean_chars.v1", ("n_chars", "1"), _ratio, None),
        Metric("mean_chars_opponent.v1", ("n_chars_opponent", "1"), _ratio, None),
    )
}

# Of a round robin: fitted to all pairs of checkpoints at once (stats/ranking.py).
RANKING_METRICS: Mapping[str, Metric] = {
    "strength": Metric("strength.v1", (), _ratio, True, "nats"),
    "elo": Metric("elo.v1", (), _ratio, True),
}


def _mean(
    name: str,
    better: bool | None = None,
    unit: Unit = "number",
    *,
    per: str = "1",
    quantity: str = "",
) -> Metric:
    """A quantity's sum over the sum of another; over the items themselves by default.

    What is written in percent counts from 0 to 1 in every item.
    """
    share = unit == "percent"
    columns = (quantity or name.partition(".v")[0], per)
    return Metric(name, columns, _ratio, better, unit, proportion=share)


def _by_name(*metrics: Metric) -> Mapping[str, Metric]:
    return {metric.name.partition(".v")[0]: metric for metric in metrics}


_SIDES = (("chosen", True), ("rejected", None))
"""To find the chosen text likelier is better; the rejected one is to be less likely than that."""
_SQUARED = ("ipo_sum", "ipo_mean", "sppo")
"""Objectives that are no nats."""

# Of preference pairs beside a reference (measures/margins.py). Names up to `rewards/accuracies` are
# TRL's, as are their definitions, and carry no version.
MARGIN_METRICS: Mapping[str, Metric] = _by_name(
    _mean("rewards/accuracies", True, "percent"),
    _mean("rewards/margins", True, "nats"),
    *(_mean(f"rewards/{side}", better, "nats") for side, better in _SIDES),
    *(_mean(f"logps/{side}", better, "nats") for side, better in _SIDES),
    *(_mean(f"delta_{side}.v1", better, "nats") for side, better in _SIDES),
    *(_mean(f"delta_{side}_per_token.v1", better, "nats") for side, better in _SIDES),
    _mean("displaced.v1", False, "percent"),
    _mean("ideal.v1", True, "percent"),
    _mean("both_down.v1", None, "percent"),
    _mean("both_up.v1", None, "percent"),
    _mean("inverted.v1", False, "percent"),
    _mean("unmoved.v1", None, "percent"),
    _mean("ranking_accuracy.v1", True, "percent"),
    _mean("ranking_accuracy_per_token.v1", True, "percent"),
    _mean("ranking_ties.v1", None, "percent"),
    _mean("edit_distance.v1"),
    # Of the pairs of a band: sums over its pairs over how many they are.
    *(_mean(f"in@{band}.v1", None, "percent") for band in BANDS),
    *(_mean(f"displaced@{band}.v1", False, "percent", per=f"in@{band}") for band in BANDS),
    *(
        _mean(f"delta_{side}@{band}.v1", better, "nats", per=f"in@{band}")
        for side, better in _SIDES
        for band in BANDS
    ),
    # Per token: a sum over the part's tokens over how many they are.
    *(
        _mean(f"{kind}{side}_{part}.v1", better, "nats", per=f"n_{side}_{part}")
        for kind in ("", "delta_")
        for side, better in _SIDES
        for part in ("before", "at", "after")
    ),
    # Of the reference: what it says to whoever tunes it.
    _mean("ches.v1"),
    _mean("ches_per_token.v1"),
    *(
        _mean(f"loss/{name}.v1", False, "number" if name in _SQUARED else "nats")
        for name in OBJECTIVES
    ),
)

ALIGNED_STEPS = range(1, 9)
"""Tokens from the start of both texts at which their distributions are compared."""
_AT_STEPS = (
    "probability_difference_l1",
    "probability_difference_l2",
    "gradient_difference_l1",
    "gradient_difference_l2",
    "information_difference",
)

# Of gradients of pairs' log-probs (measures/gradients.py). They say what a further step would do,
# or how well that is predicted, which makes no checkpoint better than another.
GRADIENT_METRICS: Mapping[str, Metric] = _by_name(
    *(_mean(f"{name}.v1") for name in ("cosine", "entanglement", "inner")),
    *(_mean(f"norm_{side}.v1") for side, _ in _SIDES),
    _mean("edit_distance.v1"),
    *(_mean(f"in@{band}.v1", None, "percent") for band in BANDS),
    *(
        _mean(f"{name}@{band}.v1", per=f"in@{band}")
        for name in ("cosine", "entanglement")
        for band in BANDS
    ),
    *(
        _mean(f"{condition}/{name}.v1", None, "percent")
        for name in OBJECTIVES
        for condition in ("chosen_rises", "rejected_falls")
    ),
    *(_mean(f"predicted_{side}.v1", None, "nats") for side, _ in _SIDES),
    *(
        _mean(f"observed_{side}{step}.v1", None, "nats")
        for step in ("", "_adamw")
        for side, _ in _SIDES
    ),
    *(
        _mean(f"{side}_agrees{step}.v1", None, "percent")
        for step in ("", "_adamw")
        for side, _ in _SIDES
    ),
    *(_mean(f"same_target@{t}.v1", None, "percent") for t in ALIGNED_STEPS),
    *(
        _mean(f"{name}{model}@{t}.v1")
        for name in _AT_STEPS
        for model in ("", "_random")
        for t in ALIGNED_STEPS
    ),
    _mean("domain_inner.v1"),
    _mean("domain_cosine.v1"),
)

# How texts repeat themselves (stats/diversity.py), and what a reward model gives for them.
_TEXT_METRICS: Mapping[str, Metric] = _by_name(
    _mean("reward.v1", True),
    _mean("reward_opponent.v1"),
    _mean("distinct_1.v1", None, "percent"),
    _mean("distinct_2.v1", None, "percent"),
    _mean("seq_rep_4.v1", False, "percent"),
)

# Of a checkpoint's own samples (measures/divergence.py). To be near the reference is no merit.
DIVERGENCE_METRICS: Mapping[str, Metric] = {
    **_by_name(
        _mean("kl.v1", None, "nats"),
        _mean("kl_per_token.v1", None, "nats", quantity="kl", per="n_tokens"),
        _mean("n_tokens.v1"),
        _mean("n_chars.v1"),
    ),
    **_TEXT_METRICS,
}

# Of a prompt's ranked candidates (measures/ranking.py).
CANDIDATE_METRICS: Mapping[str, Metric] = _by_name(
    _mean("kendall_tau.v1", True),
    _mean("best_first.v1", True, "percent"),
    _mean("n_candidates.v1"),
)

_FAMILIES: Mapping[str, Mapping[str, Metric]] = {
    "sum_logp_chosen": {**PAIR_METRICS, **MARGIN_METRICS},
    "win": {**COMPARISON_METRICS, **_TEXT_METRICS},
    "norm_chosen": GRADIENT_METRICS,
    "kl": DIVERGENCE_METRICS,
    "best_first": CANDIDATE_METRICS,
}
"""The metrics that go with a quantity: where a task has it, its quantities are of that kind."""

_WEIGHTED: Mapping[str, tuple[Callable[[Array], Array], Unit]] = {
    "word_perplexity": (_exp_ratio, "perplexity"),
    "byte_perplexity": (_exp_ratio, "perplexity"),
    "bits_per_byte": (_bits, "bits"),
}
_SHARES = ("acc", "acc_norm", "acc_bytes", "exact_match", "cut", "unfinished")


def metrics_of(
    quantities: Collection[str], higher_is_better: Mapping[str, bool]
) -> dict[str, Metric]:
    """The metrics that a task's quantities give, by the name that a recipe uses.

    Args:
        quantities: names of the columns that the items have.
        higher_is_better: lm-eval's direction of its own metrics.
    """
    for sign, ours in _FAMILIES.items():
        if sign in quantities:
            cut = {"cut", "unfinished"} & set(quantities)
            return {**_given(ours, quantities), **_means(cut, {})}
    weighted = {name[: -len(".value")] for name in quantities if name.endswith(".value")}
    metrics = _means(
        {q for q in quantities if not q.endswith((".value", ".weight"))}, higher_is_better
    )
    for name in sorted(weighted):
        kind = name.partition(",")[0]
        statistic, unit = _WEIGHTED.get(kind, (_ratio, "number"))
        columns = (f"{name}.value", f"{name}.weight")
        metrics[name] = Metric(name, columns, statistic, higher_is_better.get(kind), unit)
    return metrics


def metric_named(name: str, higher_is_better: Mapping[str, bool] | None = None) -> Metric:
    """The metric that a recipe's name stands for, where there are no items that would tell.

    Args:
        name: of the metric.
        higher_is_better: lm-eval's direction of its own metrics; None is up.
    """
    for ours in _FAMILIES.values():
        if name in ours:
            return ours[name]
    if name in _WEIGHTED:
        return metrics_of([f"{name}.value", f"{name}.weight"], {name: False})[name]
    if higher_is_better is None:
        higher_is_better = {name.partition(",")[0].partition(BEST_OF)[0]: True}
    return metrics_of([name], higher_is_better)[name]


def _given(metrics: Mapping[str, Metric], quantities: Collection[str]) -> dict[str, Metric]:
    """Those of the metrics whose quantities are there."""
    there = {*quantities, "1"}
    return {name: metric for name, metric in metrics.items() if there.issuperset(metric.quantities)}


def _means(names: Collection[str], higher_is_better: Mapping[str, bool]) -> dict[str, Metric]:
    metrics = {}
    for name in sorted(names):
        kind = name.partition(",")[0].partition(BEST_OF)[0]
        share = kind in _SHARES
        better = False if kind in ("cut", "unfinished") else higher_is_better.get(kind)
        unit: Unit = "percent" if share else "number"
        metrics[name] = Metric(name, (name, "1"), _ratio, better, unit, proportion=share)
    return metrics
