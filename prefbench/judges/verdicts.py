"""The verdict store: every reply that was paid for, kept under what was judged, not under names.

Equal answers of two checkpoints are one Ask and are judged once; a judge's words, its model or an
answer that differs in a letter make another.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefbench.buckets.segments import SCHEMA
from prefbench.errors import StoreError
from prefbench.judges.judge import Ask, Verdict
from prefbench.mounts import journal_mode

BUSY = 60.0
"""Seconds that a writer waits for another process's."""
MOST = 500
"""Keys in one query: SQLite takes a limited number of variables."""


class Verdicts:
    """The verdicts of one results directory; several processes may use it at once."""

    def __init__(self, file: Path) -> None:
        """Opens or makes the store.

        Raises:
            StoreError: it cannot be read or written.
        """
        self.file = file
        with self._explained():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(file, timeout=BUSY)
            mode = journal_mode(file)
            self._connection.execute(f"PRAGMA journal_mode={mode}")
            if mode == "WAL":  # without it, NORMAL could spoil the file when the power fails
                self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(SCHEMA)

    def __enter__(self) -> Verdicts:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._connection.close()

    def __len__(self) -> int:
        with self._explained():
            (n,) = self._connection.execute("SELECT count(*) FROM verdicts").fetchone()
        return int(n)

    def find(self, keys: Iterable[str]) -> dict[str, Verdict]:
        """The verdicts that are there, by key."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Verdict] = {}
        with self._explained():
            for start in range(0, len(wanted), MOST):
                part = wanted[start : start + MOST]
                rows = self._connection.execute(
                    "SELECT key, preference, reason, reply, n_in, n_out, cost, facts FROM verdicts "
                    f"WHERE key IN ({','.join('?' * len(part))})",
                    part,
                )
                for key, preference, reason, reply, n_in, n_out, cost, facts in rows:
                    found[key] = Verdict(
                        preference, reason, reply, n_in, n_out, cost, json.loads(facts)
                    )
        return found

    def add(self, key: str, ask: Ask, verdict: Verdict, *, judge: str, judge_key: str) -> None:
        """Keeps a verdict at once; the first one under a key stays."""
        row = (
            key,
            judge,
            judge_key,
            ask.digest,
            verdict.preference,
            verdict.reason,
            # A lone surrogate, which JSON can carry, is no UTF-8.
            verdict.reply.encode("utf-8", "backslashreplace").decode("utf-8"),
            verdict.n_in,
            verdict.n_out,
            verdict.cost,
            json.dumps(verdict.facts, default=str),
        )
        with self._explained(), self._connection:
            self._connection.execute(
                "INSERT OR IGNORE INTO verdicts (key, judge, judge_key, shown, preference, reason, "
                "reply, n_in, n_out, cost, facts) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                row,
            )

    def spent(self, keys: Sequence[str]) -> float:
        """US dollars that the verdicts under some keys have cost."""
        return sum(verdict.cost for verdict in self.find(keys).values())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise StoreError(
                f"{self.file}: cannot be read or written: {error}; verdicts kept before are safe, "
                "make room or fix the permissions and run the same command again"
            ) from error
