from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path
from random import Random

import pytest
import yaml

from prefbench.demo.texts import dialogue_pairs, question, scene, training_pairs
from prefbench.demo.world import N_TEST, Row, World, make_world, write_world
from prefbench.documents import causal_groups

NUMBER = re.compile(r"\d+")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(0)


def last_reply(dialogue: str) -> tuple[str, str]:
    prompt, turn, reply = dialogue.rpartition("\n\nAssistant:")
    return prompt + turn, reply


def causal_prompts(rows: list[Row]) -> list[str]:
    groups = chain.from_iterable(causal_groups(row) for row in rows)
    return ["\n".join((*group.history, x)) for group in groups for x in dict(group.edges)]


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        write_world(make_world(seed), tmp_path / name)
    files = {
        name: {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*.*")
            if path.is_file()
        }
        for name in ("one", "two", "other")
    }
    assert len(files["one"]) == 15
    assert files["one"] == files["two"]
    assert all(
        files["one"][path] != files["other"][path]
        for path in files["one"]
        if path.name != "mirror.yaml"
    )


def test_mirror_lists_every_file(world: World, tmp_path: Path) -> None:
    write_world(world, tmp_path)
    index = yaml.safe_load((tmp_path / "mirror.yaml").read_text())
    assert list(index) == [
        f"prefbench/demo-{name}"
        for name in (
            "arithmetic",
            "arithmetic-pairs",
            "facts",
            "everyday",
            "dialogues",
            "causal",
            "mixed-pairs",
            "candidates",
        )
    ]
    assert index["prefbench/demo-everyday"] == {
        "default": {"train": "everyday/train.jsonl", "validation": "everyday/validation.jsonl"}
    }
    listed = [file for sets in index.values() for file in sets["default"].values()]
    assert sorted(listed) == sorted(
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jsonl")
    )
    rows = [json.loads(line) for line in (tmp_path / "facts/test.jsonl").read_text().splitlines()]
    assert rows == world.facts["test"]


def test_sizes(world: World) -> None:
    for name, splits in world.sets().items():
        test = splits["validation" if name == "everyday" else "test"]
        assert len(test) == {"causal": 100, "mixed-pairs": 2 * N_TEST}.get(name, N_TEST)
        if name not in ("mixed-pairs", "candidates"):  # they are for tests alone
            assert len(splits["train"]) > len(test)
    assert len(causal_prompts(world.causal["test"])) >= N_TEST


def test_no_test_item_is_taught(world: World) -> None:
    def asked(rows: list[Row]) -> set[str]:
        return {question(row) for row in rows}

    arithmetic, pairs = world.arithmetic, world.arithmetic_pairs
    taught = asked(arithmetic["train"]) | {row["prompt"] for row in pairs["train"]}
    assert not taught & asked(arithmetic["test"])
    assert not taught & {row["prompt"] for row in pairs["test"]}
    assert not asked(world.facts["train"]) & asked(world.facts["test"])
    everyday = [{scene(row) for row in rows} for rows in world.everyday.values()]
    assert not everyday[0] & everyday[1]
    dialogues = [{last_reply(r["chosen"])[0] for r in rows} for rows in world.dialogues.values()]
    assert not dialogues[0] & dialogues[1]
    causal = [set(causal_prompts(rows)) for rows in world.causal.values()]
    assert not causal[0] & causal[1]
    # No test item is there twice either: intervals resample items as if they were independent.
    assert [len(rows) for rows in (everyday[1], dialogues[1])] == [N_TEST, N_TEST]
    assert len(asked(world.facts["test"])) == N_TEST
    assert len(causal_prompts(world.causal["test"])) == len(causal[1])


def test_arithmetic_is_right(world: World) -> None:
    for row in chain.from_iterable(world.arithmetic.values()):
        *steps, last = row["answer"].splitlines()
        sums = [[int(n) for n in NUMBER.findall(step)] for step in steps]
        assert [a + b for a, b, _ in sums] == [c for _, _, c in sums]
        assert last == f"#### {sums[1][2]}"
        assert [int(n) for n in NUMBER.findall(row["question"])] == [*sums[0][:2], sums[1][1]]


def test_one_intermediate_number_is_corrupted(world: World) -> None:
    which = set()
    for row in chain.from_iterable(world.arithmetic_pairs.values()):
        chosen, rejected = NUMBER.findall(row["chosen"]), NUMBER.findall(row["rejected"])
        assert NUMBER.sub("#", row["chosen"]) == NUMBER.sub("#", row["rejected"])
        (at,) = (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=True)) if a != b)
        which.add(at)
        assert row["prompt"].endswith("\nAnswer:")
        assert row["chosen"].startswith(" ")
    assert which == {2, 5}  # the results of the two steps; the answer's number is the seventh


def test_facts_have_one_right_choice(world: World) -> None:
    right: dict[str, set[str]] = {split: set() for split in world.facts}
    for split, rows in world.facts.items():
        for row in rows:
            choices = row["choices"]
            assert choices["label"] in (list("ABCD"), list("1234"))
            assert len(set(choices["text"])) == 4
            right[split].add(choices["text"][choices["label"].index(row["answerKey"])])
    assert len(right["train"]) == 30
    assert right["test"] <= right["train"]


def test_everyday_has_one_fitting_ending(world: World) -> None:
    fitting: dict[str, set[str]] = {}
    for row in world.everyday["train"]:
        doing = row["ctx_a"].split(". ")[-1].split(" ", 1)[1]
        fitting.setdefault(doing[-20:], set()).add(row["endings"][int(row["label"])])
    for row in world.everyday["validation"]:
        assert len(row["endings"]) == len(set(row["endings"])) == 4
        known = fitting[row["ctx_a"][-20:]]
        assert [ending in known for ending in row["endings"]].count(True) == 1
        assert row["endings"][int(row["label"])] in known


def test_dialogues_share_all_but_the_last_reply(world: World) -> None:
    turns = set()
    for row in chain.from_iterable(world.dialogues.values()):
        (prompt, chosen), (same, rejected) = last_reply(row["chosen"]), last_reply(row["rejected"])
        assert prompt == same
        assert prompt.startswith("\n\nHuman: ")
        assert chosen != rejected
        assert chosen.startswith(" ")
        assert rejected.startswith(" ")
        turns.add(prompt.count("\n\nHuman: "))
    assert turns == {1, 2}


def test_causal_groups_have_negatives_that_are_never_seen_together(world: World) -> None:
    for row in world.causal["test"]:
        nodes = row["original_data"]
        assert any(len(node["prev_ids"]) > 1 for node in nodes)
        (group,) = causal_groups(row)
        assert len({x for x, _ in group.edges}) >= 2
        assert not set(group.edges) & set(group.negatives)


def test_candidates_are_six_replies_of_known_kinds_to_new_prompts(world: World) -> None:
    rows = world.candidates["test"]
    prompts = {row["prompt"] for row in rows}
    assert len(prompts) == N_TEST
    assert not prompts & {
        last_reply(r["chosen"])[0] for rows in world.dialogues.values() for r in rows
    }
    places = set()
    for row in rows:
        replies = dict(zip(row["kinds"], row["candidates"], strict=True))
        assert sorted(replies) == ["another", "bad", "cut", "good", "off topic", "twice"]
        assert len(set(replies.values())) == 6
        assert all(reply.startswith(" ") for reply in replies.values())
        assert replies["twice"] == 2 * replies["good"]
        assert replies["good"].startswith(replies["cut"])
        places.add(row["kinds"].index("good"))
    assert len(places) == 6


def test_mixed_pairs_are_those_of_two_tests_by_turns(world: World) -> None:
    rows = world.mixed_pairs["test"]
    assert [row["domain"] for row in rows[:3]] == ["arithmetic", "dialogues", "arithmetic"]
    for row, mixed in zip(world.arithmetic_pairs["test"], rows[::2], strict=True):
        assert mixed == {**row, "domain": "arithmetic"}
    for row, mixed in zip(world.dialogues["test"], rows[1::2], strict=True):
        assert mixed["prompt"] + mixed["chosen"] == row["chosen"]
        assert mixed["prompt"] + mixed["rejected"] == row["rejected"]
        assert mixed["prompt"].endswith("\n\nAssistant:")


def test_training_pairs_come_from_three_sets_in_turn(world: World) -> None:
    pairs = training_pairs(world, Random(0), 30)
    assert pairs == training_pairs(world, Random(0), 30)
    assert all(pair.prompt_chosen.startswith("Question: ") for pair in pairs[::3])
    assert all(pair.prompt_chosen.endswith("\n\nAssistant:") for pair in pairs[1::3])
    assert all(pair.prompt_chosen.startswith("scene: ") for pair in pairs[2::3])
    assert all(pair.prompt_chosen == pair.prompt_rejected for pair in pairs[::3] + pairs[1::3])
    assert any(pair.prompt_chosen != pair.prompt_rejected for pair in pairs[2::3])
    for pair in pairs:
        assert (pair.prompt_chosen, pair.chosen) != (pair.prompt_rejected, pair.rejected)


def test_the_reward_model_reads_whole_dialogues(world: World) -> None:
    pairs = dialogue_pairs(world, Random(0), 30)
    assert len(set(pairs)) == 30
    rows = {(row["chosen"], row["rejected"]) for row in world.dialogues["train"]}
    for pair in pairs:
        whole = (pair.prompt_chosen + pair.chosen, pair.prompt_rejected + pair.rejected)
        assert whole in rows
