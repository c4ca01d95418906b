from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prefbench.errors import InputError
from prefbench.interchange.annotations import NO_ANSWERS, HeadToHead, Judgment, statistics_of
from prefbench.stats.winrate import length_controlled


def judged(prompt: str, preference: float | None, **more: Any) -> Judgment:
    reason = "" if preference is not None else "no verdict"
    facts = {"checkpoint": "dpo", "opponent": "sft", "judge": "j", "reason": reason, **more}
    return Judgment(prompt, facts.pop("checkpoint"), facts.pop("opponent"), preference, **facts)


def both(prompt: str, first: float | None, second: float | None, **more: Any) -> list[Judgment]:
    """A comparison in both orders: preferences with the checkpoint shown first, and second."""
    return [
        judged(prompt, second, shown_first=False, **more),
        judged(prompt, first, shown_first=True, **more),
    ]


def only(judgments: list[Judgment], **settings: Any) -> HeadToHead:
    (found,) = statistics_of(judgments, **{"n_resamples": 200, **settings})
    return found


def drawn(n: int = 60, seed: int = 0) -> list[Judgment]:
    rng = np.random.default_rng(seed)
    return [
        judged(
            f"p{i}",
            float(rng.integers(0, 5)) / 4,
            answer="a" * int(rng.integers(1, 90)),
            opponent_answer="b" * int(rng.integers(1, 60)),
        )
        for i in range(n)
    ]


def test_by_hand() -> None:
    found = only([judged(str(i), value) for i, value in enumerate((1, 1, 0.75, 0.5, 0, None))])
    assert found.win_rate.value == pytest.approx(3.25 / 5)
    assert (found.win_rate.n, found.win_rate.n_missing) == (5, 1)
    assert (found.n_wins, found.n_draws, found.n_losses, found.n_missing) == (3, 1, 1, 1)
    assert found.reasons == (("no verdict", 1),)
    assert found.discrete_win_rate == pytest.approx(3.5 / 5)
    # Squared distances from 0.65: 2 · 0.1225, 0.01, 0.0225, 0.4225.
    assert found.standard_error == pytest.approx(math.sqrt(0.7 / 4 / 5))
    assert found.win_rate.low < found.win_rate.value < found.win_rate.high
    assert found.length_controlled is found.consistency is found.first_preferred is None
    assert math.isnan(found.mean_length)


def test_the_standard_error_is_that_of_pandas() -> None:
    judgments = drawn()
    expected = pd.Series([one.preference for one in judgments]).sem()
    assert only(judgments).standard_error == pytest.approx(expected)


def test_a_checkpoint_exchanged_with_its_opponent_wins_the_rest() -> None:
    judgments = drawn()
    exchanged = [
        dataclasses.replace(
            one,
            checkpoint=one.opponent,
            opponent=one.checkpoint,
            preference=1 - (one.preference or 0),
            answer=one.opponent_answer,
            opponent_answer=one.answer,
        )
        for one in judgments
    ]
    found, other = only(judgments), only(exchanged)
    for name in ("win_rate", "length_controlled"):
        one, rest = getattr(found, name), getattr(other, name)
        assert one.value == pytest.approx(1 - rest.value)
        assert (one.low, one.high) == pytest.approx((1 - rest.high, 1 - rest.low))
    assert found.standard_error == pytest.approx(other.standard_error)
    assert (found.n_wins, found.n_draws) == (other.n_losses, other.n_draws)


def test_a_checkpoint_against_itself_wins_half() -> None:
    found = only([judged(str(i), 0.5, answer="x", opponent_answer="x") for i in range(9)])
    assert found.win_rate.value == 0.5
    assert found.length_controlled is not None
    assert found.length_controlled.value == 0.5
    assert found.n_draws == 9


def test_the_order_of_rows_changes_nothing() -> None:
    judgments = drawn()
    one, other = only(judgments), only(judgments[::-1])
    assert one.win_rate == pytest.approx(other.win_rate, nan_ok=True)
    assert one.length_controlled is not None
    assert other.length_controlled is not None
    assert one.length_controlled[:3] == pytest.approx(other.length_controlled[:3])


def test_length_control_is_that_of_the_statistics() -> None:
    judgments = drawn()
    columns = np.array(
        [
            (one.preference, len(one.answer or ""), len(one.opponent_answer or ""))
            for one in judgments
        ]
    )
    found = only(judgments)
    assert found.length_controlled is not None
    assert found.length_controlled.value == length_controlled(columns, np.ones((1, 60)))[0]
    assert found.length_controlled.low < found.length_controlled.value
    assert found.mean_length == columns[:, 1].mean()
    assert found.mean_length_opponent == columns[:, 2].mean()


def test_lengths_that_are_known_for_some() -> None:
    judgments = drawn()
    judgments[0] = dataclasses.replace(judgments[0], answer=None)
    found = only(judgments)
    assert found.length_controlled is not None
    assert (found.length_controlled.n, found.win_rate.n) == (59, 60)
    assert "answers are known, and lengths controlled for, in 59 of 60 comparisons" in found.notes


def test_the_lengths_of_one_side_control_for_nothing() -> None:
    found = only([judged("a", 1, answer="four"), judged("b", 0, answer="sixsix")])
    assert (found.mean_length, found.length_controlled) == (5, None)
    assert math.isnan(found.mean_length_opponent)
    assert NO_ANSWERS in found.notes


def test_orders_count_their_mean_or_only_where_they_agree() -> None:
    judgments = [*both("a", 1, 1), *both("b", 1, 0), *both("c", 1, 0.5), *both("d", 0, 0)]
    mean, agreed = only(judgments), only(judgments, orders="both")
    assert mean.win_rate.value == (1 + 0.5 + 0.75 + 0) / 4
    assert (mean.n_wins, mean.n_draws, mean.n_losses) == (2, 1, 1)
    assert agreed.win_rate.value == (1 + 0.5 + 0.5 + 0) / 4
    assert (agreed.n_wins, agreed.n_draws, agreed.n_losses) == (1, 2, 1)
    for found in (mean, agreed):
        assert found.consistency is not None
        assert found.first_preferred is not None
        assert found.consistency.value == 0.5
        # First shown: 1 and 0, 1 and 1, 1 and a half, 0 and 1.
        assert found.first_preferred.value == (0.5 + 1 + 0.75 + 0.5) / 4
        assert found.notes == (NO_ANSWERS,)


def test_a_judge_that_takes_the_first_answer_is_found_out() -> None:
    found = only([one for i in range(20) for one in both(str(i), 1, 0)])
    assert found.win_rate.value == 0.5
    assert found.consistency is not None
    assert found.first_preferred is not None
    assert (found.consistency.value, found.first_preferred.value) == (0, 1)


def test_one_order_that_is_missing_takes_the_comparison_away() -> None:
    found = only([*both("a", 1, None), *both("b", None, None), *both("c", 0, 0)])
    assert (found.win_rate.value, found.win_rate.n, found.n_missing) == (0, 1, 2)
    assert found.reasons == (("no verdict", 2),)
    assert found.consistency is not None
    assert (found.consistency.n, found.consistency.value) == (1, 1)


def test_strong_wins_weigh_in_the_win_rate_alone() -> None:
    judgments = [judged("a", 1, strong=True), judged("b", 0), judged("c", 0)]
    found = only(judgments, strong_weight=3)
    assert found.win_rate.value == pytest.approx(3 / 5)
    assert (found.n_wins, found.n_losses) == (1, 2)
    # Residuals of Σwx/Σw: 3 − 3·0.6, −0.6, −0.6.
    assert found.standard_error == pytest.approx(math.sqrt(3 / 2 * (1.44 + 0.36 + 0.36)) / 5)
    mixed = [dataclasses.replace(one, strong=bool(one.shown_first)) for one in both("d", 1, 0)]
    halved = only([*mixed, *both("e", 1, 0)], strong_weight=3)
    assert halved.n_draws == 2
    assert halved.win_rate.value == pytest.approx((3 + 1) / (4 + 2))


def test_prompts_are_resampled_whole() -> None:
    rng = np.random.default_rng(3)
    wins = [float(rng.random() < 0.5) for _ in range(100)]
    one_turn = only([judged(str(i), win) for i, win in enumerate(wins)], n_resamples=2000)
    two_turns = only(
        [judged(str(i), win, turn=turn) for i, win in enumerate(wins) for turn in (1, 2)],
        n_resamples=2000,
    )
    assert two_turns.win_rate.n == 200
    assert two_turns.win_rate[:3] == pytest.approx(one_turn.win_rate[:3])
    assert two_turns.standard_error == pytest.approx(
        one_turn.standard_error / math.sqrt(2), rel=0.01
    )


def test_what_is_compared_is_kept_apart() -> None:
    judgments = [
        judged("a", 1),
        judged("a", 0, checkpoint="kto"),
        judged("a", 0, opponent="base"),
        judged("a", 0.5, judge="k"),
    ]
    found = statistics_of(judgments, n_resamples=10)
    assert [(one.checkpoint, one.opponent, one.judge, one.win_rate.value) for one in found] == [
        ("dpo", "sft", "j", 1),
        ("kto", "sft", "j", 0),
        ("dpo", "base", "j", 0),
        ("dpo", "sft", "k", 0.5),
    ]


def test_names_that_differ_in_little_are_prompts_of_their_own() -> None:
    names = ["a", "a\x00", "a ", "\ud800", "", "A"]
    found = only([judged(name, i % 2) for i, name in enumerate(names)])
    assert found.win_rate.n == 6
    assert found.win_rate.low < found.win_rate.high


@pytest.mark.parametrize(
    ("orders", "note"),
    [
        ((None, None), "which answer was shown first is not recorded for all comparisons"),
        ((None, True), "which answer was shown first is not recorded for 1 of 2 comparisons"),
        ((True, False), r"one order only for all comparisons \(1 with the checkpoint first\)"),
        ((False, False), r"one order only for all comparisons \(0 with the checkpoint first\)"),
    ],
)
def test_what_is_not_known_of_orders_is_noted(orders: tuple[bool | None, ...], note: str) -> None:
    found = only([judged(str(i), 1, shown_first=order) for i, order in enumerate(orders)])
    assert matches(note, found)


def matches(pattern: str, found: HeadToHead) -> bool:
    return any(re.search(pattern, note) for note in found.notes)


def test_length_control_that_extrapolates_is_noted() -> None:
    # Always the longer answer wins, and the checkpoint's nearly always is.
    judgments = [
        judged(str(i), float(i > 1), answer="a" * (50 + i if i > 1 else 1), opponent_answer="b" * 9)
        for i in range(40)
    ]
    found = only(judgments)
    assert found.length_controlled is not None
    assert found.length_controlled.value < 0.71
    assert "the checkpoint's answer is the longer one in 95% of the pairs" in found.notes[-1]
    assert not matches("longer one", only(drawn()))


def test_without_any_preference_there_are_no_numbers() -> None:
    judgments = [judged(str(i), None, answer="a", opponent_answer="b") for i in range(3)]
    found = only([*judgments, *both("x", None, None)])
    assert math.isnan(found.win_rate.value)
    assert math.isnan(found.standard_error)
    assert math.isnan(found.discrete_win_rate)
    assert (found.win_rate.n, found.n_missing, found.consistency) == (0, 4, None)
    assert found.notes == ()


def test_one_prompt_has_a_value_and_no_interval() -> None:
    found = only([judged("a", 1, answer="long", opponent_answer="x")])
    assert found.win_rate.value == 1
    assert math.isnan(found.win_rate.low)
    assert math.isnan(found.standard_error)


def test_the_same_seed_gives_the_same_intervals() -> None:
    judgments = drawn()
    assert only(judgments, seed=1) == only(judgments, seed=1)
    assert only(judgments, seed=1).win_rate.low != only(judgments, seed=2).win_rate.low


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"preference": None, "reason": ""}, "the reason why there is none"),
        ({"preference": 1.0, "reason": "why"}, "prompt p, turn 2, dpo against sft: give a pref"),
        ({"preference": 1.5}, "from 0 to 1, not 1.5"),
        ({"preference": math.nan}, "from 0 to 1, not nan"),
    ],
)
def test_judgments_that_cannot_be(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Judgment(prompt="p", checkpoint="dpo", opponent="sft", turn=2, **facts)


@pytest.mark.parametrize(
    "orders", [(None, None), (True, True), (None, True), (False, None), (True, False, True)]
)
def test_a_comparison_judged_twice_is_refused(orders: tuple[bool | None, ...]) -> None:
    with pytest.raises(InputError, match="prompt a, dpo against sft: judged twice by j"):
        only([judged("a", 1, shown_first=order) for order in orders])


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="there are no judgments"):
        statistics_of([])
    with pytest.raises(InputError, match="mean or both, not 'all'"):
        only(drawn(3), orders="all")
    for weight in (0, -1, math.nan, math.inf):
        with pytest.raises(InputError, match="strong_weight must be above 0"):
            only(drawn(3), strong_weight=weight)
    with pytest.raises(InputError, match="confidence must lie between 0 and 1"):
        only(drawn(3), confidence=95)
