"""What is to be judged by whom, and what a user may not ask for."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefbench.cells import PlannedCell, PlannedTask, Settings, plan_cells
from prefbench.comparisons import (
    Judging,
    PlannedComparison,
    facts_of,
    plan_comparisons,
    plan_judges,
    told,
)
from prefbench.errors import InputError, JudgeError
from prefbench.judges.opening import PlannedJudge
from prefbench.records import Checkpoint
from prefbench.tasks import Task, load_tasks, tasks_folder
from tests.judged import RECIPE, Place

URL = "http://127.0.0.1:1/v1"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Folders for judges; nothing is run."""
    (tmp_path / "judges").mkdir()
    return Place(*[tmp_path / "none"] * 4, judges=tmp_path / "judges")


def checkpoint(name: str, **facts: Any) -> Checkpoint:
    path = Path("/nowhere", *name.split("/"))
    said = {"state": "ready", "method": name, "fingerprint": f"print of {name}"}
    return Checkpoint(name, path, **{**said, **facts})


@cache
def demo_task() -> Task:
    ((found, _),) = load_tasks(["demo_winrate"], [tasks_folder()])
    return found


def task(**changes: Any) -> Task:
    found = demo_task()
    recipe = found.recipe.model_copy(update=changes)
    return dataclasses.replace(found, recipe=recipe)


def cells_of(checkpoints: list[Checkpoint], **changes: Any) -> list[PlannedCell]:
    planned = PlannedTask(task(**changes), limit=5, data="the data")
    return plan_cells(checkpoints, [planned], Settings(engine="hf", chat_template="off"))


def planned(
    place: Place, checkpoints: list[Checkpoint], *judges: str, **judging: Any
) -> list[PlannedComparison]:
    wanted = Judging(judges=judges, folders=(place.judges,), **judging)
    cells = cells_of(checkpoints)
    found = plan_judges([cells[0].task], wanted, [])
    return plan_comparisons(cells, checkpoints, found, wanted)


CHECKPOINTS = [checkpoint(name) for name in ("sft", "dpo", "ipo", "slic")]


@pytest.mark.parametrize("name", ["max_cost", "max_calls", "concurrency"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_limit_is_a_number_above_zero(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} must be a number above 0"):
        Judging(**{name: value})


def test_a_mode_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="online or batch, not 'later'"):
        Judging(mode="later")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot stop when it is sure"):
        Judging(mode="batch", stop_when_sure=True)


def test_every_opponent_and_judge_is_compared_with(place: Place) -> None:
    judges = place.judge("one", URL), place.judge("two", URL, system="Judge.")
    found = planned(place, CHECKPOINTS, *judges, opponents=("sft", "reference", "round_robin"))
    assert len({one.cell for one in found}) == len(found) == 2 * (4 + 4 + 6)
    robin = [(o.checkpoint.name, o.opponent) for o in found if o.against == "round_robin"]
    assert robin[:6] == [
        ("sft", "dpo"), ("sft", "ipo"), ("sft", "slic"),
        ("dpo", "ipo"), ("dpo", "slic"),
        ("ipo", "slic"),
    ]  # fmt: skip


def test_tasks_say_whom_where_the_user_does_not(place: Place) -> None:
    wanted = Judging()
    cells = cells_of(CHECKPOINTS, judge=("structured", "summary"), opponent=("ipo", "reference"))
    judges = plan_judges([cells[0].task], wanted, [])
    found = plan_comparisons(cells, CHECKPOINTS, judges, wanted)
    assert {(one.judge.name, one.against) for one in found} == {
        (judge, against) for judge in ("structured", "summary") for against in ("ipo", "reference")
    }


@pytest.mark.parametrize(
    ("name", "others", "opponent", "reason"),
    [
        ("sft", [], "sft", None),
        ("SFT", [], "sft", None),
        ("SFT", [checkpoint("more/sft", method="sft")], "", "may be sft, more/sft; --opponent"),
        ("sft", [checkpoint("more/sft", method="sft")], "sft", None),
        ("kto", [], "", "no checkpoint here is the opponent kto; --opponent names another"),
        (
            "torn",
            [checkpoint("torn", state="incomplete", reason="model.safetensors is cut")],
            "",
            "the opponent torn cannot be asked: model.safetensors is cut",
        ),
    ],
)  # fmt: skip
def test_an_opponent_is_one_checkpoint_or_a_reason(
    place: Place, name: str, others: list[Checkpoint], opponent: str, reason: str | None
) -> None:
    judge = place.judge(url=URL)
    found = planned(place, [*CHECKPOINTS, *others], judge, opponents=(name,))
    for one in found:
        if reason:
            assert reason in str(one.missing)
        else:
            assert one.missing is None
            assert one.opponent == opponent
            assert one.opponent_answers
            assert one.opponent_answers.checkpoint.name == opponent


def test_a_comparison_is_known_by_its_content(place: Place) -> None:
    judge = place.judge(url=URL)
    names = {one.checkpoint.name: one.cell for one in planned(place, CHECKPOINTS, judge)}
    renamed = [dataclasses.replace(one, name=f"{one.name}-b") for one in CHECKPOINTS]
    again = planned(place, renamed, judge, opponents=("sft-b",))
    assert {one.checkpoint.name: one.cell for one in again} == {
        f"{name}-b": cell for name, cell in names.items()
    }
    other = [dataclasses.replace(CHECKPOINTS[0], fingerprint="another"), *CHECKPOINTS[1:]]
    changed = planned(place, other, judge)
    assert not {one.cell for one in changed} & set(names.values())
    sure = planned(place, CHECKPOINTS, judge, stop_when_sure=True)
    assert [one.cell for one in sure] == list(names.values())


@pytest.mark.parametrize(
    ("changes", "anew"),
    [
        ({"price": {"input": 7.0, "output": 7.0}}, False),
        ({"description": "other"}, False),
        ({"endpoint": {"timeout": 7.0, "concurrency": 1, "api_key_env": "OTHER"}}, False),
        ({"examples": [{"reply": "Verdict: A", "preference": 1}]}, False),
        ({"system": "Judge."}, True),
        ({"prompt": "{{ first }} or {{ second }}?"}, True),
        ({"model": "n"}, True),
        ({"endpoint": {"base_url": "http://127.0.0.1:2/v1"}}, True),
        ({"sampling": {"max_tokens": 31}}, True),
        ({"verdict": {**RECIPE["verdict"], "marker": "Choice:"}}, True),  # type: ignore[dict-item]
    ],
)
def test_what_can_change_a_verdict_makes_another_judge(
    place: Place, changes: dict[str, Any], anew: bool
) -> None:
    judge = place.judge(url=URL)
    before = {one.cell for one in planned(place, CHECKPOINTS, judge)}
    place.judge(url=URL, **changes)
    after = {one.cell for one in planned(place, CHECKPOINTS, judge)}
    assert (after != before) is anew
    assert not (anew and after & before)


def test_users_may_ask_another_model_or_server(place: Place, tmp_path: Path) -> None:
    names = place.judge("one", URL), place.judge("two", URL, endpoint={"api_key_env": "MINE"})
    members = place.judge("both", kind="panel", model=None, members=list(names))
    found = plan_judges(
        [task()],
        Judging(
            judges=(*names, members),
            folders=(place.judges,),
            models=("other", "two=special=3"),
            base_url="http://127.0.0.1:9/v1",
            concurrency=5,
        ),
        [],
    )
    assert [found[name].recipe.model for name in names] == ["other", "special=3"]
    assert [one.recipe.model for one in found["both"].members] == ["other", "special=3"]
    for one in found["both"].members:
        assert one.recipe.endpoint
        assert one.recipe.endpoint.base_url == "http://127.0.0.1:9/v1"
        # The key of another server is nothing that this one should see.
        assert one.recipe.endpoint.api_key_env is None
        assert one.recipe.endpoint.concurrency == 5
    assert found["both"].key != found["one"].key


def test_a_model_for_a_judge_that_is_not_asked_is_refused(place: Place) -> None:
    place.judge(url=URL)
    wanted = Judging(judges=("local",), folders=(place.judges,), models=("lokal=m2",))
    with pytest.raises(JudgeError, match=r"lokal=m2.*no judge here is named 'lokal'.*local"):
        plan_judges([task()], wanted, [])


def test_unknown_judges_are_named_with_their_neighbours(place: Place) -> None:
    place.judge(url=URL)
    with pytest.raises(JudgeError, match="no judge is named 'locl'; did you mean local"):
        plan_judges([task()], Judging(judges=("locl",), folders=(place.judges,)), [])
    with pytest.raises(JudgeError, match="no such judges folder"):
        plan_judges([task()], Judging(folders=(place.judges / "none",)), [])


def test_where_nothing_is_compared_no_judge_is_read(tmp_path: Path) -> None:
    ((answers, _),) = load_tasks(["demo_everyday"], [tasks_folder()])
    assert plan_judges([answers], Judging(folders=(tmp_path / "none",)), []) == {}


def test_facts_of_a_judge_can_be_kept(place: Place) -> None:
    place.judge("one", URL, endpoint={"api_key_env": "MINE"})
    place.judge("two", URL, system="Judge.")
    place.judge("both", kind="panel", model=None, members=["one", "two"])
    found = plan_judges([task()], Judging(judges=("both",), folders=(place.judges,)), [])
    facts = json.loads(json.dumps(facts_of(found["both"])))
    assert [member["name"] for member in facts["members"]] == ["one", "two"]
    assert facts["members"][0]["recipe"]["endpoint"]["base_url"] == URL


def test_a_key_in_place_of_its_variable_is_not_kept(place: Place) -> None:
    key = "sk-very-secret"
    judge = place.judge(url=URL, endpoint={"api_key_env": key})
    (one, *_) = planned(place, CHECKPOINTS, judge)
    assert key not in json.dumps([facts_of(one.judge), told(one), dict(one.identity)])
    (one, *_) = planned(place, CHECKPOINTS, place.judge(url=URL), api_key_env=key)
    assert key not in json.dumps([facts_of(one.judge), told(one), dict(one.identity)])


def test_an_address_with_a_password_is_refused_at_once() -> None:
    for url in ("http://me:secret@host/v1", "http://host/v1?key=secret", "host"):
        with pytest.raises(InputError, match="the judges' base_url") as refused:
            Judging(base_url=url)
        assert "secret" not in str(refused.value)


@cache
def structured() -> dict[str, PlannedJudge]:
    return plan_judges([demo_task()], Judging(judges=("structured",)), [])


@given(
    st.lists(st.sampled_from(["sft", "dpo", "ipo"]), min_size=2, max_size=9),
    st.randoms(use_true_random=False),
)
def test_a_round_robin_holds_every_two_once_in_any_order(methods: list[str], random: Any) -> None:
    checkpoints = [checkpoint(f"run{n}", method=method) for n, method in enumerate(methods)]
    wanted = Judging(opponents=("round_robin",), judges=("structured",))
    cells = cells_of(checkpoints)
    first = plan_comparisons(cells, checkpoints, structured(), wanted)
    random.shuffle(cells)
    second = plan_comparisons(cells, checkpoints, structured(), wanted)
    assert {one.cell for one in first} == {one.cell for one in second}
    pairs = {frozenset((one.checkpoint.name, one.opponent)) for one in first}
    n = len(methods)
    assert len(pairs) == len(first) == n * (n - 1) // 2
