"""The wall clock as a process sees it, moved by what a file says: for tests of clocks that jump."""

from __future__ import annotations

import datetime
import time
from pathlib import Path


def shift_clock(file: Path) -> None:
    """Moves `time.time` and `datetime.now` by the seconds in a file, read anew each time.

    After pandas and its like are imported, which ask C for the true class. All of prefbench asks
    these modules each time.
    """
    true, true_ns, born = time.time, time.time_ns, datetime.datetime

    def by() -> float:
        try:
            return float(file.read_text())
        except (OSError, ValueError):  # being written
            return 0.0

    class Moved(born):  # type: ignore[valid-type, misc]  # the class that it takes the place of
        __slots__ = ()  # as large as the true one: C code has its size

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Moved:
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Moved:
            return cls.now(datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Moved:
            return cls.now()

    time.time = lambda: true() + by()
    time.time_ns = lambda: true_ns() + int(by() * 1e9)
    vars(datetime)["datetime"] = Moved
