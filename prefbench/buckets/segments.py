"""Verdicts between machines: a database cannot be shared by objects, what was added to it can.

verdicts/<digest>.jsonl   verdicts that one working copy had and no object did, a line each

Each line is a row of verdicts.sqlite, what it cost among it. The first verdict under a key stays.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefbench.errors import StoreError
from prefbench.files import replace
from prefbench.mounts import journal_mode

DATABASE = "verdicts.sqlite"
BUSY = 60.0
"""Seconds that a writer waits for another process's."""
MOST = 5000
"""Verdicts in one object."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
    key TEXT PRIMARY KEY,
    judge TEXT NOT NULL,
    judge_key TEXT NOT NULL,
    shown TEXT NOT NULL,
    preference REAL,
    reason TEXT,
    reply TEXT NOT NULL,
    n_in INTEGER NOT NULL,
    n_out INTEGER NOT NULL,
    cost REAL NOT NULL,
    facts TEXT NOT NULL,
    kept TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) WITHOUT ROWID;
"""
SHARED = """
CREATE TABLE IF NOT EXISTS shared (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (name TEXT PRIMARY KEY) WITHOUT ROWID;
"""
TYPES: Mapping[str, tuple[type, ...]] = {
    "key": (str,),
    "judge": (str,),
    "judge_key": (str,),
    "shown": (str,),
    "preference": (float, int, type(None)),
    "reason": (str, type(None)),
    "reply": (str,),
    "n_in": (int,),
    "n_out": (int,),
    "cost": (float, int),
    "facts": (str,),
    "kept": (str,),
}
"""The columns, and what JSON may hold for them."""


def write_segments(folder: Path) -> None:
    """Writes the verdicts of a working copy that are in no segment yet into new ones.

    Raises:
        StoreError: the verdicts cannot be read, or the segments not written.
    """
    if not (folder / DATABASE).exists():
        return
    with _connected(folder / DATABASE) as connection:
        wanted = (
            f"SELECT {', '.join(TYPES)} FROM verdicts WHERE key NOT IN (SELECT key FROM shared) "
            f"ORDER BY key LIMIT {MOST}"
        )
        while rows := connection.execute(wanted).fetchall():
            lines = (dict(zip(TYPES, row, strict=True)) for row in rows)
            data = "".join(json.dumps(line) + "\n" for line in lines).encode()
            name = f"{hashlib.sha256(data).hexdigest()[:32]}.jsonl"
            _write(folder / "verdicts" / name, data)
            with connection:
                connection.executemany(
                    "INSERT OR IGNORE INTO shared VALUES (?)", ((row[0],) for row in rows)
                )
                connection.execute("INSERT OR IGNORE INTO segments VALUES (?)", (name,))


def read_segments(folder: Path) -> None:
    """Takes what is in a working copy's segments into its verdicts; lines that are none are left.

    Raises:
        StoreError: a segment cannot be read, or the verdicts not written.
    """
    files = sorted((folder / "verdicts").glob("*.jsonl"))
    if not files:
        return
    with _connected(folder / DATABASE) as connection:
        known = {name for (name,) in connection.execute("SELECT name FROM segments")}
        marks = ", ".join(f":{name}" for name in TYPES)
        for file in files:
            if file.name in known:
                continue
            rows = list(_rows(file))
            with connection:
                connection.executemany(
                    f"INSERT OR IGNORE INTO verdicts ({', '.join(TYPES)}) VALUES ({marks})", rows
                )
                connection.executemany("INSERT OR IGNORE INTO shared VALUES (:key)", rows)
                connection.execute("INSERT OR IGNORE INTO segments VALUES (?)", (file.name,))


def _write(file: Path, data: bytes) -> None:
    replace(file, lambda temporary: temporary.write_bytes(data))


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_bytes().splitlines():
        try:
            row = json.loads(line)
            if all(_is_one(row[name], types) for name, types in TYPES.items()):
                json.loads(row["facts"])
                yield {name: row[name] for name in TYPES}
        except (ValueError, LookupError, TypeError, RecursionError):
            continue


def _is_one(value: Any, types: tuple[type, ...]) -> bool:
    """Whether a value is of one of some types, and SQLite can hold it."""
    return type(value) in types and not (isinstance(value, int) and abs(value) >= 2**63)


@contextmanager
def _connected(file: Path) -> Iterator[sqlite3.Connection]:
    try:
        connection = sqlite3.connect(file, timeout=BUSY)
        try:
            connection.execute(f"PRAGMA journal_mode={journal_mode(file)}")
            connection.executescript(SCHEMA + SHARED)
            yield connection
        finally:
            connection.close()
    except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
        raise StoreError(f"{file}: verdicts cannot be shared: {error}") from error
