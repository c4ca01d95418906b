from __future__ import annotations

from dataclasses import replace
from itertools import islice
from random import Random

from prefbench.demo.verdicts import SPOILS, Lesson, demo_judge, dialogues, lessons
from prefbench.demo.world import make_world
from prefbench.documents import _hh_pair
from prefbench.judges.reading import read

WORLD = make_world(0)
RECIPE = demo_judge()


def drawn(n: int, seed: int = 0) -> list[Lesson]:
    return list(islice(lessons(WORLD, RECIPE, Random(seed)), n))


def test_dialogues_are_those_that_the_tasks_read() -> None:
    rows = WORLD.dialogues["test"]
    for row, found in zip(rows, dialogues(rows), strict=True):
        wanted = _hh_pair(row)
        turns = [{"role": turn.role, "content": turn.content} for turn in found.conversation]
        assert turns == wanted["messages"]
        assert [found.better] == [text.strip() for text in wanted["chosen"]]
        assert [found.worse] == [text.strip() for text in wanted["rejected"]]


def test_a_reply_is_read_as_the_verdict_that_it_is() -> None:
    assert RECIPE.verdict is not None
    for one in drawn(40):
        assert read(RECIPE.verdict, one.reply).preference == float(one.good[0])
        assert one.good in ((True, False), (False, True))


def test_each_pair_comes_in_both_orders_with_new_delimiters() -> None:
    def bare(one: Lesson) -> list[str]:
        first = one.ends[0].split("Answer A:\n")[1].split("\n")[1:-1]
        second = one.ends[1].split("Answer B:\n")[1].split("\n")[1:-1]
        return ["\n".join(first), "\n".join(second)]

    some = drawn(40)
    for first, second in zip(some[::2], some[1::2], strict=True):
        assert first.good == (True, False)
        assert second.good == (False, True)
        assert bare(first) == bare(second)[::-1]
        assert bare(first)[0]  # the good reply is never the empty one
    assert len({one.ends[1][-12:] for one in some}) == len(some)
    assert any("" in bare(one) for one in some)


def test_ends_are_where_the_answers_end() -> None:
    for one in drawn(20):
        user = one.messages[-1]["content"]
        assert all(user.startswith(end) for end in one.ends)
        assert user.removeprefix(one.ends[0]).startswith("\nAnswer B:\n")
        assert user.removeprefix(one.ends[1]).startswith("\nWhich one")


def test_the_same_seed_teaches_the_same() -> None:
    assert drawn(20) == drawn(20) != drawn(20, seed=1)


def test_only_the_train_split_is_taught() -> None:
    blind = replace(WORLD, dialogues={"train": WORLD.dialogues["train"]})
    assert list(islice(lessons(blind, RECIPE, Random(0)), 20)) == drawn(20)


def test_a_spoiled_reply_is_another() -> None:
    words = ["Keep", "the", "soil", "damp", "and", "give", "it", "soft", "light"]
    cut, doubled, empty, jumbled = (spoil(words, Random(0)) for spoil in SPOILS)
    assert (cut, doubled, empty) == (words[:3], words * 2, [])
    assert jumbled != words
    assert sorted(jumbled) == sorted(words)
