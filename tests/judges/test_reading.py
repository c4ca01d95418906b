"""Reading: what is said as agreed is read; all else is unreadable, with the reason."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefbench.judges.reading import LONGEST_REASON, read
from prefbench.judges.recipe import Reading

LABELS = {"A>>B": 1.0, "A>B": 0.75, "A=B": 0.5, "B>A": 0.25, "B>>A": 0.0, "A": 1.0, "B": 0.0}
LINE = Reading(by="line", marker="Better:", labels=LABELS)
JSON = Reading(by="json", marker="better", labels={"A": 1.0, "tie": 0.5, "B": 0.0})
FIRST = Reading(by="logprobs", labels={"A": 1.0, "B": 0.0})
ALL = (LINE, JSON, FIRST)


@pytest.mark.parametrize(
    ("reply", "preference"),
    [
        ("Better: A", 1.0),
        ("Both are fine.\n\nBetter: B\n\n", 0.0),
        ("Better: A>B", 0.75),
        ("Better: A>>B", 1.0),
        ("  better:   B>A.  ", 0.25),
        ("**Better:** A=B", 0.5),
        ("**Better: B>>A**", 0.0),
        ("**Better**: `A`.", 1.0),
        ("```\nBetter: A\n```", 1.0),
        ("Better: A\nBetter: A", 1.0),
        ("Better: A or B?\nBetter: B", 0.0),
        ("<think>\nBetter: A\nno\n</think>\nBetter: B", 0.0),
        ("one\r\nBetter: A\r\n", 1.0),
    ],
)
def test_a_line_is_read(reply, preference):
    result = read(LINE, reply)
    assert result.preference == preference
    assert result.reason is None
    assert LABELS[result.facts["label"]] == preference


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "the reply is empty"),
        (" \n\t", "the reply is empty"),
        ("<think>hm</think>\n", "the reply is empty after its reasoning"),
        ("**", "the last line is no verdict"),
        ("A", "the last line is no verdict: 'A'"),
        ("Better: A\nHope this helps!", "the last line is no verdict: 'Hope this helps!'"),
        ("I think Better: A", "the last line is no verdict"),
        ("Better: C", "not one of the labels: 'C'"),
        ("Better: a", "not one of the labels: 'a'"),
        ("Better:", "not one of the labels: ''"),
        ("Better: A or B", "not one of the labels: 'A or B'"),
        ("Better: A (clearly)", "not one of the labels: 'A (clearly)'"),
        ("Better: A\n\nBetter: B", "two verdicts: 'A' and 'B'"),
        ("I'm sorry, but I can't compare these.", "the judge refused: 'I'm sorry"),
        ("Well. I cannot help with that", "the judge refused: 'I cannot help"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(reply, reason):
    result = read(LINE, reply)
    assert result.preference is None
    assert result.reason.startswith(reason)


def test_a_cut_reply_is_never_read():
    for reading, reply in ((LINE, "Better: A"), (JSON, '{"better": "A"}')):
        assert read(reading, reply, finished=False) == (
            None,
            "the reply was cut at the token limit",
            {},
        )
    assert read(LINE, "", finished=False).reason == "the reply is empty, cut at the token limit"


def test_a_marker_is_a_whole_word_and_may_be_decorated():
    bare = Reading(by="line", marker="**Verdict**", labels={"A": 1.0, "ed": 0.0})
    assert read(bare, "verdict A").preference == 1.0
    assert read(bare, "Verdicted").preference is None
    assert read(Reading(by="line", marker="So. It is", labels={"A": 1.0}), "so. it is A").preference
    assert read(Reading(by="line", labels={"A": 1.0, "B": 0.0}), "Hm.\nB").preference == 0.0


@pytest.mark.parametrize(
    ("reply", "preference"),
    [
        ('{"better": "A"}', 1.0),
        ('\n{"why": "B is wrong", "better": " tie "}\n', 0.5),
        ('```json\n{"better": "B"}\n```', 0.0),
        ('```\n{"better": "B"}```', 0.0),
        ('{"better": "B", "better": "B"}', 0.0),
        ('{"other": {"better": "A"}, "better": "B"}', 0.0),
        ('<think>{"better": "A"}</think>{"better": "B"}', 0.0),
    ],
)
def test_json_is_read(reply, preference):
    assert read(JSON, reply).preference == preference


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Better: A", "the reply is not JSON: 'Better: A'"),
        ('Here: {"better": "A"}', "the reply is not JSON"),
        ('{"better": "A"} {"better": "B"}', "the reply is not JSON"),
        ('"A"', "the reply is JSON but no object"),
        ("[]", "the reply is JSON but no object"),
        ("{}", "the object lacks a key: 'better'"),
        ('{"Better": "A"}', "the object lacks a key: 'better'"),
        ('{"x": {"better": "A"}}', "the object lacks a key: 'better'"),
        ('{"better": "C"}', "not one of the labels: 'C'"),
        ('{"better": null}', "not one of the labels: 'None'"),
        ('{"better": ["A"]}', "not one of the labels: '['A']'"),
        ('{"better": "A", "better": "B"}', "a key has two values: 'better'"),
        ('{"better": "A", "better": null}', "a key has two values: 'better'"),
        ("I can't do that", "the judge refused"),
        ("[" * 100_000, "the reply is not JSON"),
    ],
)
def test_json_that_cannot_be_read_says_why(reply, reason):
    result = read(JSON, reply)
    assert result.preference is None
    assert result.reason.startswith(reason)


def test_json_may_say_a_grade_as_a_number():
    grades = Reading(by="json", marker="grade", labels={"1": 0.0, "2": 1.0})
    assert read(grades, '{"grade": 2}').preference == 1.0
    assert read(grades, '{"grade": true}').preference is None
    assert read(grades, '{"grade": 2.0}').preference is None


def test_the_first_tokens_probabilities_are_weighed():
    logprobs = {"A": math.log(0.5), " A": math.log(0.1), "▁B": math.log(0.2), "The": math.log(0.2)}
    result = read(FIRST, "", logprobs=logprobs, finished=False)
    assert result.preference == pytest.approx(0.6 / 0.8)
    assert result.facts["mass"] == pytest.approx(0.8)
    assert result.facts["probabilities"] == pytest.approx({"A": 0.6, "B": 0.2})


def test_first_tokens_that_are_no_labels_are_unreadable():
    result = read(FIRST, "A", logprobs={"A": math.log(0.3), "The": math.log(0.7)})
    assert result.preference is None
    assert result.reason == "the labels are improbable: 0.300 together as first token, not 0.5"
    assert result.facts["mass"] == pytest.approx(0.3)
    assert read(FIRST, "A").reason == "no log-probabilities came with the reply"
    assert read(FIRST, "A", logprobs={"A": math.nan}).preference is None


def test_turning_the_labels_turns_the_preference():
    turned = Reading(by="logprobs", labels={"A": 0.0, "B": 1.0})
    logprobs = {"A": math.log(0.7), "B": math.log(0.25)}
    both = [read(one, "", logprobs=logprobs).preference for one in (FIRST, turned)]
    assert sum(both) == pytest.approx(1.0)


def test_a_score_is_not_read_from_a_reply():
    with pytest.raises(ValueError, match="not read from a reply"):
        read(Reading(by="score"), "0.3")


PIECES = st.sampled_from(
    [
        "Better:",
        "better",
        "A",
        "B>A",
        "\n",
        " ",
        "**",
        "```",
        ".",
        '{"better": "A"}',
        "}",
        "\0",
        "é",
    ]
)
REPLIES = st.text() | st.lists(PIECES).map("".join)


@given(REPLIES, st.booleans(), st.none() | st.dictionaries(st.text(), st.floats()))
def test_any_reply_is_read_or_has_a_printable_reason(reply, finished, logprobs):
    for reading in ALL:
        preference, reason, facts = read(reading, reply, finished=finished, logprobs=logprobs)
        assert (preference is None) == (reason is not None)
        assert preference is None or 0 <= preference <= 1
        assert reason is None or (len(reason) <= LONGEST_REASON and reason.isprintable())
        json.dumps(facts)


@given(REPLIES)
def test_without_the_marker_there_is_no_preference(reply):
    if "better:" not in reply.lower().replace("*", "").replace("`", ""):
        assert read(LINE, reply).preference is None
    if "better" not in reply:
        assert read(JSON, reply).preference is None


@given(st.text(), st.sampled_from(sorted(LABELS)))
def test_what_comes_before_a_verdict_never_makes_another(before, label):
    assert read(LINE, f"{before}\nBetter: {label}").preference in (LABELS[label], None)
