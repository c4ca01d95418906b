"""Verdicts: any reply is one by the judge's own rule, or a reason."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from prefbench.judges.reading import LONGEST_REASON, read
from prefbench.judges.recipe import Reading
from tests.fuzz.conftest import examples

LABELS = {"A": 1.0, "B": 0.0, "tie": 0.5, "A>B": 0.75, "7": 0.25}
LINE = Reading(by="line", marker="Better:", labels=LABELS)
BARE = Reading(by="line", labels=LABELS)
JSON = Reading(by="json", marker="better", labels=LABELS)
FIRST = Reading(by="logprobs", labels=LABELS)

PIECES = st.sampled_from(
    (
        "Better:", "better: ", "BETTER :", "A", "B", "tie", "7", "A>B", " ", "\n", "\r", "\x1c",
        "\u2028", "**", "`", "```json\n", "```", ".", '{"better": "A"}', '{"better": ', '"B"', "}",
        "{", "[", ",", '"better"', ":", "<think>", "</think>", "I can't", "\0", "\ud800", "7e0",
    )
)  # fmt: skip
REPLIES = st.lists(PIECES, max_size=14).map("".join) | st.text(st.characters(exclude_categories=()))
DEEP = st.builds(
    lambda n, pair: '{"better":' + pair[0] * n + "1" + pair[1] * n + "}",
    st.integers(1, 2000),
    st.sampled_from((('{"a":', "}"), ("[", "]"))),
)


def said_by_line(reply: str, marker: str) -> float | None:
    """The rule in other words: without `*` and backticks, the last line that has anything on it is
    the marker and one label, with a full stop or without."""
    bare = reply.rpartition("</think>")[2].replace("*", "").replace("`", "")
    lines = [" ".join(line.split()) for line in bare.splitlines()]
    last = [line for line in lines if line.removesuffix(".").strip()][-1:]
    for line in last:
        for label, preference in LABELS.items():
            for end in ("", ".", " ."):
                begins = line.lower().startswith(marker.lower())
                if begins and line[len(marker) :].strip() == label + end:
                    return preference
    return None


def said_by_json(reply: str) -> float | None:
    """The rule in other words: all of the reply, or of its fence, is an object with a label."""
    text = reply.rpartition("</think>")[2].strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.removesuffix("```").partition("\n")[2]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    label = found.get("better") if isinstance(found, dict) else None
    if isinstance(label, bool | float):
        return None
    return LABELS.get(str(label).strip()) if isinstance(label, str | int) else None


def check(reading: Reading, reply: str, *, finished: bool = True) -> float | None:
    preference, reason, facts = read(reading, reply, finished=finished)
    assert (preference is None) == (reason is not None)
    assert reason is None or (len(reason) <= LONGEST_REASON and reason.isprintable())
    json.dumps(facts)
    assert finished or preference is None
    return preference


@examples(400)
@given(REPLIES | DEEP, st.booleans())
def test_a_preference_is_only_what_the_reply_says(reply: str, finished: bool) -> None:
    for reading, marker in ((LINE, "Better:"), (BARE, "")):
        found = check(reading, reply, finished=finished)
        assert found is None or found == said_by_line(reply, marker)
    found = check(JSON, reply, finished=finished)
    assert found is None or found == said_by_json(reply)


@examples(200)
@given(REPLIES, st.sampled_from(sorted(LABELS)), st.sampled_from(("", "**", "`")))
def test_a_verdict_as_agreed_is_read_unless_another_stands_before_it(
    before: str, label: str, around: str
) -> None:
    before = before.replace("</think>", "")
    for reading, verdict in (
        (LINE, f"{around}Better: {label}{around}."),
        (JSON, json.dumps({"why": before, "better": label})),
    ):
        reply = f"{before}\n{verdict}" if reading is LINE else verdict
        result = read(reading, reply)
        assert result.preference == LABELS[label] or str(result.reason).startswith("two verdicts")


@examples(200)
@given(st.dictionaries(st.sampled_from((*LABELS, " A", "▁B", "x", "")) | st.text(), st.floats()))
def test_first_tokens_give_a_share_or_a_reason(logprobs: dict[str, float]) -> None:
    preference, reason, facts = read(FIRST, "", logprobs=logprobs)
    assert (preference is None) == (reason is not None)
    assert preference is None or 0 <= preference <= 1
    known = {token.strip(" \t\r\n▁Ġ") for token, each in logprobs.items() if not math.isnan(each)}
    if not known & set(LABELS):
        assert preference is None
    json.dumps(facts, allow_nan=False)
