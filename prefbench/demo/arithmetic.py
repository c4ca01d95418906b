"""Word problems with three numbers, worked in two steps, and pairs with one number corrupted."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

NAMES = (
    "Ada", "Bruno", "Clara", "Dario", "Elsa", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Kira",
    "Lionel", "Mara", "Nils", "Olga", "Pavel", "Rosa", "Simon", "Tessa", "Victor",
)  # fmt: skip

THINGS = (
    "apples", "acorns", "beads", "books", "buttons", "candles", "cards", "coins", "cups", "eggs",
    "flowers", "kites", "lanterns", "marbles", "nuts", "pears", "pencils", "plums", "ribbons",
    "shells", "stamps", "stones",
)  # fmt: skip


class Wording(NamedTuple):
    """One way to tell a problem and to explain its two steps."""

    question: str
    first: str
    second: str


WORDINGS = (
    Wording(
        "{one} has {a} {things}. {two} gives {one} {b} more, and {three} gives {one} {c} more. "
        "How many {things} does {one} have now?",
        "With the first gift that is {a} + {b} = {ab}.",
        "With the second gift that is {ab} + {c} = {abc}.",
    ),
    Wording(
        "{one} finds {a} {things} on Monday, {b} on Tuesday and {c} on Wednesday. "
        "How many {things} does {one} find in all?",
        "By Tuesday it is {a} + {b} = {ab}.",
        "By Wednesday it is {ab} + {c} = {abc}.",
    ),
    Wording(
        "There are {a} {things} in the basket, {b} in the box and {c} on the table. "
        "How many {things} are there altogether?",
        "The basket and the box hold {a} + {b} = {ab}.",
        "With the table there are {ab} + {c} = {abc}.",
    ),
    Wording(
        "{one} brings {a} {things} to the fair. {two} brings {b} {things} and {three} brings {c}. "
        "How many {things} do they bring together?",
        "Two of them bring {a} + {b} = {ab}.",
        "All three bring {ab} + {c} = {abc}.",
    ),
    Wording(
        "A shop sells {a} {things} before noon, {b} after noon and {c} in the evening. "
        "How many {things} does the shop sell that day?",
        "Until the evening it sells {a} + {b} = {ab}.",
        "With the evening it sells {ab} + {c} = {abc}.",
    ),
    Wording(
        "{one} packs {a} {things} into a bag, then {b} more, and at last {c} more. "
        "How many {things} are in the bag?",
        "Then the bag holds {a} + {b} = {ab}.",
        "At last the bag holds {ab} + {c} = {abc}.",
    ),
)


class Problem(NamedTuple):
    """A question, its two worked steps, and the numbers the steps arrive at."""

    question: str
    steps: tuple[str, str]
    results: tuple[int, int]

    @property
    def answer(self) -> str:
        """The worked answer, its last line in GSM8K's form."""
        return "\n".join((*self.steps, f"#### {self.results[1]}"))


def draw_problem(rng: Random) -> Problem:
    """A problem whose sum stays below fifty."""
    a, b, c = rng.randint(3, 30), rng.randint(2, 9), rng.randint(2, 9)
    one, two, three = rng.sample(NAMES, 3)
    wording = rng.choice(WORDINGS)
    words = {"one": one, "two": two, "three": three, "things": rng.choice(THINGS)}
    words |= {"a": str(a), "b": str(b), "c": str(c), "ab": str(a + b), "abc": str(a + b + c)}
    return Problem(
        wording.question.format(**words),
        (wording.first.format(**words), wording.second.format(**words)),
        (a + b, a + b + c),
    )


def draw_problems(rng: Random, n: int, *, taken: set[str]) -> list[Problem]:
    """`n` problems whose questions are not in `taken`; their questions are added to it."""
    problems: list[Problem] = []
    while len(problems) < n:
        problem = draw_problem(rng)
        if problem.question not in taken:
            taken.add(problem.question)
            problems.append(problem)
    return problems


def corrupt(problem: Problem, rng: Random) -> str:
    """The worked answer with the result of one step wrong there, and nothing else touched."""
    which = rng.randrange(2)
    right = problem.results[which]
    wrong = rng.choice([n for n in range(max(1, right - 12), right + 13) if n != right])
    steps = list(problem.steps)
    steps[which] = steps[which].replace(f"= {right}.", f"= {wrong}.")
    return "\n".join((*steps, f"#### {problem.results[1]}"))


def arithmetic_row(problem: Problem) -> dict[str, object]:
    """A row in GSM8K's columns."""
    return {"question": problem.question, "answer": problem.answer}


def arithmetic_pair(problem: Problem, rng: Random) -> dict[str, object]:
    """A row in the columns of Smaug's pairs; the leading space belongs to the response."""
    return {
        "prompt": f"Question: {problem.question}\nAnswer:",
        "chosen": f" {problem.answer}",
        "rejected": f" {corrupt(problem, rng)}",
    }
