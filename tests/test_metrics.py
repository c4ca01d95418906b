"""Metrics: each statistic in closed form, what a task's quantities give, and directions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prefbench.metrics import COMPARISON_METRICS, PAIR_METRICS, metric_named, metrics_of
from prefbench.stats.bootstrap import Refit, Resampling
from prefbench.stats.estimates import estimate, wilson_interval

# Two items: three chosen texts in all (4 + 6 tokens), three rejected ones (5 + 10 tokens).
ITEMS = {
    "sum_logp_chosen": [-8.0, -3.0],
    "n_tokens_chosen": [4.0, 6.0],
    "n_bytes_chosen": [16.0, 28.0],
    "n_texts_chosen": [1.0, 2.0],
    "mean_logp_chosen": [-2.0, -0.5],
    "text_logp_chosen": [-8.0, -1.5],
    "sum_logp_rejected": [-15.0, -10.0],
    "n_tokens_rejected": [5.0, 10.0],
    "n_bytes_rejected": [20.0, 40.0],
    "n_texts_rejected": [2.0, 1.0],
    "mean_logp_rejected": [-3.0, -1.0],
    "text_logp_rejected": [-7.5, -10.0],
    "preferred": [1.0, 0.5],
    "1": [1.0, 1.0],
}
CLOSED_FORM = {
    "perplexity": math.exp(11 / 10),
    "perplexity_rejected": math.exp(25 / 15),
    "agility": 25 / 15 - 11 / 10,
    "agility_pair": (1.0 + 0.5) / 2,
    "agility_seq": (-0.5 + 8.5) / 2,
    "agility_ppl_diff": math.exp(25 / 15) - math.exp(11 / 10),
    "agility_acc": 0.75,
    "perplexity_by_item": math.exp(1.25),
    "logp_chosen": -11 / 3,
    "logp_rejected": -25 / 3,
    "bits_per_byte": 11 / 44 / math.log(2),
}


# Three prompts: won in one order and lost in the other; won in both; the same answer.
JUDGED = {
    "win": [0.5, 1.0, 0.5],
    "tied": [0.0, 0.0, 1.0],
    "split": [1.0, 0.0, 0.0],
    "compared": [1.0, 1.0, 0.0],
    "consistent": [0.0, 1.0, 0.0],
    "first": [1.0, 0.5, 0.0],
    "identical": [0.0, 0.0, 1.0],
    "n_chars": [120.0, 300.0, 90.0],
    "n_chars_opponent": [100.0, 290.0, 90.0],
    "1": [1.0, 1.0, 1.0],
}
JUDGED_IN_CLOSED_FORM = {
    "win_rate": 2 / 3,
    "tie_rate": 1 / 3,
    "split_rate": 1 / 3,
    "position_consistency": 1 / 2,
    "first_preferred": 3 / 4,
    "identical_rate": 1 / 3,
    "mean_chars": 170.0,
    "mean_chars_opponent": 160.0,
}


def value(metric, items):
    return float(metric.statistic(np.array([sum(items[q]) for q in metric.quantities])))


@pytest.mark.parametrize("name", PAIR_METRICS)
def test_every_pair_metric_in_closed_form(name):
    assert value(PAIR_METRICS[name], ITEMS) == pytest.approx(CLOSED_FORM[name], rel=1e-12)


@pytest.mark.parametrize("name", PAIR_METRICS)
def test_a_statistic_takes_many_sums_at_once(name):
    metric = PAIR_METRICS[name]
    sums = np.array([sum(ITEMS[q]) for q in metric.quantities])
    many = metric.statistic(np.stack([sums, 3 * sums, sums])[:, None])
    assert many.shape == (3, 1)
    # Ratios of sums: the same items three times over change nothing.
    assert many.ravel() == pytest.approx([CLOSED_FORM[name]] * 3)


def test_the_unit_pair_of_the_literature():
    pair = {
        "sum_logp_chosen": [-13.0],
        "n_tokens_chosen": [8.0],
        "sum_logp_rejected": [-13.5],
        "n_tokens_rejected": [11.0],
        "mean_logp_chosen": [-13 / 8],
        "mean_logp_rejected": [-13.5 / 11],
        "text_logp_chosen": [-13.0],
        "text_logp_rejected": [-13.5],
        "1": [1.0],
    }
    expected = {
        "agility_pair": -0.397727,
        "agility": -0.397727,
        "agility_seq": 0.5,
        "perplexity": 5.078419,
        "perplexity_rejected": 3.411912,
        "agility_ppl_diff": 3.411912 - 5.078419,
    }
    for name, number in expected.items():
        assert value(PAIR_METRICS[name], pair) == pytest.approx(number, abs=1.5e-6)
    ratio = value(PAIR_METRICS["perplexity_rejected"], pair) / value(
        PAIR_METRICS["perplexity"], pair
    )
    assert ratio == pytest.approx(0.671845, abs=1e-6)
    assert math.exp(value(PAIR_METRICS["agility"], pair)) == pytest.approx(ratio)


def test_a_hopeless_checkpoint_overflows_to_infinity_without_a_warning():
    sums = {"sum_logp_chosen": [-1e6], "n_tokens_chosen": [1.0]}
    assert value(PAIR_METRICS["perplexity"], sums) == math.inf


def test_directions_and_titles():
    directions = {name: metric.higher_is_better for name, metric in PAIR_METRICS.items()}
    assert directions == {
        "perplexity": False,
        "perplexity_rejected": None,
        "agility": True,
        "agility_pair": True,
        "agility_seq": True,
        "agility_ppl_diff": True,
        "agility_acc": True,
        "perplexity_by_item": False,
        "logp_chosen": True,
        "logp_rejected": None,
        "bits_per_byte": False,
    }
    assert PAIR_METRICS["perplexity"].title == "perplexity ↓"
    assert PAIR_METRICS["agility"].title == "agility ↑"
    assert PAIR_METRICS["logp_rejected"].title == "logp_rejected"


def test_pairs_give_the_metrics_whose_quantities_are_there():
    every = metrics_of({*ITEMS, "cut"}, {})
    assert set(every) == {*PAIR_METRICS, "cut"}
    positives = metrics_of({q for q in ITEMS if "rejected" not in q and q != "preferred"}, {})
    assert set(positives) == {"perplexity", "perplexity_by_item", "logp_chosen", "bits_per_byte"}


def test_lm_evals_metrics_are_means_in_lm_evals_direction():
    metrics = metrics_of(
        ["acc", "acc_norm", "exact_match,strict-match", "loss", "cut", "unfinished"],
        {"acc": True, "acc_norm": True, "exact_match": True, "loss": False},
    )
    shares = {name for name, metric in metrics.items() if metric.proportion}
    assert shares == {"acc", "acc_norm", "exact_match,strict-match", "cut", "unfinished"}
    assert {metrics[name].unit for name in shares} == {"percent"}
    assert metrics["loss"].unit == "number"
    assert {name: metric.higher_is_better for name, metric in metrics.items()} == {
        "acc": True,
        "acc_norm": True,
        "exact_match,strict-match": True,
        "loss": False,
        "cut": False,
        "unfinished": False,
    }
    assert metrics["acc"].statistic(np.array([3.0, 4.0])) == 0.75


@pytest.mark.parametrize("suffix", ["", ",some-filter"])
def test_the_best_of_several_texts_is_a_metric_of_its_own(suffix):
    names = [f"exact_match@best_of_4{suffix}", f"loss@best_of_16{suffix}"]
    share, loss = metrics_of(names, {"exact_match": True, "loss": False}).values()
    assert (share.name, share.unit, share.higher_is_better) == (names[0], "percent", True)
    assert share.proportion
    assert share.title == f"{names[0]} ↑"
    assert (loss.name, loss.unit, loss.higher_is_better) == (names[1], "number", False)
    assert metric_named(names[0]) == share
    # lm-eval has names with an @ too.
    (passed,) = metrics_of(["pass@1"], {"pass@1": True}).values()
    assert (passed.name, passed.higher_is_better) == ("pass@1", True)


def test_a_share_of_several_texts_is_never_certain_at_its_end():
    """All of 20 items with 4 right texts of 4 are no more certain than 20 with one of one."""
    metric = metric_named("exact_match")
    table = np.column_stack([np.ones(20), np.ones(20)])
    found = estimate(
        table,
        metric.statistic,
        resampling=Resampling(np.arange(20), seed=0),
        proportion=metric.proportion,
    )
    assert (found.value, found.high, found.method) == (1.0, 1.0, "wilson")
    assert found.low == wilson_interval(20, 20, 0.95)[0] < 0.85


@pytest.mark.parametrize("suffix", ["", ",some-filter"])
def test_weighted_metrics_are_lm_evals(suffix):
    from lm_eval.api.metrics import bits_per_byte, weighted_perplexity

    items = [(-70.0, 20), (-30.0, 5)]
    names = ["word_perplexity", "byte_perplexity", "bits_per_byte"]
    quantities = [f"{name}{suffix}.{part}" for name in names for part in ("value", "weight")]
    metrics = metrics_of(quantities, dict.fromkeys(names, False))
    assert set(metrics) == {name + suffix for name in names}
    for name, metric in metrics.items():
        theirs = bits_per_byte if name.startswith("bits") else weighted_perplexity
        sums = np.array([sum(value for value, _ in items), sum(weight for _, weight in items)])
        assert float(metric.statistic(sums)) == pytest.approx(theirs(items))
        assert metric.higher_is_better is False
        assert not metric.proportion


def test_an_unknown_weighted_metric_is_the_ratio_of_its_sums():
    (metric,) = metrics_of(["hits.value", "hits.weight"], {}).values()
    assert (metric.name, metric.unit, metric.higher_is_better) == ("hits", "number", None)
    assert metric.statistic(np.array([3.0, 12.0])) == 0.25


def test_metrics_by_name_before_anything_is_measured():
    assert metric_named("agility") is PAIR_METRICS["agility"]
    weighted = metric_named("word_perplexity")
    assert weighted.quantities == ("word_perplexity.value", "word_perplexity.weight")
    assert weighted.higher_is_better is False
    strict = metric_named("exact_match,strict-match")
    assert strict == metrics_of([strict.name], {"exact_match": True})[strict.name]


@pytest.mark.parametrize(("name", "expected"), JUDGED_IN_CLOSED_FORM.items())
def test_a_comparison_in_closed_form(name, expected):
    assert value(COMPARISON_METRICS[name], JUDGED) == pytest.approx(expected)


def test_a_comparison_gives_the_metrics_whose_quantities_are_there():
    every = metrics_of({*JUDGED, "cut", "unfinished"} - {"1"}, {})
    assert set(every) == {*JUDGED_IN_CLOSED_FORM, "lc_win_rate", "cut", "unfinished"}
    assert every["lc_win_rate"] == metric_named("lc_win_rate")
    assert set(metrics_of({"win", "tied"}, {})) == {"win_rate", "tie_rate"}


def test_only_win_rates_have_a_better_side():
    directions = {
        name for name, metric in COMPARISON_METRICS.items() if metric.higher_is_better is not None
    }
    assert directions == {"win_rate", "lc_win_rate"}
    assert metric_named("win_rate").title == "win_rate ↑"
    units = {name: metric.unit for name, metric in COMPARISON_METRICS.items()}
    numbers = {"mean_chars", "mean_chars_opponent"}
    assert {name for name, unit in units.items() if unit == "number"} == numbers
    shares = {name for name, metric in COMPARISON_METRICS.items() if metric.proportion}
    assert shares == set(units) - numbers


def test_a_win_rate_of_all_wins_is_not_certain_at_any_length():
    metric = metric_named("lc_win_rate")
    assert isinstance(metric.statistic, Refit)
    table = np.column_stack([np.ones(20), np.arange(20) + 100, np.full(20, 100)])
    found = estimate(
        table,
        metric.statistic,
        resampling=Resampling(np.arange(20), n_resamples=200, seed=0),
        proportion=metric.proportion,
    )
    assert (found.value, found.high, found.method) == (1.0, 1.0, "wilson")
    assert found.low == wilson_interval(20, 20, 0.95)[0]


def test_of_only_identical_answers_nothing_was_compared():
    metric = metric_named("position_consistency")
    found = estimate(
        np.zeros((20, 2)), metric.statistic, resampling=Resampling(np.arange(20), seed=0)
    )
    assert np.isnan(found[:3]).all()
