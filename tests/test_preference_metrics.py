"""Metrics of what tuning did: every name has one, in closed form, with its direction and unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefbench.measures.margins import PairAnswers, margins_of
from prefbench.metrics import (
    CANDIDATE_METRICS,
    COMPARISON_METRICS,
    DIVERGENCE_METRICS,
    GRADIENT_METRICS,
    MARGIN_METRICS,
    PAIR_METRICS,
    RANKING_METRICS,
    metric_named,
    metrics_of,
)
from prefbench.objectives import OBJECTIVES
from prefbench.records import Answer
from prefbench.stats.bootstrap import Resampling
from prefbench.stats.estimates import estimate

BANDS = ("low_edit", "mid_edit", "high_edit")
SIDES, PARTS = ("chosen", "rejected"), ("before", "at", "after")
TRL = (
    "logps/chosen",
    "logps/rejected",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
)
MARGINS = [
    *TRL,
    *("delta_chosen", "delta_rejected", "delta_chosen_per_token", "delta_rejected_per_token"),
    *("displaced", "ideal", "both_down", "both_up", "inverted", "unmoved"),
    *("ranking_accuracy", "ranking_accuracy_per_token", "ranking_ties", "edit_distance"),
    *(f"{name}@{band}" for name in ("in", "displaced", "delta_chosen") for band in BANDS),
    *(f"delta_rejected@{band}" for band in BANDS),
    *(f"{kind}{side}_{part}" for kind in ("", "delta_") for side in SIDES for part in PARTS),
    *("ches", "ches_per_token"),
    *(f"loss/{objective}" for objective in OBJECTIVES),
]
AT_STEPS = (
    *("probability_difference_l1", "probability_difference_l2"),
    *("gradient_difference_l1", "gradient_difference_l2", "information_difference"),
)
GRADIENTS = [
    *("norm_chosen", "norm_rejected", "inner", "cosine", "entanglement", "edit_distance"),
    *(f"{name}@{band}" for name in ("in", "cosine", "entanglement") for band in BANDS),
    *(f"chosen_rises/{objective}" for objective in OBJECTIVES),
    *(f"rejected_falls/{objective}" for objective in OBJECTIVES),
    *("predicted_chosen", "predicted_rejected"),
    *(f"observed_{side}{how}" for side in SIDES for how in ("", "_adamw")),
    *(f"{side}_agrees{how}" for side in SIDES for how in ("", "_adamw")),
    *(f"{name}{model}@{t}" for name in AT_STEPS for model in ("", "_random") for t in range(1, 9)),
    *(f"same_target@{t}" for t in range(1, 9)),
    *("domain_inner", "domain_cosine"),
]
DIVERGENCE = [
    *("kl", "kl_per_token", "n_tokens", "n_chars"),
    *("distinct_1", "distinct_2", "seq_rep_4"),
]
CANDIDATES = ["kendall_tau", "best_first", "n_candidates"]
# A kind of task with a name that its items always have.
KINDS = {
    "margins": (["sum_logp_chosen", *MARGINS], MARGINS),
    "gradients": (GRADIENTS, GRADIENTS),
    "divergence": (DIVERGENCE, DIVERGENCE),
    "ranking": (CANDIDATES, CANDIDATES),
    "comparison": (
        ["win", *DIVERGENCE[-3:], "reward", "reward_opponent"],
        ["win_rate", *DIVERGENCE[-3:], "reward", "reward_opponent"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_quantity_has_its_metric(kind):
    quantities, names = KINDS[kind]
    counts = [f"n_{side}_{part}" for side in SIDES for part in PARTS]
    found = metrics_of([*quantities, *counts, "cut"], {})
    assert set(found) == {*names, "cut"}
    for name in names:
        assert found[name] == metric_named(name)
        assert set(found[name].quantities) <= {*quantities, *counts, "1"}


def test_a_task_without_some_quantities_lacks_their_metrics_alone():
    there = {q for q in KINDS["margins"][0] if not q.startswith(("n_chosen_", "ches", "in@low"))}
    found = metrics_of(there, {})
    assert "displaced@mid_edit" in found
    assert not {"ches", "displaced@low_edit", "chosen_before"} & set(found)
    assert set(metrics_of(["kl", "n_chars", "unfinished"], {})) == {"kl", "n_chars", "unfinished"}


def test_names_that_are_trls_carry_no_version_and_all_others_do():
    ours = {**MARGIN_METRICS, **GRADIENT_METRICS, **DIVERGENCE_METRICS, **CANDIDATE_METRICS}
    without = {name for name, metric in ours.items() if metric.name == name}
    assert without == {*TRL}
    assert {metric.name for name, metric in ours.items() if name not in without} == {
        f"{name}.v1" for name in ours if name not in without
    }
    assert not RANKING_METRICS.keys() & {*ours, *PAIR_METRICS, *COMPARISON_METRICS}


def test_directions_and_units():
    directions = {name: metric_named(name).higher_is_better for name in MARGINS}
    worse = {name for name, better in directions.items() if better is False}
    assert worse == {
        *("displaced", "inverted"),
        *(f"displaced@{band}" for band in BANDS),
        *(f"loss/{objective}" for objective in OBJECTIVES),
    }
    better = {name for name, better in directions.items() if better}
    assert {"rewards/accuracies", "ideal", "delta_chosen@low_edit", "chosen_at"} <= better
    # A rejected text that became less likely is no merit while the chosen one went with it.
    neither = {name for name, better in directions.items() if better is None}
    assert {"delta_rejected", "logps/rejected", "both_down", "edit_distance", "ches"} <= neither
    assert not any(m.higher_is_better is not None for m in GRADIENT_METRICS.values())
    assert {n for n, m in DIVERGENCE_METRICS.items() if m.higher_is_better is not None} == {
        "reward",
        "seq_rep_4",
    }
    units = {name: metric_named(name).unit for name in MARGINS}
    assert {name for name, unit in units.items() if unit == "number"} == {
        *("edit_distance", "ches", "ches_per_token"),
        *("loss/ipo_sum", "loss/ipo_mean", "loss/sppo"),
    }
    for metric in (*MARGIN_METRICS.values(), *GRADIENT_METRICS.values()):
        assert metric.proportion == (metric.unit == "percent")


# --- from answers to a checkpoint's value


def answers(texts, n_chosen=1):
    """Pairs of one item from (ids, log-probs under the checkpoint, and under the reference)."""
    policy, reference = (
        Answer(
            0,
            logps=tuple(math.fsum(text[k]) for text in texts),
            n_tokens=tuple(len(text[0]) for text in texts),
            token_ids=tuple(tuple(text[0]) for text in texts),
            token_logps=tuple(tuple(text[k]) for text in texts),
        )
        for k in (1, 2)
    )
    return PairAnswers(policy, reference, n_chosen)


def values(items):
    """Every metric of a checkpoint over some items."""
    found = margins_of(items)
    metrics = metrics_of({"sum_logp_chosen", *found[0]}, {})
    with np.errstate(invalid="ignore"):  # bands without pairs
        return {
            name: float(
                metric.statistic(
                    np.array(
                        [sum({"1": 1.0, **one}[q] for one in found) for q in metric.quantities]
                    )
                )
            )
            for name, metric in metrics.items()
        }


# Twenty equal tokens but for the last word; four tokens of which two differ.
LOW = answers(
    [
        ([*range(20), 90], [-0.1] * 20 + [-1.0], [-0.05] * 20 + [-1.0]),
        ([*range(20), 91], [-0.1] * 20 + [-5.0], [-0.05] * 20 + [-2.0]),
    ]
)
HIGH = answers(
    [
        ([1, 2, 3, 4], [-1.0, -1.0, -1.0, -1.0], [-2.0, -1.0, -1.0, -1.0]),
        ([1, 5, 6], [-1.0, -2.0, -3.0], [-2.0, -1.0, -3.0]),
    ]
)


def test_bands_are_of_their_own_pairs_and_parts_per_token():
    found = values([LOW, HIGH, HIGH])
    assert found["displaced"] == pytest.approx(1 / 3)
    assert found["in@low_edit"] == pytest.approx(1 / 3)
    assert found["displaced@low_edit"] == 1.0
    assert found["displaced@high_edit"] == 0.0
    assert found["delta_chosen@low_edit"] == pytest.approx(-1.0)
    assert found["delta_chosen@high_edit"] == pytest.approx(1.0)
    # 20 shared tokens of one pair, one of each of the others.
    assert found["chosen_before"] == pytest.approx((20 * -0.1 - 1 - 1) / 22)
    assert found["delta_chosen_before"] == pytest.approx((20 * -0.05 + 1 + 1) / 22)
    assert found["rejected_at"] == pytest.approx((-5 - 2 - 2) / 3)
    # Of texts that end with the difference nothing comes after: those that go on count alone.
    assert found["rejected_after"] == pytest.approx(-3.0)
    assert found["delta_chosen_per_token"] == pytest.approx((-1 / 21 + 1 / 4 + 1 / 4) / 3)


def test_of_a_band_without_pairs_nothing_is_said():
    table = np.zeros((20, 2))
    metric = metric_named("displaced@low_edit")
    found = estimate(
        table, metric.statistic, resampling=Resampling(np.arange(20), seed=0), proportion=True
    )
    assert np.isnan(found[:3]).all()


LOGP = st.floats(-20, -1e-6)
TEXT = st.lists(st.tuples(st.integers(0, 3), LOGP), min_size=1, max_size=6)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
@settings(deadline=None, max_examples=40)
def test_a_checkpoint_against_itself(pairs):
    items = [
        answers([(*zip(*text, strict=True), [logp for _, logp in text]) for text in pair])
        for pair in pairs
    ]
    found = values(items)
    assert found["displaced"] == found["rewards/margins"] == found["rewards/accuracies"] == 0
    assert found["unmoved"] == 1
    assert found["loss/dpo"] == pytest.approx(math.log(2))
    assert found["loss/ipo_sum"] == found["loss/ipo_mean"] == pytest.approx((1 / 0.2) ** 2)
    quadrants = ("ideal", "both_down", "both_up", "inverted", "unmoved")
    assert sum(found[name] for name in quadrants) == pytest.approx(1)
    shares = [found[f"in@{band}"] for band in BANDS]
    assert sum(shares) == pytest.approx(1)
    moved = [found[f"delta_chosen@{band}"] for band in BANDS]
    assert {value for value in moved if not math.isnan(value)} == {0.0}


def test_kl_per_token_counts_tokens_alike():
    metric = metric_named("kl_per_token")
    assert metric.quantities == ("kl", "n_tokens")
    assert metric.statistic(np.array([6.0, 24.0])) == 0.25
