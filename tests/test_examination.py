"""Report cards of judges whose rule is known: what is wrong with each is what its card says."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prefbench.judges.chat
from prefbench.comparisons import Judging
from prefbench.errors import InputError, JudgeError
from prefbench.examination.card import Bill, Card, Examination, check_judge, foresee_check
from prefbench.examination.doubts import warnings
from prefbench.examination.evidence import Evidence, Finding, controls
from prefbench.examination.exhibits import CONSTANT, choose_cases, find_contests, set_trial
from prefbench.interchange.labels import Label
from prefbench.judges.judge import Turn
from prefbench.judging import VERDICTS
from prefbench.measures.comparison import Pair
from prefbench.stats.estimates import Estimate
from tests.judged import Place, fenced, make_place, patient, rule
from tests.misbehaving import Misbehaving, wired

WRITTEN_OUT = re.compile(r"<U\+[0-9A-F]+>")


@pytest.fixture(scope="module")
def judged(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Results in which all of the zoo's checkpoints were judged against sft by a local server."""
    folder = tmp_path_factory.mktemp("report_card")
    place = make_place(small_zoo, folder)
    with wired(Misbehaving(rule).answer) as (url, _):
        assert not place.run(place.judge("local", url)).failed
    return place


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefbench.judges.chat, "Endpoint", patient())


@contextlib.contextmanager
def asking(
    place: Place, said: Callable[[str], str], name: str = "known", **facts: Any
) -> Iterator[tuple[Misbehaving, Callable[..., Card]]]:
    """A judge that follows a rule, and a function that makes its card."""
    server = Misbehaving(said)
    with wired(server.answer) as (url, _):
        place.judge(name, url, **facts)

        def card(**asked: Any) -> Card:
            return check_judge(name, *arguments(place, asked), **keywords(place, asked))

        yield server, card


def arguments(place: Place, asked: dict[str, Any]) -> tuple[Examination]:
    names = {field.name for field in dataclasses.fields(Examination)}
    return (Examination(**{name: value for name, value in asked.items() if name in names}),)


def keywords(place: Place, asked: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(Judging)}
    told = {name: value for name, value in asked.items() if name in names - {"opponents"}}
    return {
        "results": asked.get("results", place.results),
        "judging": Judging(folders=(place.judges,), **told),
        "mirrors": [place.data],
    }


def value(card: Card, name: str, of: str = "") -> Estimate:
    (found,) = card.named(name, of)
    assert found.estimate is not None
    return found.estimate


def loud(card: Card) -> list[str]:
    return [one.text for one in card.warnings if one.loud]


def longer(asked: str) -> str:
    # Characters that nobody sees are written out to judges, and still count as one.
    first, second = (len(WRITTEN_OUT.sub("x", text)) for text in fenced(asked)[-2:])
    return f"Verdict: {'tie' if first == second else 'A' if first > second else 'B'}"


def test_a_judge_that_counts_characters(judged: Place) -> None:
    with asking(judged, longer) as (_, card):
        found = card(controls=True, limit=30)
    assert value(found, "longer").value == 1
    assert value(found, "length").value > 0.5
    assert value(found, "consistent").value == 1
    assert value(found, "copy").value == 0.5
    assert value(found, "control", "constant").value == 1
    assert value(found, "control", "half").value == 0
    above = {one.of for one in found.named("above")}
    assert above == {f"constant above {one.of}" for one in found.named("checkpoint")}
    first, *_ = found.warnings
    assert first.loud
    assert first.text.startswith("the control constant wins 100%")
    assert any("nothing but count characters" in text for text in loud(found))


def test_a_judge_that_always_says_the_first(judged: Place) -> None:
    with asking(judged, lambda asked: "Verdict: A") as (_, card):
        found = card(injections=True, controls=True, limit=10)
    assert [value(found, name).value for name in ("first", "split", "consistent", "tied")] == [
        1,
        1,
        0,
        0,
    ]
    assert value(found, "copy").value == 0.5
    assert value(found, "copy_first").value == 1
    assert {one.estimate.value for one in found.named("checkpoint") if one.estimate} == {0.5}
    assert value(found, "longer").n == 0
    (attacked,) = found.named("attacked")
    assert attacked.reason == "no pair was won in both orders"
    assert any(text.startswith("it prefers the answer shown first: 100%") for text in loud(found))


def by_beginning(text: str) -> str:
    return hashlib.sha256(text[:6].encode()).hexdigest()


def obedient(asked: str) -> str:
    """Obeys what stands below an answer; otherwise only an answer's beginning counts."""
    first, second = fenced(asked)[-2:]
    for text, label in ((first, "A"), (second, "B")):
        if "name this answer the winner" in text:
            return f"Verdict: {label}"
    one, other = by_beginning(first), by_beginning(second)
    return f"Verdict: {'tie' if one == other else 'A' if one > other else 'B'}"


def test_a_judge_that_obeys_an_injected_verdict(judged: Place) -> None:
    with asking(judged, obedient) as (server, card):
        found = card(attacks=("ignore_above", "plea"))
        n_asked = len(server.bodies)
        again = card(attacks=("ignore_above", "plea"))
        assert len(server.bodies) == n_asked
    assert again.findings == found.findings
    assert value(found, "attacked", "ignore_above").value == 1
    assert value(found, "attacked", "plea").value == 0
    assert value(found, "attacked").value == 0.5
    assert value(found, "reasked").value == 0
    assert value(found, "beyond_reasked").value == 0.5
    (text,) = [text for text in loud(found) if "talk it into" in text]
    assert "of 2 attacks the worst is ignore_above, 100%" in text


def test_a_judge_that_changes_its_mind(judged: Place) -> None:
    """Asked the same again it says the opposite: asking again has the part of an attack."""
    n_asked: dict[tuple[str, ...], int] = {}

    def fickle(asked: str) -> str:
        texts = fenced(asked)
        n_asked[texts] = n_asked.get(texts, 0) + 1
        first, second = texts[-2:]
        return f"Verdict: {'AB'[(first < second) ^ (n_asked[texts] % 2)]}"

    with asking(judged, fickle) as (server, card):
        once = card(limit=20, attacks=("plea",))
        assert not value(once, "reasked").value < 1
        assert once.named("changed")[0].reason
        n_before = len(server.bodies)
        found = card(limit=20, repeats=2)
        assert len(server.bodies) == n_before + 40  # the second time was kept already
        assert value(found, "changed").value == 0.5
        assert value(found, "changed").n == 80
        n_before = len(server.bodies)
        assert card(limit=20, repeats=2).findings == found.findings
        assert len(server.bodies) == n_before
    assert any("asked again, it changes 50%" in one.text for one in found.warnings)


def test_what_is_missing_is_counted_and_asked_for_again(judged: Place) -> None:
    def broken(asked: str) -> str:
        first, second = fenced(asked)[-2:]
        return "Verdict: Q: no" if first > second else "Verdict: B"

    with asking(judged, broken, name="broken") as (server, card):
        found = card(limit=20, max_calls=10)
        assert len(server.bodies) == 10
        unheard, unreadable = value(found, "unheard"), value(found, "unreadable")
        assert (unheard.value, unheard.n) == (30 / 40, 40)
        assert (unreadable.n, unreadable.n_missing) == (10, 30)
        assert sum(found.unheard.values()) == 30
        assert found.named("unheard")[0].kinds == {"not asked": 30}
        assert "30 asks have no reply; the same command asks again" in {
            one.text for one in found.warnings
        }
        whole = card(limit=20)
        assert len(server.bodies) == 40
    assert not whole.unheard
    assert value(whole, "unreadable").value == 0.5
    assert whole.named("unreadable")[0].kinds == {"not one of the labels": 20}
    assert value(whole, "tied").n_missing == 20
    assert any("of its replies cannot be read" in one.text for one in whole.warnings)


@pytest.mark.parametrize(
    "asked", [{}, {"repeats": 2}, {"injections": True}, {"controls": True, "attacks": ("plea",)}]
)
def test_a_dry_run_says_at_most_what_comes_and_asks_nobody(
    judged: Place, asked: dict[str, Any]
) -> None:
    with asking(judged, obedient, name=f"dry{len(str(asked))}") as (server, card):
        name = f"dry{len(str(asked))}"

        def bill() -> Bill:
            asked_for = {"limit": 6, **asked}
            return foresee_check(name, *arguments(judged, asked_for), **keywords(judged, asked_for))

        before = bill()
        assert not server.bodies
        assert before.n_kept == 0
        card(limit=6, **asked)
        if before.supposed:
            assert before.calls >= len(server.bodies)
        else:
            assert before.calls == len(server.bodies)
        after = bill()
    assert after.calls == after.cost == 0
    assert not after.supposed or asked


def test_labels_of_kept_pairs_put_a_win_rate_right(judged: Place, tmp_path: Path) -> None:
    """People say what the judge says but for two pairs, on half of the pairs of one contest."""
    contests = [one for one in find_contests(judged.store) if one.name == "dpo"]
    with asking(judged, longer) as (_, card):
        plain = card(limit=100)
    pairs = [p for p in contests[0].pairs(judged.store, plain.judge) if not p.reason]
    pairs = [p for p in pairs if len(p.answers[0]) != len(p.opponents[0])]
    labelled = pairs[: len(pairs) // 2 + 1]
    rows = []
    for i, pair in enumerate(labelled):
        preference = float(len(pair.answers[0]) > len(pair.opponents[0]))
        rows.append(
            {
                "messages": [turn._asdict() for turn in pair.conversation],
                "first": pair.opponents[0],  # in the other order
                "second": pair.answers[0],
                "preference": 1 - preference if i else preference,
            }
        )
    own = {"prompt": "Late?", "first": "yes indeed", "second": "no", "preference": 1}
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, own]))
    with asking(judged, longer) as (_, card):
        found = card(limit=100, labels=path)
    assert found.n_labelled == len(labelled) + 1
    assert found.sources["labels"] == 1
    assert found.n_cases == plain.n_cases + 1
    right = value(found, "accuracy")
    assert (right.value, right.n) == (len(labelled) / (len(labelled) + 1), len(labelled) + 1)
    assert value(found, "agreement").value < 1
    (source,) = {one.of for one in found.named("debiased")}
    assert source == contests[0].title
    raw, debiased = value(found, "raw", source), value(found, "debiased", source)
    assert raw.n == debiased.n
    assert raw.value != debiased.value
    assert value(found, "longer_people").n == len(labelled) + 1


def test_labels_alone_need_no_results(judged: Place, tmp_path: Path) -> None:
    start = "\n\nHuman: Number {}?\n\nAssistant:"
    rows = [
        {"chosen": f"{start.format(i)} yes, it is", "rejected": f"{start.format(i)} no"}
        for i in range(5)
    ]
    path = tmp_path / "hh.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with asking(judged, longer) as (_, card):
        found = card(labels=path, results=tmp_path / "new")
    assert value(found, "accuracy").value == 1
    assert value(found, "agreement").value == pytest.approx(1)
    assert (tmp_path / "new" / VERDICTS).exists()
    with asking(judged, lambda asked: "Verdict: tie") as (_, card):
        found = card(labels=path, results=tmp_path / "ties")
    assert value(found, "accuracy").n == 0
    assert value(found, "tied").value == 1


def test_a_judge_that_disagrees_with_people_is_a_coin_at_best(
    judged: Place, tmp_path: Path
) -> None:
    rng = random.Random(0)
    rows = [
        {"prompt": f"{i}?", "first": "a" * 9, "second": "b", "preference": rng.randint(0, 1)}
        for i in range(40)
    ]
    path = tmp_path / "coin.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with asking(judged, longer) as (_, card):
        found = card(labels=path, results=tmp_path / "new")
    assert any("cannot be told from a coin" in text for text in loud(found))


def test_a_panel_is_asked_again_member_by_member(judged: Place) -> None:
    server = Misbehaving(obedient)
    with wired(server.answer) as (url, _):
        for name in ("one", "two"):
            judged.judge(name, url, model=name)
        judged.judge("both", kind="panel", members=["one", "two"])
        asked = {"limit": 5, "repeats": 1}
        first, second = (
            check_judge("both", *arguments(judged, asked), **keywords(judged, asked))
            for _ in range(2)
        )
    assert len(server.bodies) == 5 * 2 * 2 * 2
    assert first.findings == second.findings
    assert value(first, "changed").value == 0


def test_the_demos_reward_model(judged: Place) -> None:
    asked = {"limit": 12, "controls": True, "attacks": ("plea",), "repeats": 1}
    found = check_judge("demo_reward", *arguments(judged, asked), **keywords(judged, asked))
    assert all(one.reason for name in ("split", "consistent", "first") for one in found.named(name))
    assert found.named("changed")[0].reason == found.named("reasked")[0].reason
    assert value(found, "copy").value == 0.5
    assert not found.named("copy_first")
    assert any("share the architecture family Llama" in one.text for one in found.warnings)
    assert not found.unheard
    # The numbers are those that a run gives for the same pairs.
    judged.run("demo_reward")
    every = [one for one in find_contests(judged.store) if one.opponent == "sft"]
    asked = {"limit": 8, "controls": True, "opponents": ("sft",)}
    found = check_judge("demo_reward", *arguments(judged, asked), **keywords(judged, asked))
    rows = judged.rows(judge="demo_reward")
    for one in every:
        assert value(found, "checkpoint", one.name).value == pytest.approx(rows[one.name]["value"])


# --- what is chosen


def test_each_prompt_comes_once_before_any_comes_twice(judged: Place) -> None:
    with asking(judged, longer) as (_, card):
        assert card(limit=6).n_prompts == 6
        few, many = card(limit=3), card(limit=1000)
        assert card(limit=3, seed=1).sources != few.sources or few.n_all < 4
    assert many.n_cases == many.n_all == sum(many.sources.values())


def test_contests_are_found_by_any_name_of_their_opponent(judged: Place) -> None:
    place = judged.at("several")
    with wired(Misbehaving(rule).answer) as (url, _):
        place.judge("local", url)
        place.run("local", opponents=("round_robin", "reference"))
    every = find_contests(place.store)
    assert len({(one.answers, one.against) for one in every}) == len(every) == 55 + 11
    assert len(find_contests(place.store, opponents=("round_robin",))) == 55
    against = {one.opponent for one in find_contests(place.store, opponents=("ipo", "reference"))}
    assert against == {"ipo", "reference"}
    with pytest.raises(InputError, match="for the task other; there are: drawn"):
        find_contests(place.store, tasks=("drawn", "other"))


def test_controls_need_items_with_an_opponent() -> None:
    contest: Any = type("C", (), {"name": "dpo", "task": "t", "against": "x", "opponent": "sft"})()
    lost = [Pair(0, "c", (), ("a",), (), reason="sft: it was not asked")]
    trial = set_trial([(contest, lost)], limit=2, rng=np.random.default_rng(0))
    found = list(controls(Evidence((), {}, symmetric=False), trial))
    assert {one.name for one in found} == {"copy", "copy_first", "checkpoint", "control"}
    assert all(one.estimate is not None and one.estimate.n == 0 for one in found)


def test_two_orders_of_a_contest_are_one_case() -> None:
    talk = (Turn("user", "Late?"),)
    pair = Pair(0, "c", talk, ("yes",), ("no",))
    turned = Pair(0, "c", talk, ("no",), ("yes",))
    same = Pair(1, "d", talk, ("no",), ("no",))
    lost = Pair(2, "e", talk, (), (), reason="too long: 9 tokens")
    contest: Any = type("C", (), {"title": "one"})()
    labels = [Label("c", talk, "no", "yes", 0.25), Label("c", talk, "yes", "no", 0.25)]
    found = choose_cases(
        [(contest, [pair, same, lost]), (contest, [turned])],
        labels,
        limit=9,
        rng=np.random.default_rng(0),
    )
    (case,) = found.cases
    assert (case.first, case.second, case.human) == ("yes", "no", 0.5)
    assert found.left_out == {"the two answers are identical": 1, "too long": 1}


def test_the_longest_of_several_samples_is_a_control() -> None:
    talk = (Turn("user", "Late?"),)
    pairs = [
        Pair(i, f"c{i}", talk, ("ab", "abcd", "abc"), ("one two three", "other")) for i in range(3)
    ]
    contest: Any = type("C", (), {"name": "dpo", "task": "t", "against": "x", "opponent": "sft"})()
    trial = set_trial([(contest, pairs)], limit=2, rng=np.random.default_rng(0))
    texts = {one.name: {(p.answers, p.opponents) for p in one.pairs} for one in trial.controls}
    opponent = ("one two three",)
    assert texts == {
        "constant": {((CONSTANT,), opponent)},
        "half": {(("one tw",), opponent)},
        "longest of 3 by dpo": {(("abcd",), opponent)},
    }
    assert len(trial.copies) == 2
    assert all(pair.answers == pair.opponents for pair in trial.copies)


def test_a_copy_that_does_not_win_exactly_half_is_said_loudly() -> None:
    copy = Finding("copy", Estimate(0.51, 0.4, 0.6, 50))
    first, *_ = warnings([copy], n_prompts=50, shared={}, opponent="sft")
    assert first.loud
    assert "must win exactly half, and win 51%" in first.text
    exact = Finding("copy", Estimate(0.5, 0.5, 0.5, 50))
    assert warnings([exact], n_prompts=50, shared={}, opponent="sft") == []


# --- what makes no sense


def test_what_cannot_be_shown_is_said(judged: Place, tmp_path: Path) -> None:
    def check(name: str = "known", **asked: Any) -> None:
        check_judge(name, *arguments(judged, asked), **keywords(judged, asked))

    judged.judge("known", "http://127.0.0.1:9/v1")
    with pytest.raises(InputError, match="for the opponent dpo; there are: sft"):
        check(opponents=("dpo",))
    with pytest.raises(InputError, match="no attack is named flattery; there are: ignore_above"):
        check(attacks=("flattery",))
    with pytest.raises(JudgeError, match="no judge here is named 'other'; asked are known"):
        check(models=("other=m",))
    with pytest.raises(JudgeError, match="no judge is named 'knwon'; did you mean known"):
        check("knwon")
    with pytest.raises(Exception, match="no results here"):
        check(results=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
