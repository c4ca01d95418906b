"""Whose turn it is: by the policy, after pauses, and what was begun by others last."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence

from prefbench.store import Store
from prefbench.watch.events import Event
from prefbench.watch.news import News
from prefbench.watch.policy import Policy
from prefbench.watch.shares import can_go_on
from prefbench.watch.spending import Spending
from prefbench.watch.states import TRIES, Seen
from prefbench.watch.status import Row

REST = 5.0
"""Seconds for which a checkpoint rests whose turn could not finish it."""


class Turns:
    """Who may be measured now."""

    def __init__(self, policy: Policy, store: Store, news: News, spending: Spending) -> None:
        self.policy = policy
        self.store = store
        self.news = news
        self.spending = spending
        self._resting: dict[str, float] = {}

    def next(self, rows: Sequence[Row], seen: Mapping[str, Seen]) -> Seen | None:
        """The next by the policy.

        Last comes what another watcher has begun, and before it what processes have died of: the
        others are measured meanwhile.
        """
        due = [
            ((row.state == "running", row.ended > 0), one)
            for row in rows
            if (one := seen.get(row.path)) and self._is_due(row, one)
        ]
        if not due:
            return None
        newest_first = -1 if self.policy.order == "newest" else 1
        return min(due, key=lambda pair: (*pair[0], newest_first * pair[1].look.newest))[1]

    def _is_due(self, row: Row, one: Seen) -> bool:
        if not one.is_open or one.share is None or self.left(row.path):
            return False
        last = self.news.last(row.path)
        if row.state == "failed" and last:
            is_over = max(row.tries, row.ended) >= TRIES
            if is_over or self._pause_of(last):
                return False
        return can_go_on(one.share, self.store, may_judge=not self.spending.reached())

    def rest(self, path: str) -> None:
        """After a turn: what others have claimed is theirs, and to look at once finds the same."""
        self._resting[path] = time.monotonic() + min(self.policy.interval, REST)

    def left(self, path: str) -> float:
        """Seconds until a checkpoint is taken up again that could not be finished."""
        return max(0.0, self._resting.get(path, 0.0) - time.monotonic())

    def _pause_of(self, last: Event) -> float:
        """Seconds until a failed checkpoint is tried again; none where the clock was set back."""
        pause = self.policy.pause * 4 ** (last.tries - 1)
        try:
            failed = datetime.datetime.fromisoformat(last.when).timestamp()
        except ValueError:
            return 0.0
        passed = time.time() - failed
        return max(0.0, pause - passed) if passed >= 0 else 0.0
