"""What a run would do and cost, held against what it then does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import prefbench.engines
import prefbench.judges.chat
from prefbench.report.foresight import as_text
from tests.judged import N, Place, asked_of, make_place, patient, rule
from tests.misbehaving import Misbehaving, wired

THREE = ("sft", "dpo", "slic")


@pytest.fixture
def place(small_zoo: Path, tmp_path: Path) -> Place:
    return make_place(small_zoo, tmp_path, THREE)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Misbehaving, str]]:
    monkeypatch.setattr(prefbench.judges.chat, "Endpoint", patient())
    server = Misbehaving(rule)
    with wired(server.answer) as (url, _):
        yield server, url


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_a_dry_run_says_what_the_run_then_does(
    place: Place, served: tuple[Misbehaving, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = served
    judge, before = place.judge(url=url), bytes_of(place.results)

    def refuse(*args: Any) -> None:
        raise AssertionError("a checkpoint was loaded in a dry run")

    monkeypatch.setattr(prefbench.engines.Engines, "open", refuse)
    foreseen = place.foresee(judge)
    assert server.bodies == []
    assert bytes_of(place.results) == before
    assert foreseen.to_measure == ()
    assert foreseen.n_measured == len(THREE)
    (bill,) = foreseen.bills
    assert (bill.n_comparisons, bill.n_kept, bill.supposed) == (len(THREE), 0, False)
    assert not place.run(judge).failed
    assert bill.calls == len(server.bodies) > N
    cost = sum(one["judging"]["cost"] for one in place.judged().values())
    n_in = sum(one["judging"]["n_in"] for one in place.judged().values())
    n_out = sum(one["judging"]["n_out"] for one in place.judged().values())
    assert cost <= bill.cost_most
    assert n_out <= bill.n_out_most == 30 * bill.calls
    assert bill.cost < bill.cost_most
    assert n_in > 0
    told = as_text(foreseen)
    assert f"local: {bill.calls} calls" in told
    assert f"${bill.cost:.2f}, at most ${bill.cost_most:.2f}" in told
    assert told.endswith("nothing was measured and nobody was asked\n")
    after = place.foresee(judge)
    assert after.bills == ()
    assert after.n_judged == len(THREE)


def test_what_is_kept_already_is_not_counted(place: Place, served: tuple[Misbehaving, str]) -> None:
    server, url = served
    judge = place.judge(url=url)
    assert place.run(judge, max_calls=10).failed
    before = bytes_of(place.results)
    (bill,) = place.foresee(judge).bills
    assert bytes_of(place.results) == before
    assert bill.n_kept == 10
    assert not place.run(judge).failed
    assert len(server.bodies) == 10 + bill.calls


def test_answers_that_are_not_there_are_taken_at_their_longest(
    place: Place, served: tuple[Misbehaving, str], tmp_path: Path
) -> None:
    server, url = served
    judge = place.judge(url=url)
    nothing = tmp_path / "nothing"
    foreseen = place.foresee(judge, results=nothing)
    assert not nothing.exists()
    assert len(foreseen.to_measure) == len(THREE)
    (bill,) = foreseen.bills
    assert bill.supposed
    assert bill.calls == 2 * N * (len(THREE) - 1)
    assert "taken at full length" in as_text(foreseen)
    (now,) = place.foresee(judge).bills
    assert now.calls <= bill.calls
    assert now.n_in <= bill.n_in
    assert now.cost_most <= bill.cost_most
    place.run(judge)
    assert len(server.bodies) <= bill.calls
    # One checkpoint's answers are not there.
    half = place.at("half")
    planned = place.store.plans()[-1]["comparisons"]
    cells = {one["checkpoint"]: one["answers"] for one in planned}
    shutil.rmtree(half.results / "cells" / cells["slic"])
    (bill,) = half.foresee(judge).bills
    assert bill.supposed
    assert now.calls <= bill.calls <= 2 * N * (len(THREE) - 1)


def test_a_panel_and_its_member_are_paid_once(
    place: Place, served: tuple[Misbehaving, str]
) -> None:
    server, url = served
    place.judge("one", url)
    place.judge("two", url, system="Judge.")
    panel = place.judge("panel", kind="panel", model=None, members=["one", "two"])
    for judges in (("one", panel), (panel, "two", "demo_reward")):
        foreseen = place.foresee(*judges)
        calls = sum(bill.calls for bill in foreseen.bills if bill.judge.recipe.kind != "reward")
        server.bodies.clear()
        trial = place.at("-".join(judges))
        assert not trial.run(*judges).failed
        assert calls == len(server.bodies)
        assert len(foreseen.bills) == len(judges)


def test_opponents_that_ask_the_same_are_counted_once(
    place: Place, served: tuple[Misbehaving, str]
) -> None:
    server, url = served
    judge, opponents = place.judge(url=url), ("sft", "round_robin", "reference")
    (bill,) = place.foresee(judge, opponents=opponents).bills
    assert not place.run(judge, opponents=opponents).failed
    assert bill.calls == len(server.bodies) == len(asked_of(server))


def test_reasons_are_told_before(place: Place, served: tuple[Misbehaving, str]) -> None:
    _, url = served
    foreseen = place.foresee(place.judge(url=url), opponents=("nobody", "sft"))
    assert foreseen.reasons == (
        "no checkpoint here is the opponent nobody; --opponent names another",
    )
    assert "cannot be done: no checkpoint here is the opponent nobody" in as_text(foreseen)
    lost = place.judge("lost", kind="reward", model="./nowhere", prompt=None, verdict=None)
    assert "is not a directory" in place.foresee(lost).reasons[0]
