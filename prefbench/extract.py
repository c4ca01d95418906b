"""The final number of a written-out solution: what answers to sums in words are compared on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

INVALID = "[invalid]"
"""Where a response holds no number; lm-eval's own filters write the same."""

# A minus after a word or a number subtracts; ordinals ("the 3rd") are no numbers. Every repetition
# below is bounded or cannot overlap with what follows, so that no text is slow to read.
NUMBER = (
    r"(?:(?<![\w.)])-)?(?<![^\W_])"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?|\.[0-9]+)"
    r"(?![0-9]|(?:st|nd|rd|th)\b)"
)
OPERATOR = r"\s{0,2}(?:[-+*/×÷]|\\times|\\cdot|\\div)\s{0,2}"
SUM = rf"(?:{NUMBER}(?:{OPERATOR}{NUMBER}){{1,20}}\s{{0,2}}=\s{{0,2}})?"

ANY_NUMBER = re.compile(NUMBER)
FIRST_NUMBER = re.compile(
    r"[\s*_:=`{]{0,12}(?:\\\w{1,12}\{)?(?:[A-Za-z]\w{0,20}\s{0,2}=\s{0,2})?" + rf"{SUM}({NUMBER})"
)
LIST_ITEM = re.compile(r"[0-9]{1,2}[.):]\s+[A-Za-z]")

HASHES = re.compile(r"####[\s*_]{0,8}")
BOX = re.compile(r"\\f?box(?:ed)?\s?\{")
ANSWER = re.compile(
    r"\banswer\b[*_]{0,3}(?:\s{0,3}(?:is\b|would be\b|equals\b|[:=])|[ \t]{0,3}\n)[\s*_:=]{0,12}",
    re.IGNORECASE,
)
BOLD = re.compile(r"\*\*([^*\n]{1,100})\*\*")
CHECK = re.compile(
    r"(?:^|[.!?\n])[\s*#]{0,5}(?:(?:let me|let's|let us|we can|i will|i'll|now)\s)?"
    r"(?:(?:to\s)?(?:double[- ]?check|verify)|to check|check\b|verification)",
    re.IGNORECASE,
)
ASIDE = re.compile(r"\([^()\n]{0,200}\)|(?<!=)(?<!\bis)\s100\s?%")

REACH = 200
"""How many characters after a mark are read."""


def final_number(text: str) -> str | None:
    r"""The number a solution ends on, written plainly, or None where there is none.

    The first of these that gives a number:

    1. `#### 18`, the first in the text, as lm-eval's strict match reads it: what comes later is a
       check or a next question. Headings (`#### Step 1`, `#### 2. Add up`) are passed over.
    2. `\boxed{...}`, the last.
    3. "answer is", "answer:" and their like, the last, up to the end of the sentence.
    4. Bold that begins with a number, the last, unless an "=" follows it: then it was a step.
    5. The last number before an announced check, outside parentheses and not an assuring "100%";
       where nothing is left, the last number of all.

    After a mark of 2 or 3 the number is the one right there, or what the sum there comes to
    ("9 * 2 = 18"), else the last one in reach. Currency and percent signs, thousands commas and
    idle zeros are dropped: "$1,234.50" is "1234.5". A fraction stays one: "3/4".
    """
    text = _plain(text)
    for rule in (_after_hashes, _in_box, _after_answer, _in_bold, _last):
        if number := rule(text):
            return _normal(number)
    return None


def final_number_filter(resps: Iterable[Sequence[str]], docs: Sequence[Any]) -> list[list[str]]:
    """`final_number` of every response, "[invalid]" where there is none: lm-eval's `custom` filter.

    Args:
        resps: the responses to each document; what is no text (a failed request) is invalid.
        docs: the documents, not read.
    """
    return [
        [(final_number(text) if isinstance(text, str) else None) or INVALID for text in texts]
        for texts in resps
    ]


def _after_hashes(text: str) -> str | None:
    for mark in HASHES.finditer(text):
        line = text[mark.end() : mark.end() + REACH].partition("\n")[0]
        if not LIST_ITEM.match(line) and (number := FIRST_NUMBER.match(line)):
            return number[1]
    return None


def _in_box(text: str) -> str | None:
    for mark in reversed(list(BOX.finditer(text))):
        if number := _first_or_last(_until_closed(text[mark.end() : mark.end() + REACH])):
            return number
    return None


def _after_answer(text: str) -> str | None:
    for mark in reversed(list(ANSWER.finditer(text))):
        sentence = re.split(r"\n|[.!?](?:\s|$)", text[mark.end() : mark.end() + REACH])[0]
        if number := _first_or_last(sentence):
            return number
    return None


def _in_bold(text: str) -> str | None:
    text = CHECK.split(text)[0]
    for mark in reversed(list(BOLD.finditer(text))):
        if not LIST_ITEM.match(mark[1]) and (number := FIRST_NUMBER.match(mark[1])):
            return None if "=" in text[mark.end() :] else number[1]
    return None


def _last(text: str) -> str | None:
    told = ANY_NUMBER.findall(ASIDE.sub(" ", CHECK.split(text)[0])) or ANY_NUMBER.findall(text)
    return told[-1] if told else None


def _first_or_last(text: str) -> str | None:
    if number := FIRST_NUMBER.match(text):
        return number[1]
    numbers = ANY_NUMBER.findall(text)
    return numbers[-1] if numbers else None


def _until_closed(text: str) -> str:
    """The text before the brace that closes what was open before it."""
    depth = 1
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[:position]
    return text


def _plain(text: str) -> str:
    """Minus signs as "-", and LaTeX's and money's signs out of the numbers' way."""
    text = re.sub(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}", r"\1/\2", text.replace("−", "-"))
    text = re.sub(r"\{,\}|\\,|,\\!", ",", text)
    text = re.sub(r"-\\?[$€£]", "-", text)
    return re.sub(r"\\[()\[\]!]|\\?[$€£]", " ", text).replace("\\%", "%")


def _normal(number: str) -> str:
    if "/" in number:
        return number.replace(",", "")
    sign = "-" if number.startswith("-") else ""
    whole, _, decimals = number.removeprefix("-").replace(",", "").partition(".")
    plain = (whole.lstrip("0") or "0") + ("." + decimals).rstrip("0").rstrip(".")
    return plain if plain == "0" else sign + plain
