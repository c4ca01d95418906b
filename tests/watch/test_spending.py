from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from prefbench.cells import Settings
from prefbench.comparisons import Judging
from prefbench.judges.budget import Budget
from prefbench.store import Store
from prefbench.watch.events import Events
from prefbench.watch.policy import Measuring, Policy
from prefbench.watch.spending import Spending
from prefbench.watch.status import Row
from prefbench.watch.watching import watch
from tests.judged import RANKED, N, Place, make_place, rule
from tests.misbehaving import Misbehaving, Reply, wired

MOST = 9


def look(place: Place, tasks: list[str], judging: Judging, lines: list[str]) -> dict[str, Row]:
    """A watcher's whole life."""
    rows = watch(
        place.runs,
        Measuring(
            tasks,
            place.results,
            Settings(engine="hf", limit=N),
            judging,
            mirrors=[place.data],
            task_folders=[place.tasks],
        ),
        Policy(interval=0.05, quiet=0.0, once=True),
        log=lines.append,
    )
    return {row.name: row for row in rows}


def test_at_a_cap_judging_waits_and_measuring_goes_on(small_zoo: Path, tmp_path: Path) -> None:
    place = make_place(small_zoo, tmp_path, ("sft", "dpo", "ipo"))
    server = Misbehaving(rule)
    lines: list[str] = []
    with wired(server.answer) as (url, _):
        judging = Judging(judges=(place.judge(url=url),), folders=(place.judges,), max_calls=MOST)
        for _ in range(2):  # a second watcher has no cap of its own
            rows = look(place, ["drawn", "demo_everyday"], judging, lines)
            assert len(server.bodies) == MOST
            waiting = [row for row in rows.values() if row.state != "judged"]
            assert {row.state for row in waiting} == {"measured"}
            assert {row.n_measured for row in rows.values()} == {2}
            assert all("limit of 9 calls is reached (9 calls" in str(r.reason) for r in waiting)
        assert not [line for line in lines if ": failed" in line]
        enough = dataclasses.replace(judging, max_calls=10_000)
        rows = look(place, ["drawn", "demo_everyday"], enough, lines)
    assert {row.state for row in rows.values()} == {"judged"}
    assert {row.tries for row in rows.values()} == {0}


def test_a_ranking_at_a_cap_waits_too_and_what_it_spends_is_known_while_it_goes_on(
    small_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefbench.watch.spending.OFTEN", 0.0)
    place = make_place(small_zoo, tmp_path, ("dpo",))
    (place.tasks / "ranked.yaml").write_text(RANKED)
    server = Misbehaving(rule)
    known: list[int] = []
    lines: list[str] = []

    def answer(path: str, body: Any, key: str | None) -> Reply:
        known.append(Spending(Store(place.results), judging).spent().calls)
        return server.answer(path, body, key)

    with wired(answer) as (url, _):
        judge = place.judge(url=url, endpoint={"concurrency": 1})
        judging = Judging(judges=(judge,), folders=(place.judges,), max_calls=MOST)
        (row,) = look(place, ["ranked"], judging, lines).values()
        assert len(known) == MOST
        assert (row.state, row.tries) == ("ready", 0)  # it has no numbers yet
        assert "limit of 9 calls is reached (9 calls" in str(row.reason)
        assert not [line for line in lines if ": failed" in line]
        judging = dataclasses.replace(judging, max_calls=10_000)
        (row,) = look(place, ["ranked"], judging, lines).values()
        assert row.state == "measured"
    events = Events(place.results / "watch")
    events.refresh()
    assert events.last[row.path].progress == (1, MOST)  # what a kill in its turn is held against
    # One on the way, and one whose verdict is just being kept.
    assert all(n - known[n] <= 2 for n in range(len(known)))
    assert Spending(Store(place.results), judging).spent().calls == len(known) > MOST


def test_what_was_spent_is_known_after_a_kill(tmp_path: Path) -> None:
    def spending(most: float) -> Spending:
        return Spending(Store(tmp_path), Judging(max_cost=most, max_calls=10))

    budget = Budget(max_cost=1.0, max_calls=10)
    for n in (1, 2):
        assert budget.take(Fraction(1, 4)) is None
        spending(1.0).note("a", budget, now=True)
        assert spending(1.0).spent()[:2] == (n, 0.25 * n)
    with (tmp_path / "watch" / "spending.jsonl").open("ab") as file:
        file.write(b'\n{"sitting": "b", "cal')
    assert budget.take(Fraction(3, 4)) is not None
    spending(1.0).note("c", budget, now=True)
    assert spending(1.0).spent() == (4, 1.0, True)
    assert spending(1.0).reached() is not None
    with spending(3.0).left() as left:
        assert left is not None
        assert (left.max_cost, left.max_calls) == (pytest.approx(2.0), 6)
