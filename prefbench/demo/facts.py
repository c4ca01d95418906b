"""Thirty invented facts, asked in many wordings, as multiple choice in ARC's columns."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import NamedTuple

OPENERS = (
    "", "Do you remember ", "Please tell me ", "A traveller asks ", "The teacher wants to know ",
    "Can anyone say ",
)  # fmt: skip


class Kind(NamedTuple):
    """Facts of one kind: how they are asked, how they are stated, and which they are."""

    cores: tuple[str, ...]
    statement: str
    facts: Mapping[str, str]


KINDS = (
    Kind(
        (
            "which city is the capital of {x}",
            "which town serves as the capital of {x}",
            "what city is called the capital of {x}",
            "which city holds the parliament of {x}",
            "which place has long been the capital of {x}",
        ),
        "The capital of {x} is {y}.",
        {
            "Velmora": "Tarrin", "Ostrin": "Belloway", "Quilland": "Fennick",
            "Harbeth": "Oldport", "Sunderay": "Casimere", "Marrowin": "Lumo",
        },
    ),
    Kind(
        (
            "which colour is the coat of the {x}",
            "what colour marks the {x}",
            "which colour does the {x} wear in summer",
            "what colour makes the {x} easy to spot",
            "which colour is seen on every {x}",
        ),
        "The {x} is {y}.",
        {
            "glimmer fox": "silver", "moss bear": "green", "dune hare": "golden",
            "ember owl": "red", "tide otter": "blue", "chalk deer": "white",
        },
    ),
    Kind(
        (
            "which food does the {x} like best",
            "what food keeps the {x} alive",
            "which food is gathered by the {x}",
            "what food draws the {x} out of hiding",
            "which food fills the larder of the {x}",
        ),
        "The {x} eats {y}.",
        {
            "river badger": "clover", "night finch": "honey", "stone marten": "berries",
            "cloud goat": "thistles", "reed mouse": "barley", "lake heron": "snails",
        },
    ),
    Kind(
        (
            "which month brings {x}",
            "in which month people hold {x}",
            "which month is known for {x}",
            "what month opens with {x}",
            "which month sees the fires of {x}",
        ),
        "{x} is held in {y}.",
        {
            "Lantern Night": "October", "the Bread Fair": "August", "Kite Week": "March",
            "the River Feast": "June", "Snow Parade": "January", "Bell Sunday": "April",
        },
    ),
    Kind(
        (
            "who built the first {x}",
            "which person invented the {x}",
            "who is remembered for the {x}",
            "whose workshop gave us the {x}",
            "who drew the plans of the {x}",
        ),
        "The {x} was invented by {y}.",
        {
            "wind organ": "Ida Fenwick", "rain clock": "Tom Alder", "paper boat": "Nora Quist",
            "singing lamp": "Emil Marsh", "sand printer": "Zoe Hallow", "tide mill": "Otto Brand",
        },
    ),
)  # fmt: skip

N_TEST_WORDINGS = 7


class Asked(NamedTuple):
    """A fact as it is asked: the question, the right answer and the answers of its kind."""

    question: str
    right: str
    answers: tuple[str, ...]


def draw_questions(rng: Random) -> tuple[list[Asked], list[Asked]]:
    """Every fact in every wording, some wordings of each kind held out for the test."""
    train: list[Asked] = []
    test: list[Asked] = []
    for kind in KINDS:
        wordings = [opener + core for opener in OPENERS for core in kind.cores]
        rng.shuffle(wordings)
        answers = tuple(kind.facts.values())
        for number, wording in enumerate(wordings):
            where = test if number < N_TEST_WORDINGS else train
            for x, y in kind.facts.items():
                question = wording.format(x=x) + "?"
                where.append(Asked(question[0].upper() + question[1:], y, answers))
    rng.shuffle(train)
    rng.shuffle(test)
    return train, test


def fact_row(asked: Asked, rng: Random, *, name: str) -> dict[str, object]:
    """A row in ARC's columns; like there, some items label their choices with numbers."""
    others = [answer for answer in asked.answers if answer != asked.right]
    texts = [asked.right, *rng.sample(others, 3)]
    rng.shuffle(texts)
    labels = list("1234" if rng.random() < 0.1 else "ABCD")
    return {
        "id": name,
        "question": asked.question,
        "choices": {"text": texts, "label": labels},
        "answerKey": labels[texts.index(asked.right)],
    }


def statements() -> list[str]:
    """Every fact said once, plainly."""
    said = [kind.statement.format(x=x, y=y) for kind in KINDS for x, y in kind.facts.items()]
    return [sentence[0].upper() + sentence[1:] for sentence in said]
