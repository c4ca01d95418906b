"""What a working copy has in common with its object store: one small SQLite file.

Losing it costs time, no results: everything is compared again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prefbench.errors import StoreError

FILE = "seen.sqlite"
BUSY = 60.0
"""Seconds that a writer waits for another process's."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    name TEXT PRIMARY KEY, stamp TEXT NOT NULL, size INTEGER, mtime INTEGER
) WITHOUT ROWID;
"""


class Seen:
    """Of each object the version that was brought into step, and how the file looked then."""

    def __init__(self, folder: Path) -> None:
        """Opens or makes it.

        Raises:
            StoreError: it cannot be read or written.
        """
        self._folder = folder
        self._file = folder / FILE
        with self._connected() as connection:
            connection.executescript(SCHEMA)

    def stamps(self) -> dict[str, str]:
        """The versions of all objects that were brought into step."""
        with self._connected() as connection:
            return dict(connection.execute("SELECT name, stamp FROM seen"))

    def add(self, stamps: Iterable[tuple[str, str]]) -> None:
        """Keeps that these objects and their files are in step as they are now."""
        rows = [(name, stamp, *self._look(name)) for name, stamp in stamps]
        with self._connected() as connection:
            connection.executemany("INSERT OR REPLACE INTO seen VALUES (?,?,?,?)", rows)

    def dirty(self, names: Iterable[str]) -> list[str]:
        """The files among these that are there, and not as they were when they were in step."""
        with self._connected() as connection:
            rows = connection.execute("SELECT name, size, mtime FROM seen").fetchall()
        known = {name: (size, mtime) for name, size, mtime in rows}
        looks = ((name, self._look(name)) for name in names)
        return [name for name, look in looks if look[0] is not None and known.get(name) != look]

    def _look(self, name: str) -> tuple[int | None, int | None]:
        try:
            found = (self._folder / name).stat()
        except OSError:
            return None, None
        return found.st_size, found.st_mtime_ns

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own each time: threads and forked processes share none."""
        try:
            connection = sqlite3.connect(self._file, timeout=BUSY)
            try:
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._file}: cannot be read or written: {error}; delete it to compare anew"
            ) from error
