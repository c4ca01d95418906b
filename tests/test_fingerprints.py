"""File hashes, and the cache that saves reading a file twice."""

import hashlib
import multiprocessing
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from prefbench.fingerprints import default_cache, file_hashes

LONG_AGO = 1_500_000_000


def file_hash(file, cache):
    return file_hashes([file], cache=cache)[0]


@pytest.fixture
def settled(tmp_path):
    """A file that was written long ago, and a cache."""
    file = tmp_path / "file"
    file.write_text("one")
    os.utime(file, (LONG_AGO, LONG_AGO))
    return file, tmp_path / "cache" / "hashes.sqlite"


@pytest.fixture
def reads(monkeypatch):
    """Names of the files whose content was read."""
    names = []
    digest = hashlib.file_digest

    def noted(file, kind):
        names.append(Path(file.name).name)
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return names


def test_a_file_is_read_once(settled, reads):
    file, cache = settled
    first = file_hash(file, cache=cache)
    assert file_hash(file, cache=cache) == first
    assert reads == ["file"]


@pytest.mark.parametrize("kind", ["content", "time"])
def test_a_changed_file_is_read_again(settled, reads, kind):
    file, cache = settled
    first = file_hash(file, cache=cache)
    if kind == "content":
        file.write_text("other")
        os.utime(file, (LONG_AGO, LONG_AGO))
    else:
        os.utime(file, ns=(0, LONG_AGO * 10**9 + 1))
    reads.clear()
    again = file_hash(file, cache=cache)
    assert reads == ["file"]
    assert (again != first) == (kind == "content")


def test_a_fresh_file_is_not_trusted_by_its_timestamp(settled):
    file, cache = settled
    now = time.time_ns()
    file.write_text("one")
    os.utime(file, ns=(now, now))
    first = file_hash(file, cache=cache)
    file.write_text("two")
    os.utime(file, ns=(now, now))
    assert file_hash(file, cache=cache) != first


@pytest.mark.parametrize("broken", [b"no database" * 200, b"", b"SQLite format 3\0"])
def test_a_broken_cache_is_rebuilt(settled, reads, broken):
    file, cache = settled
    first = file_hash(file, cache=cache)
    cache.write_bytes(broken)
    reads.clear()
    assert [file_hash(file, cache=cache) for _ in range(3)] == [first] * 3
    assert reads == ["file"]


def test_without_a_cache_there_are_still_hashes(settled, tmp_path):
    file, cache = settled
    first = file_hash(file, cache=cache)
    (tmp_path / "taken").touch()
    assert file_hash(file, cache=tmp_path / "taken" / "cache") == first
    (tmp_path / "folder").mkdir()
    assert file_hash(file, cache=tmp_path / "folder") == first


def hash_many(arguments):
    files, cache = arguments
    return [file_hash(file, cache=cache) for file in files]


def test_two_processes_share_a_cache(tmp_path):
    files = [tmp_path / f"file{number}" for number in range(40)]
    for number, file in enumerate(files):
        file.write_text(str(number))
        os.utime(file, (LONG_AGO, LONG_AGO))
    cache = tmp_path / "cache.sqlite"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(hash_many, [(files, cache), (files[::-1], cache)])
    assert first == second[::-1]
    with closing(sqlite3.connect(cache)) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (40,)


def test_the_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "prefbench" / "fingerprints.sqlite"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache().parts[-3:] == (
        ".cache",
        "prefbench",
        "fingerprints.sqlite",
    )
