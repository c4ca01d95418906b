"""What the demo's judging language model learns from: prompts of judges, and what to reply."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NamedTuple

from prefbench.demo.world import Row, World
from prefbench.documents import ROLES, TURN
from prefbench.judges.judge import Ask, Turn
from prefbench.judges.prompts import render
from prefbench.judges.recipe import JudgeRecipe, judges_folder, read_recipe

JUDGE_NAME = "demo_llm"
SPOILED = 0.4
"""Share of the pairs whose worse reply is a good one, spoiled: words alone do not tell it."""

SPOILS: tuple[Callable[[list[str], Random], list[str]], ...] = (
    lambda words, rng: words[: max(1, len(words) // 3)],
    lambda words, rng: words + words,
    lambda words, rng: [],
    lambda words, rng: rng.sample(words, len(words)),
)
"""Cut, said twice, empty, jumbled."""


class Dialogue(NamedTuple):
    """What was said, and two replies to it."""

    conversation: tuple[Turn, ...]
    better: str
    worse: str


class Lesson(NamedTuple):
    """A judge's messages, its reply, and where in the user turn each answer's fence ends."""

    messages: list[dict[str, str]]
    reply: str
    ends: tuple[str, str]
    """The user turn up to there, first and second answer."""
    good: tuple[bool, bool]
    """Whether the answer that ends there is the better one."""


def demo_judge() -> JudgeRecipe:
    """The shipped judge that the model is trained for."""
    return read_recipe(judges_folder() / f"{JUDGE_NAME}.yaml")


def dialogues(rows: Sequence[Row]) -> list[Dialogue]:
    """Rows in HH-RLHF's columns, taken apart."""
    return [_dialogue(row) for row in rows]


def lessons(world: World, recipe: JudgeRecipe, rng: Random) -> Iterator[Lesson]:
    """Pairs without end from the train split, each in both orders, one after the other."""
    known = dialogues(world.dialogues["train"])
    while True:
        for said in rng.sample(known, len(known)):
            worse = spoiled(said.better, rng) if rng.random() < SPOILED else said.worse
            yield _lesson(recipe, said.conversation, (said.better, worse), 0, rng)
            yield _lesson(recipe, said.conversation, (worse, said.better), 1, rng)


def spoiled(reply: str, rng: Random) -> str:
    """A good reply cut to a third, said twice, left out, or with its words in another order."""
    return " ".join(rng.choice(SPOILS)(reply.split(), rng))


def _lesson(
    recipe: JudgeRecipe,
    conversation: tuple[Turn, ...],
    answers: tuple[str, str],
    better: int,
    rng: Random,
) -> Lesson:
    assert recipe.verdict is not None
    delimiter = f"{rng.getrandbits(48):012x}"
    messages = render(recipe, Ask(conversation, *answers), delimiter=delimiter)
    user = messages[-1]["content"]
    # The answers are the last texts that the prompt shows.
    *_, first, second = (found.end() for found in re.finditer(f"END {delimiter}", user))
    labels = recipe.verdict.labels
    label = (max, min)[better](labels, key=lambda one: labels[one])
    return Lesson(
        messages,
        f" {recipe.verdict.marker} {label}",
        (user[:first], user[:second]),
        (better == 0, better == 1),
    )


def _dialogue(row: Row) -> Dialogue:
    turn = "\n\nAssistant:"
    prompt, _, better = row["chosen"].rpartition(turn)
    worse = row["rejected"].rpartition(turn)[2]
    _, *said = TURN.split(prompt)  # speaker, text, speaker, text, ...
    turns = zip(said[::2], said[1::2], strict=True)
    conversation = tuple(Turn(ROLES[who], text.strip()) for who, text in turns)
    return Dialogue(conversation, better.strip(), worse.strip())
