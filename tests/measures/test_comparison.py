"""From verdicts to numbers: orders, ties, splits, samples, and what is missing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefbench.judges.judge import Ask, Turn, Unheard, Verdict
from prefbench.measures.comparison import Heard, Pair, compare

QUESTION = (Turn("user", "How tall is it?"),)


def pair(answers: tuple[str, ...] = ("ours",), opponents: tuple[str, ...] = ("theirs",)) -> Pair:
    return Pair(0, "c", QUESTION, answers, opponents)


def quantities(one: Pair, heard: Callable[[Ask], Heard], *, symmetric: bool = False) -> dict:
    found = {r.quantity: r.value for r in compare([one], heard, symmetric=symmetric)}
    assert "answer" not in found
    return found


def reason(one: Pair, heard: Callable[[Ask], Heard]) -> str | None:
    (record,) = compare([one], heard, symmetric=False)
    assert record.quantity == "answer"
    assert record.value is None
    return record.reason


def by_order(as_first: float | None, as_second: float | None) -> Callable[[Ask], Heard]:
    """A judge that gives our text these preferences where it is shown first, and second."""

    def heard(ask: Ask) -> Heard:
        ours = as_first if ask.first == "ours" else as_second
        if ours is None:
            return Verdict(None, "no label")
        return Verdict(ours if ask.first == "ours" else 1 - ours)

    return heard


@pytest.mark.parametrize(
    ("orders", "win", "tied", "split", "consistent"),
    [
        ((1, 1), 1, 0, 0, 1),
        ((0, 0), 0, 0, 0, 1),
        ((1, 0), 0.5, 0, 1, 0),  # always the first
        ((0, 1), 0.5, 0, 1, 0),  # always the second
        ((0.5, 0.5), 0.5, 1, 0, 1),
        ((1, 0.5), 0.75, 0, 0, 0),
        ((0.75, 1), 0.875, 0, 0, 1),
    ],
)
def test_both_orders_make_one_number(orders, win, tied, split, consistent) -> None:
    found = quantities(pair(), by_order(*orders))
    assert found["win"] == win
    assert (found["tied"], found["split"], found["consistent"]) == (tied, split, consistent)
    assert found["compared"] == 1
    assert found["first"] == (orders[0] + 1 - orders[1]) / 2
    assert (found["n_chars"], found["n_chars_opponent"]) == (4, 6)


def test_equal_texts_are_a_half_and_nobody_is_asked() -> None:
    one = pair(("same",), ("same",))
    assert one.asks(symmetric=False) == []

    def refuse(ask: Ask) -> Heard:
        raise AssertionError("asked about equal texts")

    found = quantities(one, refuse)
    assert found["win"] == 0.5
    assert found["identical"] == 1
    assert not {"compared", "consistent", "first"} & set(found)  # nothing is known of the judge


@pytest.mark.parametrize("orders", [(None, 1), (1, None), (None, None)])
def test_one_order_alone_is_no_verdict(orders) -> None:
    assert reason(pair(), by_order(*orders)) == "unreadable verdict: no label"


def test_what_did_not_arrive_is_missing_with_its_reason() -> None:
    assert reason(pair(), lambda ask: Unheard("HTTP 500")) == "HTTP 500"


def test_samples_are_averaged_and_a_missing_one_left_out() -> None:
    one = pair(("good", "bad", "lost"), ("theirs",))
    assert len(one.asks(symmetric=False)) == 6

    def heard(ask: Ask) -> Heard:
        if "lost" in (ask.first, ask.second):
            return Unheard("gone")
        ours_first = ask.second == "theirs"
        wins = "good" in (ask.first, ask.second)
        return Verdict(float(wins == ours_first))

    assert quantities(one, heard)["win"] == 0.5
    assert quantities(pair(("good", "lost")), heard)["win"] == 1


def test_the_opponent_asks_a_symmetric_judge_the_same() -> None:
    mine = Pair(0, "c", QUESTION, ("ours",), ("theirs",))
    theirs = Pair(0, "c", QUESTION, ("theirs",), ("ours",))
    assert mine.asks(symmetric=True) == theirs.asks(symmetric=True)

    def heard(ask: Ask) -> Heard:
        return Verdict(0.8 if ask.first == "ours" else 0.2)

    assert quantities(mine, heard, symmetric=True)["win"] == pytest.approx(0.8)
    assert quantities(theirs, heard, symmetric=True)["win"] == pytest.approx(0.2)
    assert "consistent" not in quantities(mine, heard, symmetric=True)


def test_a_reason_of_the_item_comes_first_and_asks_nothing() -> None:
    one = Pair(3, "c", QUESTION, ("ours",), ("theirs",), reason="the prompt is empty")
    assert one.asks(symmetric=False) == []
    assert reason(one, by_order(1, 1)) == "the prompt is empty"


@given(first=st.floats(0, 1), second=st.floats(0, 1))
def test_swapping_sides_gives_the_rest(first: float, second: float) -> None:
    judged = {("ours", "theirs"): first, ("theirs", "ours"): second}

    def heard(ask: Ask) -> Heard:
        return Verdict(judged[ask.first, ask.second])

    mine = quantities(pair(), heard)
    theirs = quantities(pair(("theirs",), ("ours",)), heard)
    assert mine["win"] + theirs["win"] == pytest.approx(1)
    assert mine["first"] == pytest.approx(theirs["first"])
    assert 0 <= mine["win"] <= 1


def rated(ask: Ask) -> Heard:
    """A reward model that likes long texts; a word that it cannot read has no score."""
    scores = [None if "lost" in text else float(len(text)) for text in (ask.first, ask.second)]
    facts = {"score_first": scores[0], "score_second": scores[1]}
    if None in scores:
        return Verdict(None, "its score is nan, no number", facts=facts)
    return Verdict((1 + (scores[0] > scores[1]) - (scores[0] < scores[1])) / 2, facts=facts)  # type: ignore[operator]  # not None


def test_the_scores_of_a_reward_model_are_rewards() -> None:
    one = pair(("a", "four", "lost"), ("three",))
    for side in (one, pair(("three",), ("a", "four", "lost"))):
        found = quantities(side, rated, symmetric=True)
        ours, theirs = ("reward", "reward_opponent")[:: 1 if side is one else -1]
        assert (found[ours], found[theirs]) == (2.5, 5)  # over the samples that count
    assert not {"reward", "reward_opponent"} & set(quantities(pair(), by_order(1, 1)))


def test_equal_texts_have_a_reward_where_the_judge_was_asked() -> None:
    one = pair(("same", "longer"), ("same", "short"))
    assert len(one.asks(symmetric=True)) == 1
    assert [(a.first, a.second) for a in one.asks(symmetric=True, equal=True)] == [
        ("same", "same"), ("longer", "short"),
    ]  # fmt: skip
    known = {ask: rated(ask) for ask in one.asks(symmetric=True)}
    found = quantities(one, known.__getitem__, symmetric=True)
    # The mean over the texts that differ would be another quantity.
    assert not {"reward", "reward_opponent"} & set(found)
    known = {ask: rated(ask) for ask in one.asks(symmetric=True, equal=True)}
    asked = {
        r.quantity: r.value for r in compare([one], known.__getitem__, symmetric=True, equal=True)
    }
    assert (asked.pop("reward"), asked.pop("reward_opponent")) == (5, 4.5)
    assert asked == found
    (record,) = (
        r for r in compare([pair(("lost",), ("lost",))], rated, symmetric=True, equal=True)
        if r.quantity.startswith(("win", "reward"))
    )  # fmt: skip
    assert (record.quantity, record.value) == ("win", 0.5)


def test_how_the_checkpoints_texts_repeat_themselves() -> None:
    one = pair(("no no no no no", "a b c d"), ("theirs",))
    found = quantities(one, lambda ask: Verdict(0.5))
    assert found["distinct_1"] == pytest.approx((1 / 5 + 1) / 2)
    assert found["distinct_2"] == pytest.approx((1 / 4 + 1) / 2)
    assert found["seq_rep_4"] == pytest.approx((1 / 2 + 0) / 2)
    short = quantities(pair(("ours",)), lambda ask: Verdict(0.5))
    assert "distinct_1" in short
    assert not {"distinct_2", "seq_rep_4"} & set(short)
