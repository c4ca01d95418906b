"""Wake-ups: a sleeping watch looks at once where the operating system tells of a change.

Polling stays what counts: nobody tells of what other nodes write to a shared file system.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from watchfiles import Change, watch

AT_LEAST = 2.0
"""Seconds between two looks, however much is written."""
SHARE = 0.05
"""Of the time that looks may take: training writes logs all the time."""
JOINED = 5.0


class Waking:
    """Tells, for the length of a `with`, that something below a directory has changed."""

    def __init__(self, root: Path, ignored: Sequence[Path], notice: Callable[[str], None]) -> None:
        """Watches nothing yet.

        Args:
            root: the directory.
            ignored: folders and files whose changes are our own.
            notice: told once where there will be no wake-ups.
        """
        self.root = root
        self.ignored = [path.resolve() for path in ignored]
        self.notice = notice
        self._changed = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="wake-ups", daemon=True)
        self._looked = 0.0
        self._gap = AT_LEAST

    def __enter__(self) -> Waking:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join(JOINED)

    def looking(self) -> None:
        """A look begins: what changes from now on is another one's."""
        self._changed.clear()
        self._looked = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the look began."""
        return time.monotonic() - self._looked

    def looked(self) -> None:
        """It is over; slow looks come less often."""
        self._gap = max(AT_LEAST, self.seconds / SHARE)

    def sleep(self, seconds: float, check: Callable[[], None]) -> None:
        """Until the time is over or something has changed; asks `check` meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            check()
            if self._changed.is_set():
                left = min(left, self._looked + self._gap - time.monotonic())
                if left <= 0:
                    return
                time.sleep(min(0.5, left))
            else:
                self._changed.wait(min(0.5, left))

    def _listen(self) -> None:
        try:
            for _ in watch(
                self.root,
                watch_filter=self._concerns,
                stop_event=self._end,
                raise_interrupt=False,
            ):
                self._changed.set()
        except Exception as error:  # noqa: BLE001  # too many watches, a folder that may not be read
            self.notice(f"no wake-ups, only looks by the clock: {error}")

    def _concerns(self, change: Change, path: str) -> bool:
        changed = Path(path)
        return not any(
            changed.is_relative_to(own)
            # Beside a file lies for a moment what is to take its place.
            or (changed.parent == own.parent and changed.name.startswith(f".{own.name}."))
            for own in self.ignored
        )
