"""Panels: what several judges say together, and what is left of it where some say nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from prefbench.judges.judge import Ask, Judge, Turn, Unheard, Verdict
from prefbench.judges.models import find_model
from prefbench.judges.panel import Heard, PanelJudge, decide_together
from prefbench.judges.recipe import JudgeRecipe, judges_folder, read_recipe
from prefbench.judges.reward import RewardJudge

ASKS = [Ask((Turn("user", "?"),), f"first {n}", f"second {n}") for n in range(4)]


class Scripted(Judge):
    """A judge that says what a test has written down, last ask first."""

    def __init__(self, name: str, *says: float | str | None, symmetric: bool = False) -> None:
        self.recipe = JudgeRecipe(judge=name, kind="reward", model=name)
        self.key = f"key of {name}"
        self.symmetric = symmetric
        self.says = says
        self.asked: list[int] = []
        self.log: list[str] = []

    def decide(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Heard]]:
        self.log.append("asked")
        for index in reversed(range(len(asks))):
            said = self.says[ASKS.index(asks[index])]
            self.asked.append(index)
            if isinstance(said, str):
                yield index, Unheard(said)
            else:
                reason = "nonsense" if said is None else None
                yield index, Verdict(said, reason, n_in=7, n_out=2, cost=0.25)

    def close(self) -> None:
        self.log.append("closed")


def panel(*members: Judge, rule: str = "majority") -> PanelJudge:
    names = [member.recipe.judge for member in members]
    recipe = JudgeRecipe(judge="all", kind="panel", members=names, rule=rule)  # type: ignore[arg-type]
    return PanelJudge(recipe, members)


def test_a_majority_is_more_than_half_of_those_that_gave_a_preference() -> None:
    for preferences, together in (
        ([1.0, 0.6, 0.0], 1.0),
        ([0.4, 0.0, 1.0], 0.0),
        ([1.0, 0.0], 0.5),
        ([1.0, 0.5], 0.5),  # one of two is not more than half
        ([1.0, 1.0, 0.5, 0.0], 0.5),
        ([1.0, 1.0, 1.0, 0.0], 1.0),
        ([0.5, 0.5, 0.0], 0.5),
        ([0.51], 1.0),
        ([0.5], 0.5),
    ):
        assert decide_together(preferences, "majority") == together


@pytest.mark.parametrize("rule", ["majority", "mean"])
def test_a_panel_does_not_care_for_the_order_of_members_or_answers(rule: str) -> None:
    for preferences in itertools.product((0.0, 0.25, 0.5, 1.0), repeat=3):
        together = decide_together(preferences, rule)
        assert decide_together(preferences[::-1], rule) == pytest.approx(together)
        turned = [1 - preference for preference in preferences]
        assert decide_together(turned, rule) == pytest.approx(1 - together)


def test_members_are_asked_one_after_the_other() -> None:
    one, two = Scripted("one", 1, 0, 1, 0.5), Scripted("two", 1, 0, 0, 0.2)
    together = panel(one, two, Scripted("three", 0, 0, 1, 0.3))
    found = list(together.decide(ASKS))
    assert [index for index, _ in found] == [3, 2, 1, 0]
    verdicts = dict(found)
    assert [verdicts[i].preference for i in range(4)] == [1, 0, 1, 0]  # type: ignore[union-attr]
    facts = verdicts[3].facts["members"]  # type: ignore[union-attr]
    assert {name: fact["preference"] for name, fact in facts.items()} == {
        "one": 0.5,
        "two": 0.2,
        "three": 0.3,
    }
    said = [dict(member.decide(ASKS))[0] for member in together.members]
    for name in ("n_in", "n_out", "cost"):  # a panel costs what its members do
        assert getattr(verdicts[0], name) == sum(getattr(one, name) for one in said) > 0
    means = dict(panel(one, two, rule="mean").decide(ASKS))
    assert [means[i].preference for i in range(4)] == [1, 0, 0.5, 0.35]  # type: ignore[union-attr]


def test_half_of_the_members_are_enough_and_fewer_are_not() -> None:
    def said(*each: float | str | None, rule: str = "majority") -> Heard:
        members = [Scripted(f"m{n}", one) for n, one in enumerate(each)]
        ((_, heard),) = panel(*members, rule=rule).decide(ASKS[:1])
        return heard

    assert said(1, None).preference == 1  # type: ignore[union-attr]
    assert said(1, "busy").preference == 1  # type: ignore[union-attr]
    assert said(0, 0.5, None, "busy", rule="mean").preference == 0.25  # type: ignore[union-attr]
    facts = said(1, None, 1, "busy").facts["members"]  # type: ignore[union-attr]
    assert facts["m1"] == {"preference": None, "reason": "nonsense", "heard": True}
    assert facts["m3"] == {"preference": None, "reason": "busy", "heard": False}
    # One of three is too few: asked again, the busy one may make it enough.
    assert said(1, None, "busy") == Unheard(
        "1 of 3 members gave a preference, 2 are needed (m1: nonsense; m2: busy)"
    )
    unreadable = said(1, None, None)
    assert isinstance(unreadable, Verdict)
    assert unreadable.preference is None
    assert "1 of 3 members gave a preference, 2 are needed" in str(unreadable.reason)
    assert isinstance(said("busy", "busy"), Unheard)
    assert isinstance(said(None, None), Verdict)
    # The busy one alone would not be enough either.
    assert isinstance(said(None, None, "busy"), Verdict)


def test_verdicts_of_members_can_be_kept_by_the_members_keys() -> None:
    kept: dict[str, Heard] = {}

    def ask_member(judge: Judge, asks: Sequence[Ask]) -> Iterator[tuple[int, Heard]]:
        lacking = []
        for index, ask in enumerate(asks):
            if judge.key_of(ask) in kept:
                yield index, kept[judge.key_of(ask)]
            else:
                lacking.append(index)
        for place, heard in judge.decide([asks[index] for index in lacking]):
            kept[judge.key_of(asks[lacking[place]])] = heard
            yield lacking[place], heard

    one, two = Scripted("one", 1, 0, 1, 0), Scripted("two", 1, 0, 1, 0.5)
    together = PanelJudge(panel(one, two).recipe, [one, two], ask_member)
    some = dict(together.decide(ASKS[:3]))
    assert len(kept) == 6
    whole = dict(together.decide(ASKS))
    assert len(kept) == 8
    assert one.asked == two.asked == [2, 1, 0, 0]
    assert {index: whole[index] for index in some} == some


def test_whoever_stops_iterating_stops_the_asking() -> None:
    one, two = Scripted("one", 1, 0, 1, 0), Scripted("two", 1, 0, 1, 0.5)
    next(iter(panel(one, two).decide(ASKS)))
    assert one.asked == [3, 2, 1, 0]
    assert two.asked == [3]


def test_members_are_closed_with_the_panel_and_leave_each_other_room() -> None:
    one, two = Scripted("one", 1), Scripted("two", 1)
    with panel(one, two) as together:
        list(together.decide(ASKS[:1]))
        list(together.decide(ASKS[:1]))
        assert one.log == ["asked", "closed", "asked", "closed"]
    assert one.log[-1] == two.log[-1] == "closed"
    alone, server = Scripted("here", 1), Scripted("server", 1)
    server.recipe = server.recipe.model_copy(update={"kind": "openai"})
    list(panel(alone, server).decide(ASKS[:1]))
    assert "closed" not in alone.log + server.log


def test_a_panels_key_and_symmetry_are_its_members() -> None:
    one, two = Scripted("one", symmetric=True), Scripted("two", symmetric=True)
    asymmetric = Scripted("two")
    assert panel(one, two).symmetric
    assert not panel(one, asymmetric).symmetric
    assert panel(one, two).key == panel(one, asymmetric).key
    keys = {
        panel(one, two).key,
        panel(one, two, rule="mean").key,
        panel(one, two, Scripted("three")).key,
    }
    assert len(keys) == 3


def test_reward_models_in_a_panel(small_zoo: Path) -> None:
    file = judges_folder() / "demo_reward.yaml"
    recipe = read_recipe(file)
    model = find_model(recipe, file.parent, [small_zoo / "data"])
    share = recipe.model_copy(update={"judge": "again"})
    asks = [Ask((Turn("user", "How are you?"),), "Very well, " * n, "No.") for n in range(1, 4)]
    with panel(RewardJudge(recipe, model), RewardJudge(share, model)) as together:
        assert together.symmetric
        found = dict(together.decide(asks))
        alone = dict(RewardJudge(recipe, model).decide(asks))
    for index, verdict in found.items():
        assert verdict.preference == alone[index].preference  # type: ignore[union-attr]
