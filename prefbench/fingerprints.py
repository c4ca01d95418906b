"""What a checkpoint is: a hash of its bytes, each file read once until it changes."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

SETTLED_NS = 2_000_000_000
"""A younger file is not cached: it may change again within one tick of its timestamp."""


class Stamp(NamedTuple):
    """What a file's content is remembered by."""

    path: str
    size: int
    mtime_ns: int


def fingerprint(
    files: Mapping[str, Path], *, facts: Mapping[str, str], cache: Path | None = None
) -> str:
    """A hash over named files and facts, whatever directory they are in.

    Args:
        files: what counts, by the name it counts under.
        facts: further text that counts.
        cache: where file hashes are kept; None is the user's cache directory.
    """
    hashes = file_hashes(files.values(), cache=cache)
    lines = [f"fact {name} {text}" for name, text in facts.items()]
    lines += [f"file {name} {sha256}" for name, sha256 in zip(files, hashes, strict=True)]
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="backslashreplace")).hexdigest()


def file_hashes(paths: Iterable[Path], *, cache: Path | None = None) -> list[str]:
    """The SHA-256 of each file's content, remembered by real path, size and mtime."""
    cache = cache or default_cache()
    stamps = [_stamp(path) for path in paths]
    known = _recall(cache, stamps)
    fresh: dict[Stamp, str] = {}
    for stamp in stamps:
        if stamp in known:
            continue
        with Path(stamp.path).open("rb") as file:
            known[stamp] = hashlib.file_digest(file, "sha256").hexdigest()
        settled = time.time_ns() - stamp.mtime_ns > SETTLED_NS
        if settled and _stamp(Path(stamp.path)) == stamp:
            fresh[stamp] = known[stamp]
    if fresh:
        _remember(cache, fresh)
    return [known[stamp] for stamp in stamps]


def default_cache() -> Path:
    """Where file hashes are kept unless another place is given."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "prefbench" / "fingerprints.sqlite"


def _stamp(path: Path) -> Stamp:
    real = path.resolve()
    seen = real.stat()
    return Stamp(str(real), seen.st_size, seen.st_mtime_ns)


def _key(stamp: Stamp) -> Stamp:
    """A stamp that SQLite can hold: names of files may be bytes that are no text."""
    return stamp._replace(path=stamp.path.encode(errors="backslashreplace").decode())


def _recall(cache: Path, stamps: Iterable[Stamp]) -> dict[Stamp, str]:
    """The hashes that are remembered. A cache that cannot be read remembers nothing."""
    if not cache.is_file():
        return {}
    query = "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ?"
    with suppress(sqlite3.Error), closing(sqlite3.connect(cache, timeout=30)) as connection:
        rows = {stamp: connection.execute(query, _key(stamp)).fetchone() for stamp in stamps}
        return {stamp: row[0] for stamp, row in rows.items() if row}
    return {}


def _remember(cache: Path, hashes: Mapping[Stamp, str]) -> None:
    """Write hashes down, over a broken cache if need be. Without a cache only time is lost."""
    try:
        _insert(cache, hashes)
    except (sqlite3.OperationalError, OSError):
        pass  # locked for long, or not writable
    except sqlite3.DatabaseError:
        with suppress(sqlite3.Error, OSError):
            cache.unlink(missing_ok=True)
            _insert(cache, hashes)


def _insert(cache: Path, hashes: Mapping[Stamp, str]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(cache, timeout=30)) as connection, connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS files"
            " (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)"
        )
        rows = [(*_key(stamp), sha256) for stamp, sha256 in hashes.items()]
        connection.executemany("REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
