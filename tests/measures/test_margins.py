"""What tuning did to pairs: by hand, in closed form, and what must hold whatever the numbers."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefbench.errors import InputError
from prefbench.measures.margins import (
    AT_ONCE,
    NO_CHOSEN,
    NO_REJECTED,
    PairAnswers,
    margins,
    margins_of,
)
from prefbench.objectives import OBJECTIVES, PairLogps
from prefbench.records import Answer
from prefbench.stats.edits import BANDS

QUADRANTS = ("ideal", "both_down", "both_up", "inverted")
PARTS = ("before", "at", "after")


def answer(ids, logps, gram=()):
    """An answer with token log-probs, as the hf engine gives it."""
    return Answer(
        0,
        logps=tuple(math.fsum(text) for text in logps),
        n_tokens=tuple(len(text) for text in logps),
        token_ids=tuple(tuple(text) for text in ids),
        token_logps=tuple(tuple(text) for text in logps),
        gram=tuple(gram),
    )


# One wrong token of four, and one more at the end of the rejected text.
IDS = [(7, 8, 9, 2), (7, 6, 9, 9, 2)]
POLICY = answer(IDS, [(-1.0, -2.0, -0.5, -0.25), (-1.0, -4.0, -0.5, -1.0, -0.25)])
REFERENCE = answer(
    IDS,
    [(-1.5, -1.0, -0.5, -0.25), (-1.5, -2.0, -0.25, -1.0, -0.25)],
    gram=(4.0, 3.0, 3.0, 9.0),
)
BY_HAND = {
    "logps/chosen": -3.75,
    "logps/rejected": -6.75,
    "rewards/chosen": -0.25,
    "rewards/rejected": -0.875,
    "rewards/margins": 0.625,
    "rewards/accuracies": 1.0,
    "delta_chosen": -0.5,
    "delta_rejected": -1.75,
    "delta_chosen_per_token": -0.125,
    "delta_rejected_per_token": -0.35,
    "displaced": 1.0,
    "ideal": 0.0,
    "both_down": 1.0,
    "both_up": 0.0,
    "inverted": 0.0,
    "unmoved": 0.0,
    "ranking_accuracy": 1.0,
    "ranking_accuracy_per_token": 1.0,
    "ranking_ties": 0.0,
    "edit_distance": 0.4,
    "in@low_edit": 0.0,
    "in@mid_edit": 1.0,
    "in@high_edit": 0.0,
    "displaced@low_edit": 0.0,
    "displaced@mid_edit": 1.0,
    "displaced@high_edit": 0.0,
    "delta_chosen@low_edit": 0.0,
    "delta_chosen@mid_edit": -0.5,
    "delta_chosen@high_edit": 0.0,
    "delta_rejected@low_edit": 0.0,
    "delta_rejected@mid_edit": -1.75,
    "delta_rejected@high_edit": 0.0,
    "chosen_before": -1.0,
    "chosen_at": -2.0,
    "chosen_after": -0.75,
    "rejected_before": -1.0,
    "rejected_at": -4.0,
    "rejected_after": -1.75,
    "n_chosen_before": 1.0,
    "n_chosen_at": 1.0,
    "n_chosen_after": 2.0,
    "n_rejected_before": 1.0,
    "n_rejected_at": 1.0,
    "n_rejected_after": 3.0,
    "delta_chosen_before": 0.5,
    "delta_chosen_at": -1.0,
    "delta_chosen_after": 0.0,
    "delta_rejected_before": 0.5,
    "delta_rejected_at": -2.0,
    "delta_rejected_after": -0.25,
    "ches": -1.0,
    "ches_per_token": 3 / 20 - 4 / 16,
}


def test_one_pair_by_hand():
    found = margins(POLICY, REFERENCE, 1, beta=0.5, objectives=[])
    assert found == pytest.approx(BY_HAND)
    assert list(found)[:6] == list(BY_HAND)[:6]


# --- the unit pair of the literature

UNIT = (
    Answer(0, logps=(-13.0, -13.5), n_tokens=(8, 11)),
    Answer(0, logps=(-12.0, -14.0), n_tokens=(8, 11)),
)
# Losses at the defaults of `objectives`; the literature's table has other parameters for some.
UNIT_LOSSES = {
    "sft": 13.0,
    "unlikelihood_sequence": 13.000001,
    "exmate": 1.639655,
    "slic_hf": 7.0,
    "rrhf": 13.397727,
    "orpo": 1.723989,
    "dpo": 0.770957,
    "dpop": 15.45,
    "ipo_sum": 42.25,
    "ipo_mean": 26.7336,
    "hinge": 1.15,
    "dpo_nll": 2.395957,
    "dpo_exmate": 0.770957 + 1.639655,
    # beta 1e-3: (−1 − 500)² + (0.5 + 500)²
    "sppo": 501.0**2 + 500.5**2,
}


@pytest.mark.parametrize(("objective", "loss"), UNIT_LOSSES.items())
def test_the_unit_pairs_losses(objective, loss):
    assert margins(*UNIT, 1)[f"loss/{objective}"] == pytest.approx(loss, abs=2e-6)


def test_the_unit_pair():
    found = margins(*UNIT, 1)
    assert found["rewards/margins"] == pytest.approx(-0.15)
    assert (found["displaced"], found["inverted"], found["rewards/accuracies"]) == (1, 1, 0)
    # By sums the chosen text is ranked first, by tokens the rejected one.
    assert (found["ranking_accuracy"], found["ranking_accuracy_per_token"]) == (1, 0)


def test_without_token_log_probs_what_needs_them_is_left_out():
    found = margins(*UNIT, 1)
    losses = {name.removeprefix("loss/") for name in found if name.startswith("loss/")}
    assert {*OBJECTIVES} - losses == {"unlikelihood", "exmate_token"}
    assert not {"edit_distance", "ches", "in@low_edit", "chosen_before"} & {*found}
    ids = tuple(
        dataclasses.replace(one, token_ids=((*range(8),), (*range(11),)), token_logps=())
        for one in UNIT
    )
    found = margins(*ids, 1)
    assert found["edit_distance"] == pytest.approx(3 / 11)
    assert found["displaced@mid_edit"] == 1.0
    assert "chosen_before" not in found


def test_a_reference_that_tokenizes_otherwise_has_no_changes_by_position():
    other = answer([(7, 5, 8, 9, 2), IDS[1]], [(-1.0,) * 5, (-1.0,) * 5])
    found = margins(POLICY, other, 1)
    assert found["delta_chosen"] == pytest.approx(1.25)
    assert found["chosen_after"] == -0.75
    assert not [name for name in found if name.startswith("delta_chosen_") and name[-5:] == "after"]


# --- what must hold

LOGP = st.floats(-30, -1e-6)
TEXT = st.lists(st.tuples(st.integers(0, 5), LOGP, LOGP), min_size=1, max_size=8)


@st.composite
def items(draw):
    """One to three chosen and rejected texts, with what policy and reference gave for each."""
    n_chosen, n_rejected = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    texts = [draw(TEXT) for _ in range(n_chosen + n_rejected)]
    ids = [[token for token, *_ in text] for text in texts]
    root = np.array(
        [[draw(st.floats(-3, 3)) for _ in range(2)] for _ in texts],
    )
    gram = (root @ root.T).ravel().tolist()
    policy, reference = ([[token[k] for token in text] for text in texts] for k in (1, 2))
    return PairAnswers(answer(ids, policy), answer(ids, reference, gram), n_chosen)


@given(items())
@settings(deadline=None, max_examples=60)
def test_parts_make_the_whole(item):
    found = margins(*item)
    assert sum(found[name] for name in (*QUADRANTS, "unmoved")) == pytest.approx(1)
    assert sum(found[f"in@{band}"] for band in BANDS) == pytest.approx(1)
    for name in ("displaced", "delta_chosen", "delta_rejected"):
        total = sum(found[f"{name}@{band}"] for band in BANDS)
        assert total == pytest.approx(found[name], abs=1e-9)
    for side in ("chosen", "rejected"):
        total = sum(found[f"{side}_{part}"] for part in PARTS)
        assert total == pytest.approx(found[f"logps/{side}"])
        moved = sum(found[f"delta_{side}_{part}"] for part in PARTS)
        assert moved == pytest.approx(found[f"delta_{side}"], abs=1e-9)
    # Before the first difference both texts are the same tokens.
    assert found["n_chosen_before"] == found["n_rejected_before"]
    assert found["rewards/margins"] == pytest.approx(
        found["rewards/chosen"] - found["rewards/rejected"], abs=1e-12
    )
    assert not any(math.isnan(value) for value in found.values())


@given(items())
@settings(deadline=None, max_examples=40)
def test_an_item_is_the_mean_over_its_pairs(item):
    policy, reference, n = item

    def only(one, w, r):
        return Answer(
            0,
            logps=(one.logps[w], one.logps[r]),
            n_tokens=(one.n_tokens[w], one.n_tokens[r]),
            token_ids=(one.token_ids[w], one.token_ids[r]),
            token_logps=(one.token_logps[w], one.token_logps[r]),
            gram=tuple(np.reshape(one.gram, (len(one.logps),) * 2)[np.ix_([w, r], [w, r])].flat)
            if one.gram
            else (),
        )

    alone = margins_of(
        [
            PairAnswers(only(policy, w, r), only(reference, w, r), 1)
            for w in range(n)
            for r in range(n, len(policy.logps))
        ]
    )
    whole = margins(*item)
    assert all(pair.keys() == whole.keys() for pair in alone)
    for name, value in whole.items():
        assert value == pytest.approx(np.mean([pair[name] for pair in alone]), abs=1e-9), name


@given(items())
@settings(deadline=None, max_examples=40)
def test_a_checkpoint_against_itself_has_not_moved(item):
    reference = dataclasses.replace(item.policy, gram=item.reference.gram)
    found = margins(item.policy, reference, item.n_chosen)
    still = ("displaced", "rewards/margins", "rewards/accuracies", "delta_chosen_after", *QUADRANTS)
    assert [found[name] for name in still] == [0] * len(still)
    assert found["unmoved"] == 1
    assert found["loss/dpo"] == pytest.approx(math.log(2))
    assert found["loss/ipo_sum"] == found["loss/ipo_mean"] == pytest.approx(25.0)


@given(items())
@settings(deadline=None, max_examples=40)
def test_losses_are_those_of_the_objectives(item):
    """Against each objective called for one pair at a time, on its own arrays."""
    found = margins(*item)

    def logps(one, w, r):
        tokens = [np.array([one.token_logps[i]]) for i in (w, r)]
        sums = [each.sum(axis=1) for each in tokens]
        return PairLogps(*sums, *(np.array([each.shape[1]]) for each in tokens), *tokens)

    pairs = [
        (w, r) for w in range(item.n_chosen) for r in range(item.n_chosen, len(item.policy.logps))
    ]
    for name, objective in OBJECTIVES.items():
        losses = [float(objective(*(logps(one, *at) for one in item[:2]))[0]) for at in pairs]
        assert found[f"loss/{name}"] == pytest.approx(np.mean(losses)), name


def test_rewards_are_those_of_trls_definition():
    """The lines of TRL's DPOTrainer, in float32 as there, on pairs of one text each."""
    import torch

    rng = np.random.default_rng(0)
    logps = rng.normal(-30, 3, size=(64, 2, 2)).astype(np.float32)
    logps[:3] = logps[:3, :1]  # the same under both: ties count as wrong
    found = margins_of(
        [
            PairAnswers(*(Answer(0, logps=tuple(map(float, x)), n_tokens=(5, 5)) for x in pair), 1)
            for pair in logps
        ],
        beta=0.25,
    )
    ours, theirs = torch.tensor(logps[:, 0]), torch.tensor(logps[:, 1])
    chosen_rewards, rejected_rewards = (0.25 * (ours - theirs)).unbind(-1)
    accuracies = (chosen_rewards > rejected_rewards).float()
    assert [one["rewards/accuracies"] for one in found] == accuracies.tolist()
    assert not accuracies[:3].any()
    for name, expected in (
        ("rewards/chosen", chosen_rewards),
        ("rewards/rejected", rejected_rewards),
        ("rewards/margins", chosen_rewards - rejected_rewards),
    ):
        assert [one[name] for one in found] == pytest.approx(expected.tolist(), abs=1e-5)


# --- what cannot be measured


@pytest.mark.parametrize(
    ("policy", "reference", "n_chosen", "reason"),
    [
        (Answer(0, reason="no"), UNIT[1], 1, "no"),
        (Answer(0, reason="no"), Answer(0, reason="never"), 1, "no"),
        (UNIT[0], Answer(0, reason="never"), 1, "reference: never"),
        (*UNIT, 0, NO_CHOSEN),
        (*UNIT, 2, NO_REJECTED),
        (UNIT[0], Answer(0, logps=(-1.0,), n_tokens=(1,)), 1, "reference: its texts are 1, not 2"),
        (dataclasses.replace(UNIT[0], n_tokens=(8, 0)), UNIT[1], 1, "a text has no tokens"),
    ],
)
def test_what_is_missing_says_why(policy, reference, n_chosen, reason):
    assert margins(policy, reference, n_chosen) == reason
    # And hurts nobody else.
    both = margins_of([PairAnswers(policy, reference, n_chosen), PairAnswers(*UNIT, 1)])
    assert both == [reason, margins(*UNIT, 1)]


def test_nothing_gives_nothing():
    assert margins_of([]) == []


def test_an_unknown_objective_is_named_with_those_there_are():
    with pytest.raises(InputError, match=r"objective is one of sft, .*, not 'ppo'"):
        margins_of([], objectives=["dpo", "ppo"])


def test_more_pairs_than_are_padded_at_once():
    """Long and short texts in several portions, each as it is alone."""
    rng = np.random.default_rng(0)
    many = []
    for n in rng.integers(1, 40, size=AT_ONCE + 50):
        ids = [rng.integers(0, 9, size=k).tolist() for k in (n, n + 1)]
        logps = [(-rng.exponential(size=len(text))).tolist() for text in ids]
        many.append(PairAnswers(answer(ids, logps), answer(ids, logps), 1))
    found = margins_of(many)
    for place in (0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 49):
        assert found[place] == pytest.approx(margins(*many[place]))


def test_thirty_thousand_pairs_take_seconds():
    pairs = [PairAnswers(POLICY, REFERENCE, 1)] * 30_126
    start = time.process_time()
    found = margins_of(pairs)
    assert time.process_time() - start < 10
    assert found[-1] == found[0]
