"""Preference pairs made of benchmarks that have none: documents as in prefbench.documents.

Each pair of a question is a document of its own; those of one question share their cluster. The
prompt is as lm-eval words the benchmark, and the space before a response belongs to the response.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from prefbench.documents import (
    IDENTICAL,
    CausalGroup,
    Dataset,
    Row,
    causal_groups,
    hellaswag,
    hh_pairs,
    plain_pairs,
)
from prefbench.errors import DataError

NOTHING_TO_CORRUPT = "no intermediate result to corrupt"


# --- the right choice against each wrong one


def arc_pairs(dataset: Dataset) -> Dataset:
    """ARC: the right choice against each other choice of its question.

    Columns read: question, choices (text, label), answerKey. Of ARC-Challenge this makes the 3,357
    pairs of the train and the 895 of the validation split that Smaug's authors count.

    Raises:
        DataError: no choice has the label that `answerKey` names.

    Source: Pal et al. 2024, arxiv.org/abs/2402.13228, their published datasheet.
    """
    _require(dataset, "question", "choices", "answerKey")
    return _documents(dataset, (pair for row in dataset for pair in _arc_pairs(row)))


def _arc_pairs(row: Row) -> Iterator[dict[str, str]]:
    labels, texts = row["choices"]["label"], row["choices"]["text"]
    if row["answerKey"] not in labels:
        raise DataError(
            f"question {row['question']!r:.80}: no choice is labelled {row['answerKey']!r:.20}"
        )
    return _against_the_rest(_asked(row), texts, labels.index(row["answerKey"]))


def hellaswag_pairs(dataset: Dataset) -> Dataset:
    """HellaSwag: the right ending against each of the three others.

    The validation split gives 30,126 pairs, the number of Smaug's evaluation pairs, and is what the
    HellaSwag benchmark itself is scored on: who trains on such pairs trains on the benchmark.
    """
    return _documents(
        dataset,
        (
            pair
            for row in hellaswag(dataset)
            for pair in _against_the_rest(row["query"], row["choices"], row["gold"])
        ),
    )


def _against_the_rest(prompt: str, choices: list[str], right: int) -> Iterator[dict[str, str]]:
    for place, choice in enumerate(choices):
        if place != right:
            yield {"prompt": prompt, "chosen": f" {choices[right]}", "rejected": f" {choice}"}


# --- a solution against itself with a slip

DIGITS = r"(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
NUMBER = rf"[$€£]?(?P<sign>-?)[$€£]?{DIGITS}"
MARK = re.compile(rf"<<[^<>\n]*=\s*{NUMBER}%?\s*>>")
BEHIND = re.compile(rf"(?P<apart> ?){NUMBER}(?P<more>[,./]\d)?")
FINAL = re.compile(rf"\n#### *{NUMBER}\s*$")


class Slip(NamedTuple):
    """A digit that can be another: where it stands, once or twice, and what it can become."""

    places: tuple[int, ...]
    digits: tuple[str, ...]


def gsm8k_pairs(dataset: Dataset) -> Dataset:
    """GSM8K: the solution against itself with one digit of one intermediate result replaced.

    The digit is replaced in a calculator mark, `<<48/2=24>>`, and in the number right behind it if
    there is one. All else stays, so later steps still reckon with the true result, and the answer
    is right. Which digit becomes which hangs on question and solution alone. The final result is
    never touched: neither marks whose result is the answer, nor the last mark where it stands in
    the last line. A solution that has no other mark is missing.

    Columns read: question, answer.

    Source: the rule is that of the MetaMath pairs of Pal et al. 2024, arxiv.org/abs/2402.13228, as
    their datasheet tells it; how a result is corrupted is not told there, and is ours.
    """
    _require(dataset, "question", "answer")
    rows = (
        {
            "prompt": _asked(row),
            "chosen": f" {row['answer']}",
            "rejected": f" {_corrupted(row['question'], row['answer'])}",
        }
        for row in dataset
    )
    documents = _documents(dataset, rows)
    # What cannot be corrupted has come back as it was.
    missing = [NOTHING_TO_CORRUPT if why == IDENTICAL else why for why in documents["missing"]]
    return documents.remove_columns("missing").add_column("missing", missing)


def _corrupted(question: str, solution: str) -> str:
    """The solution with its slip, or as it was."""
    steps = _slips(solution)
    if not steps:
        return solution
    drawn = int.from_bytes(hashlib.sha256(f"{question}\n{solution}".encode()).digest())
    drawn, step = divmod(drawn, len(steps))  # each step alike, however many digits it has
    drawn, which = divmod(drawn, len(steps[step]))
    slip = steps[step][which]
    text = list(solution)
    for place in slip.places:
        text[place] = slip.digits[drawn % len(slip.digits)]
    return "".join(text)


def _slips(solution: str) -> list[list[Slip]]:
    """For each intermediate result, the slips that it allows; results that allow none are left out.

    The answer must stand behind "####" as in the data; without it nothing is known to be
    intermediate.
    """
    final = FINAL.search(solution)
    if not final:
        return []
    marks = list(MARK.finditer(solution, 0, final.start()))
    if marks and "\n" not in solution[marks[-1].end() : final.start()].strip():
        marks.pop()
    answer = abs(_value(final))  # a loss of -50 is the answer too where 50 is asked for
    steps = (_slips_of(mark, answer) for mark in marks if abs(_value(mark)) != answer)
    return [step for step in steps if step]


def _slips_of(mark: re.Match[str], answer: Decimal) -> list[Slip]:
    numbers = [mark]
    if behind := BEHIND.match(mark.string, mark.end()):
        if _value(behind) == _value(mark) and not behind["more"]:
            numbers.append(behind)
        elif not behind["apart"]:
            return []  # 3.33 rounded to 3.3, say: the slip would show in one of them alone
    digits = [_digits(number) for number in numbers]
    shared = set.intersection(*(set(each) for each in digits))
    leading = max((power for power in shared if _at(mark, digits[0][power]) != "0"), default=0)
    slips = []
    for power in sorted(shared, reverse=True):
        if power > leading:
            continue
        old = _at(mark, digits[0][power])
        rest = abs(_value(mark)) - int(old) * Decimal(10) ** power
        new = tuple(
            digit
            for digit in "0123456789"
            if digit != old
            and not (digit == "0" and power == leading)  # 12 does not become 02
            and rest + int(digit) * Decimal(10) ** power != answer
        )
        slips.append(Slip(tuple(each[power] for each in digits), new))
    return slips


def _digits(number: re.Match[str]) -> dict[int, int]:
    """Where a number's digits stand in the text, by the power of ten that each counts."""
    digits, start = number["digits"], number.start("digits")
    n_whole = sum(character.isdigit() for character in digits.partition(".")[0])
    places = (start + i for i, character in enumerate(digits) if character.isdigit())
    return {n_whole - 1 - i: place for i, place in enumerate(places)}


def _at(number: re.Match[str], place: int) -> str:
    return number.string[place]


def _value(number: re.Match[str]) -> Decimal:
    return Decimal(number["sign"] + number["digits"].replace(",", ""))


# --- two prompts


def causal_effects(dataset: Dataset) -> Dataset:
    r"""CausalDialogue: a cause and its effect against another cause and what never followed it.

    A document per cause and effect that were seen together: `prompt` is history and cause, `chosen`
    the effect; `prompt_rejected` and `rejected` are a pair of the group's negatives with another
    cause, those in turn. The two effects may be the same text: that it follows one cause
    and not the other is what the pair tells. What has no negative with another cause is left out.
    Texts as in `causal_pairs`; `messages_rejected` are the turns of the other prompt.

    Raises:
        DataError: nothing is left, or a dialogue is not a graph as `causal_groups` needs it.
    """
    _require(dataset, "dialog_name", "category", "original_data")
    groups = (group for row in dataset for group in causal_groups(row))
    documents = [document for group in groups for document in _effects(group)]
    if not documents:
        raise DataError(
            "causal_effects: no dialogue has an effect of one cause that another cause never had; "
            "is this CausalDialogue's *_dag.json?"
        )
    return type(dataset).from_list(documents)


def _effects(group: CausalGroup) -> Iterator[dict[str, Any]]:
    turns: Counter[str] = Counter()
    for x, y in group.edges:
        rivals = [negative for negative in group.negatives if negative[0] != x]
        if not rivals:
            continue
        other_x, other_y = rivals[turns[x] % len(rivals)]
        turns[x] += 1
        prompt, other = ("".join(f"{line}\n" for line in (*group.history, c)) for c in (x, other_x))
        yield {
            "prompt": prompt,
            "chosen": [y],
            "prompt_rejected": other,
            "rejected": [other_y],
            "cluster": group.cluster,
            "missing": "",
            "messages": [{"role": "user", "content": prompt.strip()}],
            "messages_rejected": [{"role": "user", "content": other.strip()}],
        }


# --- domains


def hh_domain_pairs(dataset: Dataset) -> Dataset:
    """HH-RLHF's pairs with a column `domain`, domains by turns, so that the first n have them all.

    Columns read: chosen, rejected, domain.
    """
    _require(dataset, "chosen", "rejected", "domain")
    places: dict[str, list[int]] = {}
    for place, domain in enumerate(dataset["domain"]):
        places.setdefault(domain, []).append(place)
    turns = chain.from_iterable(zip_longest(*places.values()))
    by_turns = dataset.select([place for place in turns if place is not None])
    return hh_pairs(by_turns).add_column("domain", by_turns["domain"][:])


# --- what they share


def _asked(row: Row) -> str:
    return f"Question: {row['question']}\nAnswer:"


def _documents(dataset: Dataset, pairs: Iterable[dict[str, str]]) -> Dataset:
    return plain_pairs(type(dataset).from_list(list(pairs)))


def _require(dataset: Dataset, *columns: str) -> None:
    if absent := [column for column in columns if column not in dataset.column_names]:
        raise DataError(
            f"the data set has no column {', '.join(absent)}, only "
            f"{', '.join(dataset.column_names)}; does the task name the right data set?"
        )
