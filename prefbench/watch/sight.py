"""What a watcher sees: which checkpoints are there, and what may be done about each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from prefbench.cells import PlannedTask, mirror_places, plan_tasks
from prefbench.checkpoints import find_checkpoints
from prefbench.comparisons import plan_judges
from prefbench.errors import CheckpointError
from prefbench.judges.opening import PlannedJudge
from prefbench.records import Checkpoint
from prefbench.requests import is_whole, read_request
from prefbench.store import Store
from prefbench.watch.looks import Quiet, look
from prefbench.watch.news import News
from prefbench.watch.policy import Measuring, Policy
from prefbench.watch.shares import Share, plan_shares
from prefbench.watch.states import SETTLED, Seen


class Sight:
    """A directory as it is seen again and again."""

    def __init__(
        self,
        root: Path,
        measuring: Measuring,
        policy: Policy,
        *,
        store: Store,
        news: News,
        log: Callable[[str], None],
    ) -> None:
        """Plans what is measured of whatever comes.

        Raises:
            PrefbenchError: unknown tasks or judges, or data that are missing.
        """
        self.root = root
        self.measuring = measuring
        self.policy = policy
        self.store = store
        self.news = news
        self.log = log
        self._quiet = Quiet(policy.quiet)
        self._unreadable = ""
        self._tasks: list[PlannedTask] = plan_tasks(
            measuring.tasks,
            limit=measuring.settings.limit,
            mirrors=measuring.mirrors,
            folders=measuring.task_folders,
        )
        self._judges: dict[str, PlannedJudge] = plan_judges(
            [one.task for one in self._tasks], measuring.judging, mirror_places(measuring.mirrors)
        )

    def forget(self, path: Path) -> None:
        """A checkpoint that is gone; one that comes in its place is new."""
        self._quiet.forget(path)

    def look(self) -> dict[str, Seen] | None:
        """The checkpoints that are there now, by path; None where that cannot be told."""
        found = self._scan()
        if found is None:
            return None
        seen: dict[str, Seen] = {}
        for one in found:
            looked = look(one.path)
            if looked is None:
                continue
            last = self.news.last(str(one.path))
            if last and last.stamp == looked.stamp and last.state in SETTLED:
                self._quiet.trust(one.path, looked.stamp)
            left = self._quiet.left(one.path, looked.stamp) if one.state == "ready" else 0.0
            if left and (request := read_request(one.path)) and is_whole(one.path, request):
                left = 0.0  # the trainer itself says that it has written it all
            seen[str(one.path)] = Seen(one, looked, left)
        shares = self._shares(seen)
        return {
            path: dataclasses.replace(one, share=shares.get(path)) for path, one in seen.items()
        }

    def _scan(self) -> list[Checkpoint] | None:
        settings = self.measuring.settings
        try:
            found = find_checkpoints(
                self.root,
                allow_pickle=settings.allow_pickle,
                allow_remote_code=settings.trust_remote_code,
            )
        except (CheckpointError, OSError) as error:
            if str(error) != self._unreadable:
                self.log(f"{self.root}: cannot be scanned now: {error}")
            self._unreadable = str(error)
            return None
        self._unreadable = ""
        return found

    def _shares(self, seen: Mapping[str, Seen]) -> dict[str, Share]:
        may_be_touched = [
            one.checkpoint
            for one in seen.values()
            if one.checkpoint.state == "ready"
            and not one.left
            and not self.policy.skips(one.checkpoint)
        ]
        return plan_shares(
            may_be_touched,
            self._tasks,
            self._judges,
            settings=self.measuring.settings,
            judging=self.measuring.judging,
            store=self.store,
        )
