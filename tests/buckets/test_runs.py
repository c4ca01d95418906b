"""Whole commands with results on a real S3-compatible server, each machine in its own process."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from tests.buckets.machine import command, ended, start
from tests.buckets.server import Server

pytestmark = pytest.mark.xdist_group("s3")

TASKS = ("--task", "demo_everyday", "--task", "demo_dialogues")


def words(zoo: Path, results: str | Path, *more: object, limit: int = 12) -> tuple[object, ...]:
    """A run of two checkpoints on two tasks."""
    runs = (zoo / "checkpoints" / name for name in ("sft", "dpo"))
    told = ("--final", "--limit", limit, "--mirror", zoo / "data", "--engine", "hf")
    return ("run", *runs, *TASKS, *told, "--results", results, *more)


def measured(said: str) -> int:
    found = re.search(r"(\d+) cells? measured", said)
    assert found, said
    return int(found[1])


def objects(server: Server, address: str, pattern: str) -> dict[str, bytes]:
    """The objects whose names end in something, by name."""
    root = address.removeprefix("s3://")
    names = [name for name in server.files.find(root) if name.endswith(pattern)]
    return {name.removeprefix(f"{root}/"): server.files.cat_file(name) for name in names}


def test_results_on_a_bucket_are_those_on_a_disk_on_every_machine(
    small_zoo: Path, tmp_path: Path, server: Server, address: str
) -> None:
    here = tmp_path / "results"
    on_disk, _ = command(tmp_path / "none", *words(small_zoo, here))
    on_bucket, said = command(tmp_path / "a", *words(small_zoo, address))
    assert on_bucket == on_disk
    assert f"results: {address}" in said
    kept = {
        path.relative_to(here).as_posix(): path.read_bytes() for path in here.rglob("*.parquet")
    }
    assert len(kept) == 4 * 2 + 2
    assert objects(server, address, ".parquet") == kept
    assert objects(server, address, "leases/") == {}

    table, _ = command(tmp_path / "b", "table", address)
    assert table == command(tmp_path / "none", "table", here)[0]
    lazy = [path.name for path in (tmp_path / "b").rglob("*.parquet")]
    assert set(lazy) == {"records.parquet"}
    again, said = command(tmp_path / "b", *words(small_zoo, address))
    assert measured(said) == 0
    assert again == on_disk
    why, _ = command(tmp_path / "b", "why", "dpo", "demo_everyday", "--results", address)
    assert "acc_norm" in why  # with answers and prompts, fetched now


def test_another_machine_goes_on_where_a_killed_one_was(
    small_zoo: Path, tmp_path: Path, server: Server, address: str
) -> None:
    alone, _ = command(tmp_path / "none", *words(small_zoo, tmp_path / "results", limit=80))
    one = start(
        tmp_path / "a",
        *words(small_zoo, address, "--batch-size", 1, limit=80),
        PREFBENCH_UPLOAD_EVERY="0",
    )
    deadline = time.monotonic() + 240
    while not any(data.count(b"\n") > 2 for data in objects(server, address, ".jsonl").values()):
        assert one.poll() is None, one.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    one.kill()
    one.communicate()
    there = objects(server, address, "journal.jsonl")
    done = objects(server, address, "manifest.json")
    assert len(done) < 4
    assert [name for name in there if name.replace("journal.jsonl", "manifest.json") not in done]

    table, said = command(tmp_path / "b", *words(small_zoo, address, "--batch-size", 1, limit=80))
    assert table == alone
    assert measured(said) == 4 - len(done)
    manifests = objects(server, address, "manifest.json").values()
    assert sum(b'"resumed_batches": 0' not in manifest for manifest in manifests) == 1


def test_two_machines_at_once_measure_no_cell_twice(
    small_zoo: Path, tmp_path: Path, server: Server, address: str
) -> None:
    both = [start(tmp_path / name, *words(small_zoo, address)) for name in ("a", "b")]
    (first, told), (second, said) = map(ended, both)
    assert first == second
    titles = re.findall(r"^(.* × .*): [\d.]+ s$", told + said, re.MULTILINE)
    assert len(set(titles)) == len(titles) == 4
    assert objects(server, address, ".json").keys() >= {"store.json"}
    assert not [name for name in objects(server, address, ".json") if "leases/" in name]


def test_a_run_goes_on_without_its_store_and_uploads_when_that_is_back(
    small_zoo: Path, tmp_path: Path, server: Server, address: str
) -> None:
    run = words(small_zoo, address, "--batch-size", 1, limit=40)
    one = start(tmp_path / "a", *run, PREFBENCH_UPLOAD_EVERY="0")
    deadline = time.monotonic() + 240
    while not objects(server, address, "journal.jsonl"):
        assert one.poll() is None, one.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.go()
    try:
        _, said = one.communicate(timeout=300)
    finally:
        server.come()
    assert one.returncode == 1, said
    assert said.count("going on here") == 1
    assert "not uploaded: " in said
    assert "the same command uploads" in said
    assert len(objects(server, address, "manifest.json")) < 4
    _, said = command(tmp_path / "a", *run)
    assert measured(said) == 0
    assert len(objects(server, address, "manifest.json")) == 4
    assert command(tmp_path / "b", "table", address) == command(tmp_path / "a", "table", address)


def test_a_watch_shows_on_other_machines(
    small_zoo: Path, tmp_path: Path, server: Server, address: str
) -> None:
    runs = tmp_path / "runs"
    ignored = shutil.ignore_patterns("checkpoint-*")
    shutil.copytree(small_zoo / "checkpoints" / "sft", runs / "sft", ignore=ignored)
    told = ("--task", "demo_everyday", "--limit", 4, "--engine", "hf", "--max-calls", 3)
    looks = ("--once", "--quiet", 0.5, "--interval", 0.5, "--mirror", small_zoo / "data")
    _, said = command(tmp_path / "a", "watch", runs, *looks, *told, "--results", address)
    assert "holds for the watchers of this machine" in said
    shown, _ = command(tmp_path / "b", "status", address)
    assert "1 measured\nno watcher runs on this machine; last look " in shown
    assert command(tmp_path / "b", "table", address) == command(tmp_path / "a", "table", address)


@pytest.mark.parametrize("verb", ["table", "compare", "status", "claims"])
def test_a_store_that_is_not_there_is_one_line(
    tmp_path: Path, server: Server, address: str, verb: str
) -> None:
    named = ("--results",) if verb == "compare" else ()
    process = start(tmp_path / "a", verb, *named, "s3://no-such-bucket/results")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said.startswith("error: s3://no-such-bucket/results: is not there")
    assert said.count("\n") == 1
    assert "a-secret-for-tests" not in said
