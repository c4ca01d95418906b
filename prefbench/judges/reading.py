"""A judge's reply read: how far the first answer is preferred, or why that cannot be said."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from prefbench.judges.recipe import Reading

LEAST_MASS = 0.5
"""Probability that the labels must have together; below, the judge would say something else."""
LONGEST_REASON = 120
QUOTED = 40
"""Characters of the judge's own words that a reason repeats."""

EMPTY = "the reply is empty"
CUT = "cut at the token limit"
NO_LABEL = "not one of the labels"

DECORATION = re.compile(r"[*`]")
CODE_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
REFUSAL = re.compile(
    r"\b(?:i(?:['’]m| am) (?:sorry|unable|not able)|i (?:can(?:['’]t|not)|won['’]t|will not)"
    r"|i must decline|i apologi[sz]e)\b",
    re.IGNORECASE,
)


class Read(NamedTuple):
    """What was read from a reply.

    `preference` is how far the first answer is preferred, 0 to 1, or None with the reason, of which
    the part before a colon can be counted. `facts` may hold the `label`, or the `probabilities` of
    all labels and their sum, `mass`.
    """

    preference: float | None
    reason: str | None
    facts: dict[str, Any]


def read(
    reading: Reading,
    reply: str,
    *,
    finished: bool = True,
    logprobs: Mapping[str, float] | None = None,
) -> Read:
    """The preference that a reply states; what is not said as agreed is not guessed.

    Args:
        reading: how this judge says its verdict.
        reply: its words. What a reasoning model thinks before `</think>` is left out.
        finished: the reply ended by itself. One that was cut is unreadable whatever stands in it:
            the verdict may have been still to come. The first token alone is never cut.
        logprobs: of the candidates for the first token, in nats, for `by: logprobs`.
    """
    if reading.by == "logprobs":
        return _by_logprobs(reading, logprobs)
    if reading.by == "score":
        raise ValueError("a reward model's score is not read from a reply")
    if not reply.strip():
        return _unreadable(EMPTY if finished else f"{EMPTY}, {CUT}")
    if not finished:
        return _unreadable(f"the reply was {CUT}")
    reply = reply.rpartition("</think>")[2]
    if not reply.strip():
        return _unreadable(f"{EMPTY} after its reasoning")
    return _by_json(reading, reply) if reading.by == "json" else _by_line(reading, reply)


def _by_line(reading: Reading, reply: str) -> Read:
    """By the last line; lines of nothing but decoration, as a code fence, do not count."""
    lines = [plain for line in reply.splitlines() if (plain := _plain(line))]
    said = [_after(reading.marker, line) for line in lines]
    if not lines or said[-1] is None:
        return _without_verdict(reply, "the last line is no verdict", lines[-1] if lines else "")
    labels = {_plain(label): label for label in reading.labels}
    label = labels.get(said[-1])
    if label is None:
        return _unreadable(f"{NO_LABEL}: {_quote(said[-1])}")
    others = [labels[one] for one in said if one in labels and labels[one] != label]
    if others:
        return _unreadable(f"two verdicts: {_quote(others[0])} and {_quote(label)}")
    return Read(reading.labels[label], None, {"label": label})


def _after(marker: str, line: str) -> str | None:
    """What follows the marker on a line; None where the line does not begin with it."""
    marker = _undecorated(marker)
    found = re.match(re.escape(marker), line, re.IGNORECASE)
    if found is None:
        return None
    rest = line[found.end() :]
    if marker and marker[-1].isalnum() and rest and rest[0].isalnum():
        return None  # the marker is only the beginning of a word
    return rest.strip()


def _plain(line: str) -> str:
    """A line without asterisks, backticks, double spaces and a last full stop."""
    return _undecorated(line).removesuffix(".").rstrip()


def _undecorated(line: str) -> str:
    return " ".join(DECORATION.sub("", line).split())


def _by_json(reading: Reading, reply: str) -> Read:
    """By one key of an object that is all of the reply, or all of a code fence that is."""
    text = reply.strip()
    if fenced := CODE_FENCE.fullmatch(text):
        text = fenced[1]
    try:
        found = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return _without_verdict(reply, "the reply is not JSON", text)
    if not isinstance(found, _Pairs):
        return _unreadable("the reply is JSON but no object")
    values = [value for key, value in found if key == reading.marker]
    if not values:
        return _unreadable(f"the object lacks a key: {_quote(reading.marker)}")
    said = [_as_label(value) for value in values]
    label = said[0]
    if any(one != label for one in said[1:]):
        return _unreadable(f"a key has two values: {_quote(reading.marker)}")
    if label is None or label not in reading.labels:
        return _unreadable(f"{NO_LABEL}: {_quote(_as_words(values[0]))}")
    return Read(reading.labels[label], None, {"label": label})


class _Pairs(list[tuple[str, Any]]):
    """An object's keys and values; a dict would keep only the last of two equal keys."""


def _as_label(value: Any) -> str | None:
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _as_words(value: Any) -> str:
    """A value of JSON as a reason quotes it."""
    try:
        return str(value)
    except RecursionError:  # it is written in more levels than it was read in
        return "values in values without end"


def _by_logprobs(reading: Reading, logprobs: Mapping[str, float] | None) -> Read:
    """By the mean of the labels' preferences, weighted with their probabilities."""
    if not logprobs:
        return _unreadable("no log-probabilities came with the reply")
    probabilities = dict.fromkeys(reading.labels, 0.0)
    for token, logprob in logprobs.items():
        label = token.strip(" \t\r\n▁Ġ")  # the last two are how tokenizers write a space
        if label in probabilities and not math.isnan(logprob):
            probabilities[label] += math.exp(min(logprob, 0.0))
    mass = sum(probabilities.values())
    facts = {"mass": mass, "probabilities": probabilities}
    if mass < LEAST_MASS:
        reason = f"the labels are improbable: {mass:.3f} together as first token, not {LEAST_MASS}"
        return Read(None, reason, facts)
    total = sum(reading.labels[label] * each for label, each in probabilities.items())
    return Read(min(1.0, max(0.0, total / mass)), None, facts)


def _without_verdict(reply: str, otherwise: str, words: str) -> Read:
    """A reply with no verdict at all: refused, or just not as agreed."""
    if refused := REFUSAL.search(reply):
        return _unreadable(f"the judge refused: {_quote(reply[refused.start() :])}")
    return _unreadable(f"{otherwise}: {_quote(words)}" if words else otherwise)


def _unreadable(reason: str) -> Read:
    return Read(None, reason[:LONGEST_REASON], {})


def _quote(words: str) -> str:
    """A judge's own words, short and without anything that a terminal would obey."""
    words = words[: 4 * QUOTED]
    words = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return f"'{words}'" if len(words) <= QUOTED else f"'{words[: QUOTED - 1]}…'"
