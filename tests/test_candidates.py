"""Rewards of many candidates, by a real reward model and by a judge that only prefers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

import prefbench.judges.chat
from prefbench.candidates import ALIKE, Candidates, rewards_of
from prefbench.comparisons import Judging, plan_judge
from prefbench.judges.judge import Ask, Turn, Unheard, Verdict
from prefbench.judges.opening import PlannedJudge
from prefbench.judges.recipe import JudgeRecipe
from prefbench.judges.reward import RewardJudge
from prefbench.judging import VERDICTS, Court
from prefbench.listener import Listener
from prefbench.measures.comparison import Heard, canonical
from prefbench.store import Store
from tests.judged import RECIPE, Place, asked_of, patient, rule
from tests.misbehaving import Misbehaving, wired

QUESTION = (Turn("user", "How tall is it?"),)
TEXTS = ("Ten feet.", "I do not know.", "Ten feet.", "As tall as a house is.")
MANY = [
    Candidates(QUESTION, TEXTS),
    Candidates((*QUESTION, Turn("assistant", "Ten."), Turn("user", "Sure?")), ("Yes.", "No.")),
    Candidates(QUESTION, ("Same.", "Same.")),
]


@pytest.fixture
def place(small_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(prefbench.judges.chat, "Endpoint", patient())
    for name in ("tasks", "judges"):
        (tmp_path / name).mkdir()
    return Place(
        small_zoo / "checkpoints",
        small_zoo / "data",
        tmp_path / "results",
        tmp_path / "tasks",
        tmp_path / "judges",
    )


def sit(place: Place, name: str, several: Sequence[Candidates] = MANY) -> list[list[float] | str]:
    judging = Judging(folders=(place.judges,))
    judge = plan_judge(name, judging, [place.data])
    with Court(Store(place.results), judging, Listener()) as court, court.sitting(judge) as hear:
        return rewards_of(several, judge, hear)


def test_a_reward_models_scores(place: Place) -> None:
    found = sit(place, "demo_reward")
    planned = plan_judge("demo_reward", Judging(), [place.data])
    assert planned.model is not None
    with RewardJudge(planned.recipe, planned.model) as judge:
        for one, rewards in zip(MANY[:2], found[:2], strict=True):
            asks = [Ask(one.conversation, text, text) for text in one.texts]
            said = dict(judge.decide(asks))
            for i, reward in enumerate(rewards):
                verdict = said[i]
                assert isinstance(verdict, Verdict)
                assert reward == pytest.approx(verdict.facts["score_first"], abs=1e-4)
    assert found[0][0] == found[0][2]  # the same text
    assert len(set(found[0])) == 3
    assert found[2] == ALIKE
    before = (place.results / VERDICTS).stat()
    assert sit(place, "demo_reward") == found  # from what is kept
    assert (place.results / VERDICTS).stat().st_size == before.st_size


def test_wins_where_a_judge_only_prefers(place: Place) -> None:
    server = Misbehaving(rule)
    with wired(server.answer) as (url, _):
        place.judge("local", url)
        found = sit(place, "local")
        asked = asked_of(server)
        assert set(asked.values()) == {1}
        assert len(asked) == 3 * 2 + 2  # three texts that differ, and two, in both orders
        assert sit(place, "local") == found
        assert asked_of(server) == asked
    assert found[0][0] == found[0][2]
    assert sum(found[0]) == pytest.approx(len(TEXTS) / 2)
    assert sum(found[1]) == pytest.approx(1)
    assert found[2] == ALIKE


# --- judges whose verdicts are known


def planned(kind: str) -> PlannedJudge:
    model = {"endpoint": {"base_url": "http://localhost:1/v1"}} if kind == "openai" else {}
    recipe = RECIPE if kind == "openai" else {"kind": kind, "model": "m"}
    return PlannedJudge(JudgeRecipe.model_validate({**recipe, "judge": "j", **model}), Path())


def by_length(ask: Ask) -> Heard:
    first, second = len(ask.first), len(ask.second)
    return Verdict((1 + (first > second) - (first < second)) / 2)


def hearing(
    rule: Callable[[Ask], Heard], asked: list[Ask]
) -> Callable[[Sequence[Ask]], Mapping[Ask, Heard]]:
    """Verdicts by a rule; what was asked is added to the list."""

    def hear(asks: Sequence[Ask]) -> Mapping[Ask, Heard]:
        asked.extend(asks)
        return {ask: rule(ask) for ask in asks}

    return hear


def test_wins_are_shares_of_the_others() -> None:
    asked: list[Ask] = []
    one = Candidates(QUESTION, ("a", "bb", "ccc", "bb"))
    (found,) = rewards_of([one], planned("openai"), hearing(by_length, asked))
    assert found == [0, pytest.approx(1.5 / 3), 1, pytest.approx(1.5 / 3)]
    assert len(asked) == len(set(asked)) == 6
    assert set(asked) == {ask.turned for ask in asked}


def test_an_order_that_turns_the_judge_round_is_a_half() -> None:
    one = Candidates(QUESTION, ("a", "bb"))
    (found,) = rewards_of([one], planned("openai"), hearing(lambda ask: Verdict(1.0), []))
    assert found == [0.5, 0.5]


def test_a_reward_model_is_asked_as_comparisons_ask_it() -> None:
    asked: list[Ask] = []
    one = Candidates(QUESTION, ("m", "z", "a", "m"))

    def scored(ask: Ask) -> Heard:
        scores = {"score_first": ord(ask.first), "score_second": ord(ask.second)}
        return Verdict(0.0, facts=scores)

    (found,) = rewards_of([one], planned("reward"), hearing(scored, asked))
    assert found == [ord("m"), ord("z"), ord("a"), ord("m")]
    assert asked == [canonical(ask) for ask in asked]
    assert [(ask.first, ask.second) for ask in asked] == [("m", "z"), ("a", "m")]


@pytest.mark.parametrize(
    ("kind", "heard", "reason"),
    [
        ("openai", Unheard("HTTP 500"), "HTTP 500"),
        ("openai", Verdict(None, "no label"), "unreadable verdict: no label"),
        ("reward", Unheard("gone"), "gone"),
        ("reward", Verdict(None, "the second answer: too long", facts={"score_first": 1.0,
         "score_second": None}), "the second answer: too long"),
        ("reward", Verdict(1.0), "j gave no score"),
    ],
)  # fmt: skip
def test_a_prompt_that_lacks_a_verdict_has_no_rewards(kind: str, heard: Heard, reason: str) -> None:
    lost = Candidates(QUESTION, ("a", "bb", "lost"))
    whole = Candidates(QUESTION, ("a", "bb"))

    def rule(ask: Ask) -> Heard:
        if "lost" in (ask.first, ask.second):
            return heard
        return Verdict(0.0, facts={"score_first": 1.0, "score_second": 2.0})

    found = rewards_of([lost, whole], planned(kind), hearing(rule, []))
    assert found[0] == reason
    assert found[1] != reason


def test_rewards_of_nothing() -> None:
    assert rewards_of([], planned("reward"), hearing(by_length, [])) == []
    alone = Candidates(QUESTION, ("a",))
    assert rewards_of([alone], planned("openai"), hearing(by_length, [])) == [ALIKE]
