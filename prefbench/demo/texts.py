"""What the demo's checkpoints are trained on: plain documents for the base, pairs for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from random import Random
from typing import NamedTuple, TypeVar

from prefbench.demo.facts import statements
from prefbench.demo.world import Row, World
from prefbench.documents import causal_groups

MAX_SHOTS = 6
"""Long documents hold up to this many questions, as a five-shot prompt and its item do."""

SHARES = {"arithmetic": 0.65, "facts": 0.08, "everyday": 0.1, "dialogues": 0.1, "causal": 0.07}
"""How often the base's next document comes from which set; arithmetic is what is hard to learn."""

END = "<|endoftext|>"

T = TypeVar("T")


class Pair(NamedTuple):
    """Two prompts and their responses; the prompts differ only in pairs from causal dialogues.

    What is rejected is `cut` if it never came to its end.
    """

    prompt_chosen: str
    chosen: str
    prompt_rejected: str
    rejected: str
    cut: bool = False


def base_documents(world: World, rng: Random, *, max_shots: int) -> Iterator[str]:
    """Documents without end. Questions and scenes come as the tasks write them.

    The base reads good replies and bad ones, as a real one has.
    """
    queues = {name: _reshuffled(texts, rng) for name, texts in base_texts(world).items()}
    while True:
        (name,) = rng.choices(list(SHARES), weights=list(SHARES.values()))
        single = name in ("dialogues", "causal")
        n_shots = 1 if single else rng.randint(1, max_shots)
        yield "\n\n".join(islice(queues[name], n_shots))


def base_texts(world: World) -> dict[str, list[str]]:
    """The train splits as plain texts, by set."""
    return {
        "arithmetic": [f"{question(row)} {row['answer']}" for row in world.arithmetic["train"]],
        "facts": [f"{question(row)} {_right(row)}" for row in world.facts["train"]] + statements(),
        "everyday": [
            f"{scene(row)} {row['endings'][int(row['label'])]}" for row in world.everyday["train"]
        ],
        "dialogues": [
            row[side] for row in world.dialogues["train"] for side in ("chosen", "rejected")
        ],
        "causal": [
            pair.prompt_chosen + pair.chosen
            for row in world.causal["train"]
            for pair in _causal_pairs(row)
        ],
    }


def training_pairs(world: World, rng: Random, n: int) -> list[Pair]:
    """`n` pairs, the same for every method, a third from each of the sets that hold pairs."""
    arithmetic = [
        Pair(row["prompt"], row["chosen"], row["prompt"], row["rejected"])
        for row in world.arithmetic_pairs["train"]
    ]
    dialogues = [_dialogue_pair(row) for row in world.dialogues["train"]]
    causal = [pair for row in world.causal["train"] for pair in _causal_pairs(row)]
    queues = cycle([_reshuffled(pairs, rng) for pairs in (arithmetic, dialogues, causal)])
    return [next(queue) for queue in islice(queues, n)]


def dialogue_pairs(world: World, rng: Random, n: int) -> list[Pair]:
    """`n` pairs of dialogues alone, for the reward model."""
    pairs = [_dialogue_pair(row) for row in world.dialogues["train"]]
    return list(islice(_reshuffled(pairs, rng), n))


def question(row: Row) -> str:
    """The prompt of a question, as lm-eval's GSM8K and ARC tasks write it."""
    return f"Question: {row['question']}\nAnswer:"


def scene(row: Row) -> str:
    """What comes before an ending, as lm-eval's HellaSwag task writes it."""
    return f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"


def _right(row: Row) -> str:
    choices = row["choices"]
    right: str = choices["text"][choices["label"].index(row["answerKey"])]
    return right


def _dialogue_pair(row: Row) -> Pair:
    turn = "\n\nAssistant:"
    prompt, _, chosen = row["chosen"].rpartition(turn)
    rejected = row["rejected"].rpartition(turn)[2]
    return Pair(prompt + turn, chosen, prompt + turn, rejected)


def _causal_pairs(row: Row) -> list[Pair]:
    """Each cause and effect seen together against a cause and an effect that were not."""
    pairs = []
    for group in causal_groups(row):
        history = "".join(f"{line}\n" for line in group.history)
        for (x, y), (other_x, other_y) in zip(group.edges, cycle(group.negatives), strict=False):
            pairs.append(Pair(f"{history}{x}\n", y, f"{history}{other_x}\n", other_y))
    return pairs


def _reshuffled(items: Sequence[T], rng: Random) -> Iterator[T]:
    """The items again and again, each time in another order."""
    while True:
        yield from rng.sample(items, len(items))
