"""The made-up world: small data sets in the columns of the real ones, grown from a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from prefbench.demo.arithmetic import arithmetic_pair, arithmetic_row, draw_problems
from prefbench.demo.candidates import draw_candidates
from prefbench.demo.causal import draw_causal
from prefbench.demo.dialogues import draw_dialogues
from prefbench.demo.everyday import draw_everyday
from prefbench.demo.facts import draw_questions, fact_row

Row = dict[str, Any]
Splits = Mapping[str, list[Row]]

N_TEST = 200
"""Test items of a set; the dialogue graphs are fewer, each gives several documents."""
N_TEST_CAUSAL = 100

TURN = "\n\nAssistant:"


@dataclass(frozen=True)
class World:
    """The rows of every set by split; `everyday` calls its test split validation, as HellaSwag."""

    seed: int
    arithmetic: Splits
    arithmetic_pairs: Splits
    facts: Splits
    everyday: Splits
    dialogues: Splits
    causal: Splits
    mixed_pairs: Splits
    candidates: Splits

    def sets(self) -> dict[str, Splits]:
        """The sets by the name that their id and their folder carry."""
        return {
            "arithmetic": self.arithmetic,
            "arithmetic-pairs": self.arithmetic_pairs,
            "facts": self.facts,
            "everyday": self.everyday,
            "dialogues": self.dialogues,
            "causal": self.causal,
            "mixed-pairs": self.mixed_pairs,
            "candidates": self.candidates,
        }


def make_world(seed: int = 0) -> World:
    """The world that grows from this seed. No test item occurs in a train split.

    Every set has its own stream of random numbers, so that a change to one leaves the others
    alone. The streams are Python's and not numpy's, which may differ between numpy versions.
    """
    arithmetic, arithmetic_pairs = _arithmetic(Random(f"{seed} arithmetic"))
    dialogues = _dialogues(Random(f"{seed} dialogues"))
    return World(
        seed,
        arithmetic,
        arithmetic_pairs,
        _facts(Random(f"{seed} facts")),
        _everyday(Random(f"{seed} everyday")),
        dialogues,
        _causal(Random(f"{seed} causal")),
        _mixed_pairs(arithmetic_pairs, dialogues),
        _candidates(Random(f"{seed} candidates"), dialogues),
    )


def write_world(world: World, folder: Path) -> None:
    """Write a data mirror: a JSONL file for each split, and the index `mirror.yaml`."""
    index = ["# data set id -> configuration -> split -> file"]
    for name, splits in world.sets().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        files = {split: f"{name}/{split}.jsonl" for split in splits}
        for split, rows in splits.items():
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (folder / files[split]).write_text("".join(lines), encoding="utf-8", newline="\n")
        listed = ", ".join(f"{split}: {file}" for split, file in files.items())
        index += [f"prefbench/demo-{name}:", f"  default: {{{listed}}}"]
    # Last, so that a folder with an index is whole.
    (folder / "mirror.yaml").write_text("\n".join(index) + "\n", encoding="utf-8", newline="\n")


def _arithmetic(rng: Random) -> tuple[Splits, Splits]:
    taken: set[str] = set()
    test = draw_problems(rng, N_TEST, taken=taken)
    test_pairs = draw_problems(rng, N_TEST, taken=taken)
    train = draw_problems(rng, 4000, taken=taken)
    return (
        {"train": [arithmetic_row(p) for p in train], "test": [arithmetic_row(p) for p in test]},
        {
            "train": [arithmetic_pair(p, rng) for p in train[:1200]],
            "test": [arithmetic_pair(p, rng) for p in test_pairs],
        },
    )


def _facts(rng: Random) -> Splits:
    train, test = draw_questions(rng)
    return {
        "train": [fact_row(a, rng, name=f"demo-train-{n:04d}") for n, a in enumerate(train)],
        "test": [fact_row(a, rng, name=f"demo-test-{n:04d}") for n, a in enumerate(test[:N_TEST])],
    }


def _everyday(rng: Random) -> Splits:
    taken: set[str] = set()
    validation = draw_everyday(rng, N_TEST, taken=taken)
    return {"train": draw_everyday(rng, 1500, taken=taken), "validation": validation}


def _dialogues(rng: Random) -> Splits:
    taken: set[str] = set()
    test = draw_dialogues(rng, N_TEST, taken=taken)
    return {"train": draw_dialogues(rng, 1200, taken=taken), "test": test}


def _causal(rng: Random) -> Splits:
    taken: set[str] = set()
    test = draw_causal(rng, N_TEST_CAUSAL, taken=taken, name="demo-test")
    return {"train": draw_causal(rng, 600, taken=taken, name="demo-train"), "test": test}


def _mixed_pairs(arithmetic: Splits, dialogues: Splits) -> Splits:
    """The test pairs of two sets by turns, and which they are of.

    The texts of the one differ in a number, those of the other in all but a word or two: how far
    apart two texts are can be looked at within one task.
    """
    rows = []
    for sums, said in zip(arithmetic["test"], dialogues["test"], strict=True):
        prompt, _, chosen = said["chosen"].rpartition(TURN)
        rejected = said["rejected"].rpartition(TURN)[2]
        rows.append({**sums, "domain": "arithmetic"})
        rows.append(
            {
                "prompt": prompt + TURN,
                "chosen": chosen,
                "rejected": rejected,
                "domain": "dialogues",
            }
        )
    return {"test": rows}


def _candidates(rng: Random, dialogues: Splits) -> Splits:
    """Replies to prompts that no dialogue has, neither those that are taught nor those of tests."""
    taken = {
        row["chosen"].rpartition(TURN)[0] + TURN for rows in dialogues.values() for row in rows
    }
    return {"test": draw_candidates(rng, N_TEST, taken=taken)}
