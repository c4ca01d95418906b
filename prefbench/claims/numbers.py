"""The numbers that claims are about: metrics of a checkpoint on a task, and on which items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from prefbench.claims.correlation import advantage, rank_correlation
from prefbench.leaderboard import Measured
from prefbench.metrics import Metric, metric_named
from prefbench.stats.bootstrap import Array, Refit

MARGINS, GRADIENTS = "`measure: margins`", "`measure: gradients`"
DIVERGENCE, RANKING = "`measure: divergence`", "`measure: ranking`"
PAIRS, COMPARISON = "preference pairs", "`measure: comparison`"


@dataclass(frozen=True)
class Number:
    """A metric of one checkpoint on one task.

    Attributes:
        metric: how it is made from the items' quantities.
        words: what it is, to be followed by a verb.
        needs: what kind of task has it.
        bands: indicators, of which an item must have one above 0 to be counted; of each there must
            be enough items. None: all items.
    """

    metric: Metric
    words: str
    needs: str
    bands: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.metric.name.partition(".v")[0]

    @property
    def quantities(self) -> set[str]:
        """All that an item must have."""
        return {*self.metric.quantities, *self.bands} - {"1"}

    def is_in(self, one: Measured) -> bool:
        """Whether a checkpoint has what it is made of."""
        return self.quantities <= one.quantities.keys()


def _mean(name: str, words: str, needs: str, *bands: str) -> Number:
    """A metric of the table, on the items of some bands."""
    return Number(metric_named(name), words, needs, tuple(f"in@{band}" for band in bands))


def contrast(name: str, first: Metric, second: Metric) -> Metric:
    """One metric minus another of the same checkpoint, in every resample."""
    n = len(first.quantities)
    left, right = first.statistic, second.statistic
    assert not isinstance(left, Refit)
    assert not isinstance(right, Refit)

    def statistic(sums: Array) -> Array:
        return np.asarray(left(sums[..., :n]) - right(sums[..., n:]))

    return Metric(name, (*first.quantities, *second.quantities), statistic, None, first.unit)


def _mean_of(name: str, quantities: tuple[str, ...]) -> Metric:
    """The mean over items and over some quantities that each item has."""
    n = len(quantities)

    def statistic(sums: Array) -> Array:
        return np.asarray(sums[..., :n].sum(axis=-1) / (n * sums[..., n]))

    return Metric(name, (*quantities, "1"), statistic, None)


def right_answers(quantity: str) -> Number:
    """The share of items that are right by one of lm-eval's measures."""
    words = "the share of right answers"
    return Number(metric_named(quantity), words, f"generated answers ({quantity})")


RIGHT = right_answers("exact_match,strict-match")

_LOW, _HIGH = "low_edit", "high_edit"
DISPLACED_LOW = _mean(
    f"displaced@{_LOW}", "the share of low-edit-distance pairs whose chosen answer fell", MARGINS,
    _LOW,
)  # fmt: skip
DELTA_LOW = _mean(
    f"delta_chosen@{_LOW}", "the mean change of the chosen log-prob on low-edit-distance pairs",
    MARGINS, _LOW,
)  # fmt: skip
DISPLACED = _mean("displaced", "the share of pairs whose chosen answer fell", MARGINS)
DELTA_CHOSEN = _mean("delta_chosen", "the mean change of the chosen log-prob", MARGINS)
BOTH_DOWN = _mean("both_down", "the share of pairs of which both answers fell", MARGINS)
AFTER_LOW = _mean(
    "delta_chosen_after",
    "the change of the chosen log-prob per token after the first differing one, on "
    "low-edit-distance pairs,",
    MARGINS,
    _LOW,
)
ACCURACY = _mean("rewards/accuracies", "the share of pairs that the implicit reward ranks right",
                 MARGINS)  # fmt: skip
MARGIN = _mean("rewards/margins", "the mean implicit-reward margin", MARGINS)
RANKED_RIGHT = _mean("ranking_accuracy", "the share of pairs that the log-probs rank right",
                     MARGINS)  # fmt: skip
BELOW_REWARD = Number(
    contrast("ranking_accuracy − rewards/accuracies", RANKED_RIGHT.metric, ACCURACY.metric),
    "ranking accuracy minus implicit-reward accuracy",
    MARGINS,
)
CHES = Number(
    Metric("ρ(ches, −delta_chosen)", ("ches", "minus_delta_chosen"), Refit(rank_correlation), None),
    "the rank correlation of the CHES score with the fall of the chosen log-prob",
    MARGINS,
)
CHES_ADVANTAGE = Number(
    Metric(
        "ρ(ches, −delta_chosen) − ρ(−edit_distance, −delta_chosen)",
        ("ches", "minus_edit_distance", "minus_delta_chosen"),
        Refit(advantage),
        None,
    ),
    "the CHES score's rank correlation with the fall minus that of low edit distance",
    MARGINS,
)

PERPLEXITY = Number(metric_named("perplexity"), "perplexity", PAIRS)
AGILITY = Number(metric_named("agility"), "agility", PAIRS)
WIN_RATE = Number(metric_named("win_rate"), "the win rate", COMPARISON)

COSINE = _mean("cosine", "the mean gradient cosine", GRADIENTS)
DISTANCE = _mean("edit_distance", "the mean edit distance", GRADIENTS)
COSINE_LOW = _mean(f"cosine@{_LOW}", "the cosine at low edit distance", GRADIENTS, _LOW)
COSINE_HIGH = _mean(f"cosine@{_HIGH}", "the cosine at high edit distance", GRADIENTS, _HIGH)
COSINE_GAP = Number(
    contrast(f"cosine@{_LOW} − cosine@{_HIGH}", COSINE_LOW.metric, COSINE_HIGH.metric),
    "the gradient cosine of pairs of low edit distance minus that of high",
    GRADIENTS,
    (f"in@{_LOW}", f"in@{_HIGH}"),
)


def agrees(text: str, optimiser: str = "") -> Number:
    """The share of pairs of which one text moved as the first order predicts."""
    words = f"the share of pairs whose {text} answer moved as predicted"
    return _mean(f"{text}_agrees" + (f"_{optimiser}" if optimiser else ""), words, GRADIENTS)


def _over(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / sums[..., 1])


BOTH_FALL_PREDICTED = Number(
    Metric("both_fall/dpo", ("both_fall/dpo", "1"), _over, None, "percent", proportion=True),
    "the share of pairs of which both answers are predicted to fall",
    GRADIENTS,
)
_STEP = "probability_difference_l2"
"""‖P⁺ − P⁻‖₂ at an aligned step, which 2408.16751 takes for the gradient difference."""
FIRST_SMALLEST = Number(
    contrast(
        "‖P⁺−P⁻‖₂: step 1 − mean of steps 2 and 3",
        metric_named(f"{_STEP}@1"),
        _mean_of("later", tuple(f"{_STEP}@{t}" for t in (2, 3))),
    ),
    "the gradient difference at step 1 minus that at steps 2 and 3",
    GRADIENTS,
)
OVER_RANDOM = Number(
    contrast(
        "‖P⁺−P⁻‖₂ at steps 1 to 3: random − trained",
        _mean_of("random", tuple(f"{_STEP}_random@{t}" for t in (1, 2, 3))),
        _mean_of("own", tuple(f"{_STEP}@{t}" for t in (1, 2, 3))),
    ),
    "the gradient difference of a randomly initialised model minus that of this one",
    GRADIENTS,
)
INFORMATION = Number(
    _mean_of(
        "information_difference, steps 1 to 3",
        tuple(f"information_difference@{t}" for t in (1, 2, 3)),
    ),
    "the information difference at steps 1 to 3",
    GRADIENTS,
)

KENDALL = _mean("kendall_tau", "Kendall's τ of log-probs and rewards", RANKING)
BEST_FIRST = _mean("best_first", "the share of prompts whose best candidate ranks first", RANKING)
REPETITION = _mean("seq_rep_4", "the share of repeated 4-grams", DIVERGENCE)
KL = _mean("kl", "the KL from what it was tuned from", DIVERGENCE)


def with_derived(one: Measured) -> Measured:
    """What was measured, with quantities that are functions of others, item by item."""
    given: Mapping[str, Array] = one.quantities
    more = {
        f"minus_{name}": -given[name] for name in ("delta_chosen", "edit_distance") if name in given
    }
    if {"chosen_rises/dpo", "rejected_falls/dpo"} <= given.keys():
        more["both_fall/dpo"] = (1 - given["chosen_rises/dpo"]) * given["rejected_falls/dpo"]
    elif {"inner", "norm_chosen", "norm_rejected"} <= given.keys():
        # DPO weighs both gradients alike: its condition needs no reference (2410.13828, case 2).
        inner, squares = given["inner"], [given[f"norm_{t}"] ** 2 for t in ("chosen", "rejected")]
        fall = ((inner > squares[0]) & (inner < squares[1])).astype(float)
        more["both_fall/dpo"] = np.where(np.isnan(inner), np.nan, fall)
    return replace(one, quantities={**given, **more}) if more else one
