from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from prefbench.errors import StoreError
from prefbench.records import Answer, Record
from prefbench.rows import Batch
from prefbench.store import Store

HEADER = {"batch_size": 2}
BATCHES = {
    0: Batch(
        "abc",
        [Answer(3, logps=(-1.5, -2.25), greedy=(True, False), n_tokens=(2, 3)), Answer(1)],
    ),
    1: Batch(
        "def",
        [
            Answer(0, texts=('a "quoted"\nline é \x1b[31m',), unfinished=(True,)),
            Answer(2, reason="no"),
        ],
    ),
}


def fill(store: Store, cell: str = "cell") -> None:
    with store.claim(cell) as claimed:
        assert claimed is not None
        claimed.resume(HEADER)
        for number, batch in BATCHES.items():
            claimed.append(number, batch)


def seal(store: Store, cell: str = "cell") -> None:
    answers = [answer for batch in BATCHES.values() for answer in batch.answers]
    records = [Record(3, "acc", 1.0), Record(1, "acc", 0.0), Record(2, "answer", None, "no")]
    with store.claim(cell) as claimed:
        assert claimed is not None
        claimed.seal(answers, records, {i: f"c{i}" for i in range(4)}, {"n_items": 4})


def test_batches_come_back_as_they_were_appended(tmp_path: Path) -> None:
    fill(Store(tmp_path))
    with Store(tmp_path).claim("cell") as claimed:
        assert claimed is not None
        assert claimed.resume(HEADER) == BATCHES


def test_a_journal_cut_anywhere_keeps_its_whole_batches_and_can_go_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store)
    journal = tmp_path / "cells" / "cell" / "journal.jsonl"
    whole = journal.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        journal.write_bytes(whole[:length])
        with store.claim("cell") as claimed:
            assert claimed is not None
            kept = claimed.resume(HEADER)
            assert list(kept) == list(BATCHES)[: max(0, sum(end <= length for end in ends) - 1)]
            for number, batch in BATCHES.items():
                if number not in kept:
                    claimed.append(number, batch)
        assert journal.read_bytes() == whole, f"cut at {length}"


def test_of_a_batch_that_was_asked_again_the_later_answers_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store)
    later = Batch("other texts", [Answer(3, reason="changed"), Answer(1)])
    with store.claim("cell") as claimed:
        assert claimed is not None
        claimed.append(0, later)
        assert claimed.resume(HEADER) == {**BATCHES, 0: later}
    journal = (tmp_path / "cells" / "cell" / "journal.jsonl").read_text()
    assert len(journal.splitlines()) == 1 + len(BATCHES) + 1


def test_a_journal_of_another_batch_plan_is_begun_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store)
    with store.claim("cell") as claimed:
        assert claimed is not None
        assert claimed.resume({"batch_size": 3}) == {}
        assert claimed.resume(HEADER) == {}


def test_a_sealed_cell_has_its_rows_in_the_order_of_the_items(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store)
    assert not store.is_sealed("cell")
    seal(store)
    assert store.is_sealed("cell")
    assert [answer.item for answer in store.answers("cell")] == [0, 1, 2, 3]
    assert store.answers("cell")[3] == BATCHES[0].answers[0]
    assert store.answers("cell")[0].texts == BATCHES[1].answers[0].texts
    table = store.records("cell").to_pydict()
    assert table["acc"] == [None, 0.0, None, 1.0]
    assert table["reason"] == [None, None, "no", None]
    assert table["cluster"] == ["c0", "c1", "c2", "c3"]
    assert not (tmp_path / "cells" / "cell" / "journal.jsonl").exists()


def test_sealing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        seal(Store(tmp_path / name))
    for file in ("answers.parquet", "records.parquet", "manifest.json"):
        first, second = (tmp_path / name / "cells" / "cell" / file for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


def _hold(folder: Path, ready: object, free: object) -> None:
    with Store(folder).claim("cell"):
        ready.set()  # type: ignore[attr-defined]
        free.wait(30)  # type: ignore[attr-defined]


def test_a_cell_belongs_to_one_process_until_it_ends_or_is_killed(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, free = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(tmp_path, ready, free))
    other.start()
    assert ready.wait(30)
    store = Store(tmp_path)
    with store.claim("cell") as claimed:
        assert claimed is None
    with store.claim("another") as claimed:
        assert claimed is not None
    other.kill()
    other.join()
    with store.claim("cell", wait=True) as claimed:
        assert claimed is not None


def test_a_failure_is_kept_until_the_cell_is_sealed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claim("cell") as claimed:
        assert claimed is not None
        claimed.fail("it broke")
    assert store.failure("cell") == "it broke"
    seal(store)
    assert store.failure("cell") is None


def test_items_are_kept_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_items("d", [{"item": 0, "prompt": "p"}])
    store.write_items("d", iter(()))
    assert store.items("d").to_pylist() == [{"item": 0, "prompt": "p"}]


def test_plans_come_latest_last(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_plan("b", {"id": "b", "when": "2026-01-02"})
    store.write_plan("a", {"id": "a", "when": "2026-01-03"})
    store.write_plan("b", {"id": "b", "when": "2026-01-04"})
    assert [plan["id"] for plan in store.plans()] == ["a", "b"]


def test_a_directory_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no results here"):
        Store(tmp_path, create=False)


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="format 99"):
        Store(tmp_path)


def test_results_under_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be read or written"):
        Store(tmp_path / "file" / "results")


@pytest.mark.parametrize("name", ["records.parquet", "manifest.json"])
def test_a_damaged_file_says_which_and_what_to_do(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    seal(store)
    (tmp_path / "cells" / "cell" / name).write_bytes(b"{damaged")
    with pytest.raises(StoreError, match=rf"{name}: cannot be read.*delete"):
        _ = (store.records if name.startswith("records") else store.manifest)("cell")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_an_error_that_says_what_is_safe(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store)
    journal = tmp_path / "cells" / "cell" / "journal.jsonl"
    journal.unlink()
    journal.symlink_to("/dev/full")
    with store.claim("cell") as claimed:
        assert claimed is not None
        with pytest.raises(StoreError, match=r"No space left on device.*appended before is safe"):
            claimed.append(0, BATCHES[0])


def test_an_address_that_became_a_path_is_no_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"s3:/bucket/prefix: a Path holds no address"):
        Store(Path("s3://bucket/prefix"))
    assert not list(tmp_path.iterdir())
