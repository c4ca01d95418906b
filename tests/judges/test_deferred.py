"""A judge by files: requests written once, replies read whenever they are there, limits kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from prefbench.errors import JudgeError
from prefbench.judges.budget import Budget
from prefbench.judges.deferred import REPLIES, DeferredJudge
from prefbench.judges.judge import Unheard, Verdict
from prefbench.judges.recipe import JudgeRecipe
from prefbench.runner import Listener
from tests.judged import asked_of, make_place, rule
from tests.judges.test_chat import ASKS, completion, recipe
from tests.misbehaving import Misbehaving, wired

Notices = list[str]


def deferred(folder: Path, notices: Notices | None = None, **limits: Any) -> DeferredJudge:
    told = [] if notices is None else notices
    return DeferredJudge(recipe(), folder, budget=Budget(**limits), on_notice=told.append)


def decided(judge: DeferredJudge, asks: Sequence[Any] = ASKS) -> list[Verdict | Unheard]:
    """In the order of the asks, each once."""
    found = list(judge.decide(asks))
    assert sorted(index for index, _ in found) == list(range(len(asks)))
    return [one for _, one in sorted(found, key=lambda both: both[0])]


def requests_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.jsonl") if not file.name.endswith(REPLIES))


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def reply_to(
    file: Path, answer: Callable[[dict[str, Any]], Any] = lambda body: completion()
) -> Path:
    """Writes the replies to a file of requests, as a batch service does."""
    replies = file.with_name(file.name.removesuffix(".jsonl") + REPLIES)
    rows = [
        {
            "id": "batch_req_1",
            "custom_id": row["custom_id"],
            "response": {"status_code": 200, "body": answer(row["body"])},
            "error": None,
        }
        for row in rows_of(file)
    ]
    replies.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    return replies


def test_requests_are_written_once_and_replies_read(tmp_path: Path) -> None:
    notices: Notices = []
    for one in decided(deferred(tmp_path, notices)):
        assert isinstance(one, Unheard)
        assert one.reason.startswith("no replies yet to tested-")
    (file,) = requests_in(tmp_path)
    assert len(rows_of(file)) == len(ASKS)
    assert str(file) in notices[0]
    written = file.read_bytes()
    again = decided(deferred(tmp_path, notices))
    assert all(one.reason == f"no replies yet to {file.name}" for one in again)
    assert requests_in(tmp_path) == [file]
    assert file.read_bytes() == written
    assert file.name in notices[1]
    reply_to(file)
    for one in decided(deferred(tmp_path, notices)):
        assert isinstance(one, Verdict)
        assert one.preference == 1
        assert one.cost > 0
    assert requests_in(tmp_path) == [file]
    assert len(notices) == 2


def test_what_is_new_goes_into_a_file_of_its_own(tmp_path: Path) -> None:
    decided(deferred(tmp_path), ASKS[:5])
    first = requests_in(tmp_path)
    decided(deferred(tmp_path), ASKS)
    (second,) = set(requests_in(tmp_path)) - set(first)
    assert len(rows_of(second)) == len(ASKS) - 5
    reply_to(second)
    kinds = [type(one) for one in decided(deferred(tmp_path))]
    assert kinds == [Unheard] * 5 + [Verdict] * (len(ASKS) - 5)


def test_a_file_of_replies_that_ends_within_a_row_is_waited_for(tmp_path: Path) -> None:
    """The rest may be there already and paid for."""
    decided(deferred(tmp_path))
    (file,) = requests_in(tmp_path)
    replies = reply_to(file)
    whole = replies.read_bytes()
    replies.write_bytes(whole[: len(whole) // 2 - 5])
    notices: Notices = []
    found = decided(deferred(tmp_path, notices))
    kinds = {type(one) for one in found}
    assert kinds == {Unheard, Verdict}
    assert {one.reason for one in found if isinstance(one, Unheard)} == {
        f"{replies.name} has lines that are no rows (1): have all of the file there, or take them "
        "out to have the requests written again"
    }
    assert requests_in(tmp_path) == [file]
    assert "no rows" in notices[0]
    replies.write_bytes(whole)
    assert {type(one) for one in decided(deferred(tmp_path))} == {Verdict}


def test_foreign_rows_are_passed_over(tmp_path: Path) -> None:
    decided(deferred(tmp_path))
    (file,) = requests_in(tmp_path)
    replies = reply_to(file)
    foreign = json.dumps({"custom_id": "mine", "response": {"body": completion("Verdict: B")}})
    replies.write_text(f"{foreign}\n{replies.read_text()}\n{foreign}")
    for one in decided(deferred(tmp_path)):
        assert isinstance(one, Verdict)
        assert one.preference == 1


@pytest.mark.parametrize("n_failed", [3, len(ASKS)])
def test_what_failed_is_written_again_under_another_name(tmp_path: Path, n_failed: int) -> None:
    decided(deferred(tmp_path))
    (file,) = requests_in(tmp_path)
    replies = reply_to(file)
    rows = rows_of(replies)
    for row in rows[:n_failed]:
        row["response"] = {"status_code": 400, "body": {"error": {"message": "too long"}}}
    replies.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = decided(deferred(tmp_path))
    (second,) = set(requests_in(tmp_path)) - {file}
    assert len(rows_of(second)) == n_failed
    reasons = {one.reason for one in found if isinstance(one, Unheard)}
    assert reasons == {f"no replies yet to {second.name}; the try before: HTTP 400: too long"}
    decided(deferred(tmp_path))
    assert len(requests_in(tmp_path)) == 2
    reply_to(second)
    assert {type(one) for one in decided(deferred(tmp_path))} == {Verdict}


def test_requests_that_wait_count_against_the_limits(tmp_path: Path) -> None:
    for _ in range(2):  # the same command before there are replies
        found = decided(deferred(tmp_path, max_calls=4))
        (file,) = requests_in(tmp_path)
        assert len(rows_of(file)) == 4
        refused = [one for one in found if "limit of 4 calls" in str(one.reason)]
        assert len(refused) == len(ASKS) - 4
    reply_to(file)
    found = decided(deferred(tmp_path, max_calls=4))
    assert sum(isinstance(one, Verdict) for one in found) == 4
    assert sorted(len(rows_of(one)) for one in requests_in(tmp_path)) == [4, 4]


def test_no_more_is_written_than_dollars_allow(tmp_path: Path) -> None:
    budget = Budget(max_cost=0.02)
    judge = DeferredJudge(recipe(), tmp_path, budget=budget, on_notice=lambda said: None)
    found = decided(judge)
    (file,) = requests_in(tmp_path)
    assert 0 < len(rows_of(file)) < len(ASKS)
    assert budget.facts["reserved"] <= 0.02
    assert any("limit of $0.0200" in str(one.reason) for one in found)


def test_dollars_cannot_be_limited_without_a_price(tmp_path: Path) -> None:
    said = recipe(endpoint={"base_url": "http://host/v1", "api_key_env": "MINE"})
    judge = JudgeRecipe.model_validate(said.model_dump(by_alias=True, exclude={"price"}))
    with pytest.raises(JudgeError, match="without its price"):
        DeferredJudge(judge, tmp_path, budget=Budget(max_cost=1), on_notice=print)
    DeferredJudge(judge, tmp_path, budget=Budget(max_calls=1), on_notice=print)


def test_an_address_with_a_password_is_refused(tmp_path: Path) -> None:
    judge = recipe(endpoint={"base_url": "http://me:secret@host/v1"})
    with pytest.raises(JudgeError, match="endpoint: the base URL") as refused:
        DeferredJudge(judge, tmp_path, budget=Budget(), on_notice=print)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_ours_is_named(tmp_path: Path) -> None:
    decided(deferred(tmp_path))
    (file,) = requests_in(tmp_path)
    file.write_text("{not json\n")
    with pytest.raises(JudgeError, match=f"{file.name}: is no file of requests"):
        decided(deferred(tmp_path))


def test_requests_in_place_of_replies_are_refused(tmp_path: Path) -> None:
    decided(deferred(tmp_path))
    (file,) = requests_in(tmp_path)
    file.with_name(file.name.removesuffix(".jsonl") + REPLIES).write_bytes(file.read_bytes())
    with pytest.raises(JudgeError, match="is what was asked"):
        decided(deferred(tmp_path))


def test_a_judges_name_may_hold_what_file_names_may_not(tmp_path: Path) -> None:
    judge = DeferredJudge(
        recipe(judge="../of/[all]*"), tmp_path / "b", budget=Budget(), on_notice=print
    )
    decided(judge)
    (file,) = requests_in(tmp_path / "b")
    reply_to(file)
    assert {type(one) for one in decided(judge)} == {Verdict}


def test_a_run_by_files_gives_the_table_of_one_that_asks(small_zoo: Path, tmp_path: Path) -> None:
    place = make_place(small_zoo, tmp_path, ("sft", "dpo", "slic"))
    server = Misbehaving(rule)
    online, batched = place.at("online"), place.at("batched")
    with wired(server.answer) as (url, _):
        judge = place.judge(url=url)
        assert not online.run(judge).failed
    everything = len(server.bodies)
    notices: Notices = []
    listener = Listener(on_notice=notices.append)
    outcome = batched.run(judge, mode="batch", listener=listener)
    assert all("no replies yet to" in reason for reason in outcome.failed.values())
    assert batched.rows()["sft"]["value"] == 0.5  # nobody is asked about it
    assert "no replies yet to" in batched.rows()["dpo"]["missing"]
    (file,) = requests_in(batched.results / "batches")
    assert len(rows_of(file)) == everything
    assert str(file) in "".join(notices)
    again = batched.run(judge, mode="batch")
    assert again.failed.keys() == outcome.failed.keys()
    assert requests_in(batched.results / "batches") == [file]
    assert len(server.bodies) == everything  # and the server is gone
    reply_to(file, lambda body: json.loads(server.answer("", body, None).body))
    assert not batched.run(judge, mode="batch").failed
    assert batched.table() == online.table()
    file.unlink()
    assert batched.run(judge).measured == ()
    assert len(asked_of(server)) == everything


def test_a_panel_waits_for_the_member_by_files(small_zoo: Path, tmp_path: Path) -> None:
    place = make_place(small_zoo, tmp_path, ("sft", "dpo", "slic"))
    server = Misbehaving(rule)
    with wired(server.answer) as (url, _):
        members = ["demo_reward", place.judge(url=url)]
        panel = place.judge("panel", kind="panel", model=None, members=members)
        online = place.at("online")
        assert not online.run(panel).failed
    outcome = place.run(panel, mode="batch")
    assert sorted(outcome.failed) == [
        f"{name} × drawn against sft by panel" for name in ("dpo", "slic")
    ]
    assert all("local: no replies yet to" in reason for reason in outcome.failed.values())
    (file,) = requests_in(place.results / "batches")
    reply_to(file, lambda body: json.loads(server.answer("", body, None).body))
    assert not place.run(panel, mode="batch").failed
    assert place.table() == online.table()
