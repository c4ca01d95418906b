"""Working copies brought into step, on a store of fsspec's that is a folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prefbench.buckets.bucket
from prefbench.buckets.places import place
from prefbench.errors import StoreError
from prefbench.judges.judge import Ask, Turn, Verdict
from prefbench.judges.verdicts import Verdicts
from prefbench.records import Answer, Record
from prefbench.rows import Batch
from prefbench.store import Store

MACHINES = ("a", "b", "c")


def machine(folder: Path, name: str, *, create: bool = True) -> Store:
    """The results as another machine has them: another cache, and nothing remembered."""
    prefbench.buckets.bucket._bucket.cache_clear()  # as in a process of its own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFBENCH_CACHE", str(folder / name))
        patch.setenv("PREFBENCH_UPLOAD_EVERY", "0")
        return Store(place(f"file://{folder}/store"), create=create)


def seal(store: Store, name: str) -> None:
    with store.claim(name) as cell:
        assert cell is not None
        if not store.is_sealed(name):
            answer = Answer(0, texts=(f"by {name}",))
            record = Record(0, "acc", 1.0, None)
            cell.seal([answer], [record], {0: "0"}, {"cell": name, "finished": "now"})


def judge(store: Store, name: str, cost: float) -> None:
    with Verdicts(store.folder / "verdicts.sqlite") as verdicts:
        verdict = Verdict(1.0, None, "A", 1, 1, cost, {})
        verdicts.add(name, Ask((Turn("user", name),), "x", "y"), verdict, judge="j", judge_key="k")


def do(store: Store, act: str, name: str) -> None:
    match act:
        case "seal":
            seal(store, name)
        case "plan":
            store.write_plan(name, {"id": name, "when": "now"})
        case "items":
            store.write_items(name, [{"item": 0, "prompt": name}])
        case "judge":
            judge(store, name, 0.5)
        case "fail":
            with store.claim(name) as cell:
                if cell and not store.is_sealed(name):
                    cell.fail("no reason")


def held(store: Store, names: Sequence[str]) -> dict[str, Any]:
    """All that a machine can read."""
    with Verdicts(store.folder / "verdicts.sqlite") as verdicts:
        costs = {key: verdict.cost for key, verdict in verdicts.find(names).items()}
    return {
        "sealed": {
            name: (store.manifest(name), store.answers(name), store.records(name).to_pylist())
            for name in names
            if store.is_sealed(name)
        },
        "failed": {n: store.failure(n) for n in names if not store.is_sealed(n)},
        "plans": store.plans(),
        "costs": costs,
    }


ACTS = st.tuples(
    st.sampled_from(MACHINES),
    st.sampled_from(["seal", "plan", "items", "judge", "fail", "close"]),
    st.sampled_from(["p", "q", "r"]),
)


@settings(max_examples=12, deadline=None)
@given(st.lists(ACTS, max_size=12))
def test_whatever_machines_do_in_whatever_order_all_come_to_have_the_union(
    acts: list[tuple[str, str, str]],
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        stores = {name: machine(folder, name) for name in MACHINES}
        for name, act, what in acts:
            if act == "close":
                assert stores[name].close() is None
                stores[name] = machine(folder, name)
            else:
                do(stores[name], act, what)
        for store in stores.values():
            assert store.close() is None
        # Once more, so that the first has seen what the last has brought.
        found = [held(machine(folder, name), ["p", "q", "r"]) for name in (*MACHINES, "new")]
        assert found[0] == found[1] == found[2] == found[3]
        done = {(act, what) for _, act, what in acts}
        assert set(found[0]["sealed"]) == {what for act, what in done if act == "seal"}
        assert {plan["id"] for plan in found[0]["plans"]} == {
            what for act, what in done if act == "plan"
        }
        assert found[0]["costs"] == {what: 0.5 for act, what in done if act == "judge"}


def test_of_a_cell_that_two_have_sealed_the_first_counts(tmp_path: Path) -> None:
    one, two = machine(tmp_path, "a"), machine(tmp_path, "b")
    for store, finished in ((one, "first"), (two, "second")):
        store.leases = store.leases[:1]  # as if neither had known of the other
        with store.claim("x") as cell:
            assert cell is not None
            answer = Answer(0, texts=(finished,))
            cell.seal([answer], [Record(0, "acc", 1.0, None)], {0: "0"}, {"finished": finished})
    for store in (one, two, machine(tmp_path, "c", create=False)):
        assert store.manifest("x") == {"finished": "first"}
        assert store.answers("x")[0].texts == ("first",)


def test_a_seal_that_did_not_come_to_its_end_does_not_count(tmp_path: Path) -> None:
    seal(machine(tmp_path, "a"), "x")
    (tmp_path / "store" / "cells" / "x" / "manifest.json").unlink()
    other = machine(tmp_path, "b")
    assert not other.is_sealed("x")
    assert not (other.folder / "cells" / "x" / "records.parquet").exists()
    seal(other, "x")
    assert machine(tmp_path, "c").is_sealed("x")


def test_the_longer_journal_of_the_same_batches_is_gone_on_with(tmp_path: Path) -> None:
    header = {"batch_size": 1}
    one = machine(tmp_path, "a")
    with one.claim("x") as cell:
        assert cell is not None
        cell.resume(header)
        for n in range(3):
            cell.append(n, Batch("t", [Answer(n, texts=("from a",))]))
    other = machine(tmp_path, "b")
    with other.claim("x") as cell:
        assert cell is not None
        assert len(cell.resume(header)) == 3
        cell.append(3, Batch("t", [Answer(3, texts=("from b",))]))
    with one.claim("x") as cell:
        assert cell is not None
        assert [batch.answers[0].texts[0] for batch in cell.resume(header).values()] == [
            *["from a"] * 3,
            "from b",
        ]


def test_a_claim_on_one_machine_keeps_others_away(tmp_path: Path) -> None:
    one, other = machine(tmp_path, "a"), machine(tmp_path, "b")
    with one.claim("x") as mine:
        assert mine is not None
        with other.claim("x") as theirs:
            assert theirs is None
        with other.claim("y") as theirs:
            assert theirs is not None
    assert not list((tmp_path / "store" / "leases").iterdir())


def test_a_process_that_has_begun_can_show_what_it_has_without_its_store(tmp_path: Path) -> None:
    one = machine(tmp_path, "a")
    told: list[str] = []
    one.tell(told.append)
    (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").write_text("no folder")
    seal(one, "x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFBENCH_CACHE", str(tmp_path / "a"))
        patch.setattr(prefbench.buckets.bucket, "LOOKS", -1.0)
        patch.setattr(prefbench.buckets.bucket, "LAST_TRIES", ())
        again = Store(one.folder, create=False)
    assert again.manifest("x") is not None
    assert "going on here" in told[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefbench.buckets.bucket, "LAST_TRIES", ())
        left = one.close()
    assert left is not None
    assert "alone, and the same command uploads" in left
    assert len(told) == 1
    (tmp_path / "store").unlink()
    (tmp_path / "away").rename(tmp_path / "store")
    assert machine(tmp_path, "a").close() is None
    assert machine(tmp_path, "b").is_sealed("x")


def test_hostile_objects_stay_where_they_are(tmp_path: Path) -> None:
    machine(tmp_path, "a").close()
    store = tmp_path / "store"
    (store / "cells" / "..%2f").mkdir(parents=True)
    for name in ("cells/..%2f/manifest.json", "remote.json", "seen.sqlite", ".hidden", "x.json"):
        (store / name).write_text('{"url": "s3://elsewhere", "copy": "theirs"}')
    (store / "plans").mkdir(exist_ok=True)
    (store / "plans" / "bad.json").write_text("[" * 100_000)
    other = machine(tmp_path, "b")
    names = {path.relative_to(other.folder).as_posix() for path in other.folder.rglob("*")}
    assert names <= {"plans", "plans/bad.json", "store.json", "remote.json", "seen.sqlite"}
    assert "elsewhere" not in (other.folder / "remote.json").read_text()
    with pytest.raises(StoreError, match=r"bad\.json: cannot be read"):
        other.plans()


def test_lines_that_are_no_verdicts_are_left_out(tmp_path: Path) -> None:
    one = machine(tmp_path, "a")
    judge(one, "good", 0.25)
    one.close()
    (segment,) = (tmp_path / "store" / "verdicts").iterdir()
    row = json.loads(segment.read_text())
    lines = [
        json.dumps({**row, "key": "no cost", "cost": "free"}),
        json.dumps({**row, "key": "no facts", "facts": "{"}),
        json.dumps({**row, "key": "good", "cost": 0.0}),  # the first one stays
        json.dumps({**row, "key": "too large", "n_in": 10**30}),
        "[" * 100_000,
        "null",
        json.dumps({**row, "key": "fine"})[:-3],
        json.dumps({**row, "key": "fine"}),
    ]
    (segment.parent / "more.jsonl").write_text("\n".join(lines))
    keys = ["good", "no cost", "no facts", "too large", "fine"]
    for name in ("a", "b"):
        with Verdicts(machine(tmp_path, name).folder / "verdicts.sqlite") as verdicts:
            found = verdicts.find(keys)
        assert set(found) == {"good", "fine"}
    assert found["fine"].cost == 0.25
