"""What polling sees of a checkpoint's files, and since when they have not changed.

Not inotify's word: it does not tell of what another node writes to a shared file system.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Look(NamedTuple):
    """A folder's files as they were seen once."""

    stamp: str
    """Of their names, sizes and times; another one means that they changed."""
    newest: float
    """When the newest was written, in seconds of the file system's clock."""


def look(folder: Path) -> Look | None:
    """The files right in a folder, without opening any; None where there is no folder."""
    seen: list[tuple[str, int, int]] = []
    try:
        inside = list(folder.iterdir())
    except OSError:
        return None
    for path in inside:
        try:
            found = path.stat()
        except OSError:  # deleted since, and the next look is another
            continue
        if path.is_file():
            seen.append((path.name, found.st_size, found.st_mtime_ns))
    digest = hashlib.sha256(repr(sorted(seen)).encode("utf-8", "surrogatepass")).hexdigest()
    return Look(digest[:16], max((mtime for *_, mtime in seen), default=0) / 1e9)


def has_changed(folder: Path, before: Look) -> bool:
    """Whether files were added, deleted or written since."""
    after = look(folder)
    return after is None or after.stamp != before.stamp


class Quiet:
    """For how long files have not changed, by this process's own clock.

    The files' times would not do: clocks of nodes differ, and a copy may keep old times.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.clock = clock
        self._since: dict[Path, tuple[str, float]] = {}

    def left(self, path: Path, stamp: str) -> float:
        """Seconds until the files have been quiet for long enough; 0 where they have."""
        known, since = self._since.get(path, ("", 0.0))
        if known != stamp:
            since = self.clock()
            self._since[path] = stamp, since
        return max(0.0, since + self.seconds - self.clock())

    def trust(self, path: Path, stamp: str) -> None:
        """Takes over that these very files were quiet before, as another process has seen."""
        self._since[path] = stamp, self.clock() - self.seconds

    def forget(self, path: Path) -> None:
        """A checkpoint that is gone; one that comes in its place is new."""
        self._since.pop(path, None)
