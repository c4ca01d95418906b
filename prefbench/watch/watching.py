"""The watch: look, say what changed, give one checkpoint its turn, look again."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefbench.cells import PlannedCell, PlannedTask, Settings, mirror_places, plan_tasks
from prefbench.checkpoints import find_checkpoints
from prefbench.comparisons import Judging, plan_judges
from prefbench.errors import CheckpointError, InputError
from prefbench.judges.opening import PlannedJudge
from prefbench.listener import Listener
from prefbench.manifest import now
from prefbench.records import Checkpoint
from prefbench.store import Store
from prefbench.watch.events import Event, Events, State, Watcher, is_alive
from prefbench.watch.looks import Look, Quiet, look
from prefbench.watch.shares import Share, can_go_on, carry_out, keep_plan, plan_shares, share_of
from prefbench.watch.status import Row, write_status

Order = Literal["newest", "oldest"]

TRIES = 5
"""Of the same files; changed files begin anew."""
SETTLED = ("ready", "running", "measured", "judged", "failed")
"""States that only files which were quiet come into."""


@dataclass(frozen=True)
class Policy:
    """When to look, and whose turn it is.

    Attributes:
        interval: seconds between two looks where nothing is to be done.
        quiet: seconds for which files must not have changed before they are touched.
        order: whether the checkpoint that was written last comes first, or last.
        every: of each `checkpoint-N` only those whose step N is a multiple of this.
        once: end when all that was there is done, or failed.
        pause: seconds before a failed checkpoint is tried again; four times as long each time.
    """

    interval: float = 60.0
    quiet: float = 30.0
    order: Order = "newest"
    every: int | None = None
    once: bool = False
    pause: float = 60.0

    def __post_init__(self) -> None:
        if not self.interval > 0:
            raise InputError(f"the interval must be above 0 seconds, not {self.interval:g}")
        if not self.quiet >= 0:
            raise InputError(f"the quiet time cannot be {self.quiet:g} seconds")
        if self.every is not None and self.every < 1:
            raise InputError(f"every must be at least 1, not {self.every}")


@dataclass(frozen=True)
class Measuring:
    """What is measured, and where that is kept: the arguments of a run."""

    tasks: Sequence[str] = ("paper",)
    results: Path = Path("results")
    settings: Settings = dataclasses.field(default_factory=Settings)
    judging: Judging = dataclasses.field(default_factory=Judging)
    mirrors: Sequence[Path] = ()
    task_folders: Sequence[Path] = ()


class Stopped(KeyboardInterrupt):
    """The watch is asked to stop. Like Ctrl-C it is no failure of the cell that it comes in."""


def watch(
    root: Path,
    measuring: Measuring,
    policy: Policy | None = None,
    *,
    status: Path | None = None,
    log: Callable[[str], None] = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Row]:
    """Measures checkpoints as they come, until it is stopped; with `once`, until all is done.

    Args:
        root: a directory of checkpoints; may be empty yet.
        measuring: what is measured, and where that is kept.
        policy: when, and in which order.
        status: the file that says how far it is [results/status.json].
        log: told what happens, a line at a time; names in it come from the disk.
        stop: asked after each batch and while waiting.

    Returns:
        How far each checkpoint is.

    Raises:
        PrefbenchError: nothing can be measured (unknown tasks, data missing), or the results
            cannot be written; what goes wrong with one checkpoint is its state.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a directory: name the one that training writes to")
    store = Store(measuring.results)
    with Watcher(measuring.results / "watch") as watcher:
        watching = _Watch(
            root.resolve(),
            measuring,
            policy or Policy(),
            store=store,
            name=watcher.name,
            status=status or measuring.results / "status.json",
            log=log,
            stop=stop,
        )
        try:
            watching.go_on()
        except Stopped:
            log("stopped; the same command goes on from here")
        finally:
            watching.close()
    return watching.rows


@dataclass(frozen=True)
class _Seen:
    """A checkpoint as the last scan has found it."""

    checkpoint: Checkpoint
    look: Look
    left: float
    """Seconds until its files have been quiet for long enough."""
    share: Share | None = None

    @property
    def is_open(self) -> bool:
        """Whether something is left that can be done."""
        return self.share is not None and not self.share.is_done


class _Watch:
    def __init__(
        self,
        root: Path,
        measuring: Measuring,
        policy: Policy,
        *,
        store: Store,
        name: str,
        status: Path,
        log: Callable[[str], None],
        stop: Callable[[], bool],
    ) -> None:
        self.root = root
        self.measuring = measuring
        self.policy = policy
        self.store = store
        self.name = name
        self.status = status
        self.log = log
        self.stop = stop
        self.rows: list[Row] = []
        self._events = Events(measuring.results / "watch")
        self._quiet = Quiet(policy.quiet)
        self._said: dict[str, tuple[State, str | None]] = {}
        self._resting: dict[str, float] = {}
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

    def go_on(self) -> None:
        """Until it is stopped, or with `once` until nothing is left to do."""
        all_quiet: float | None = None
        self.log(f"watching {self.root} every {self.policy.interval:g} s as {self.name}")
        while True:
            self._check()
            begun = time.monotonic()
            seen = self._look()
            if all_quiet is None:  # what was there at first is, then
                all_quiet = time.monotonic() + self.policy.quiet
            turn = self._whose_turn(seen)
            if turn is not None:
                self._give_turn(turn)
                continue
            waiting = [one.left for one in seen.values() if one.left]
            if self.policy.once and (begun >= all_quiet or not waiting):
                return
            waiting += [t for path, one in seen.items() if one.is_open and (t := self._rest(path))]
            self._sleep(min([self.policy.interval, *waiting]))

    def close(self) -> None:
        """Leaves a status in which this watcher measures nothing."""
        self.rows = [
            dataclasses.replace(row, state="ready", watcher=None)
            if row.watcher == self.name
            else row
            for row in self.rows
        ]
        write_status(self.status, self.rows, now())

    def _check(self) -> None:
        if self.stop():
            raise Stopped

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._check()
            time.sleep(min(0.5, left))

    def _look(self) -> dict[str, _Seen]:
        """Scans, derives each state, writes down which have changed."""
        self._events.refresh()
        found = self._scan()
        if found is None:  # the file system may come back: nothing is gone for that
            return {}
        seen: dict[str, _Seen] = {}
        for one in found:
            looked = look(one.path)
            if looked is None:
                continue
            last = self._events.last.get(str(one.path))
            if last and last.stamp == looked.stamp and last.state in SETTLED:
                self._quiet.trust(one.path, looked.stamp)
            left = self._quiet.left(one.path, looked.stamp) if one.state == "ready" else 0.0
            seen[str(one.path)] = _Seen(one, looked, left)
        shares = self._shares(seen)
        seen = {
            path: dataclasses.replace(one, share=shares.get(path)) for path, one in seen.items()
        }
        rows = [self._row(one) for one in seen.values()]
        rows += [self._gone(last) for last in self._vanished(seen)]
        for row in rows:
            here = seen.get(row.path)
            if here and here.share and here.share.is_done and not self._is_known(row):
                # Done without a turn of its own: another checkpoint has the same bytes.
                keep_plan(here.share, self.store)
            self._say(row, here.look.stamp if here else "")
        self.rows = [
            dataclasses.replace(row, since=self._events.last[row.path].when) for row in rows
        ]
        write_status(self.status, self.rows, now())
        return seen

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

    def _shares(self, seen: Mapping[str, _Seen]) -> dict[str, Share]:
        may_be_touched = [
            one.checkpoint
            for one in seen.values()
            if one.checkpoint.state == "ready" and not one.left and not self._skips(one.checkpoint)
        ]
        return plan_shares(
            may_be_touched,
            self._tasks,
            self._judges,
            settings=self.measuring.settings,
            judging=self.measuring.judging,
            store=self.store,
        )

    def _skips(self, one: Checkpoint) -> bool:
        every = self.policy.every
        inside = one.path.name.startswith("checkpoint-")
        return bool(every and inside and one.step is not None and one.step % every)

    def _row(self, one: _Seen) -> Row:
        """A checkpoint's state, from what the store has and from what is seen of its files."""
        checkpoint, last = one.checkpoint, self._events.last.get(str(one.checkpoint.path))
        row = Row(
            checkpoint.name,
            str(checkpoint.path),
            "seen",
            method=checkpoint.method,
            step=checkpoint.step,
        )
        if checkpoint.state == "incomplete":
            return dataclasses.replace(row, state="incomplete", reason=checkpoint.reason)
        if checkpoint.state == "refused":
            return dataclasses.replace(row, state="failed", reason=checkpoint.reason)
        if self._skips(checkpoint):
            reason = f"step {checkpoint.step} is no multiple of {self.policy.every}"
            return dataclasses.replace(row, state="skipped", reason=reason)
        share = one.share
        if share is None:
            return row
        row = dataclasses.replace(
            row,
            cells=share.cells,
            comparisons=share.verdicts,
            n_measured=len(share.cells) - len(share.todo) - len(share.to_work_out),
            n_judged=len(share.verdicts) - len(share.to_judge),
        )
        if share.is_done:
            state: State = "judged" if share.verdicts and not share.missing else "measured"
            return dataclasses.replace(row, state=state, reason=share.missing)
        if last and last.stamp == one.look.stamp:
            if last.state == "running" and self._measures(last.watcher):
                return dataclasses.replace(row, state="running", watcher=last.watcher)
            row = dataclasses.replace(row, tries=last.tries)
            if last.state == "failed":
                return dataclasses.replace(row, state="failed", reason=last.reason)
        return dataclasses.replace(row, state="measured" if share.is_measured else "ready")

    def _measures(self, watcher: str) -> bool:
        """Whether another one lives: what this one began is over when it looks again."""
        return watcher != self.name and is_alive(self.measuring.results / "watch", watcher)

    def _is_known(self, row: Row) -> bool:
        last = self._events.last.get(row.path)
        return last is not None and last.state == row.state and last.cells == row.cells

    def _vanished(self, seen: Mapping[str, _Seen]) -> list[Event]:
        known = self._events.last.items()
        return [
            last
            for path, last in known
            if path not in seen and Path(path).is_relative_to(self.root)
        ]

    def _gone(self, last: Event) -> Row:
        """Of what was measured before it went the numbers stay."""
        self._quiet.forget(Path(last.path))
        row = Row(last.name, last.path, "pruned", reason="deleted before it was measured")
        if last.cells and all(map(self.store.is_sealed, last.cells)):
            n = len(last.cells)
            return dataclasses.replace(
                row, state=last.state, reason="deleted since", cells=last.cells, n_measured=n
            )
        return row

    def _say(self, row: Row, stamp: str) -> None:
        """Writes a change down, and tells of it."""
        last = self._events.last.get(row.path)
        done = row.state in ("measured", "judged")
        event = Event(
            when=now(),
            watcher=row.watcher or self.name,
            path=row.path,
            name=row.name,
            state=row.state,
            reason=row.reason,
            stamp=stamp,
            tries=row.tries,
            cells=row.cells if done else (),
        )
        if not last or dataclasses.replace(last, when=event.when, watcher=event.watcher) != event:
            self._events.append(event)
        if self._said.get(row.path) != (row.state, row.reason):
            self._said[row.path] = row.state, row.reason
            self.log(f"{row.name}: {row.state}" + (f": {row.reason}" if row.reason else ""))

    def _whose_turn(self, seen: Mapping[str, _Seen]) -> _Seen | None:
        """The next by the policy; what another watcher has begun comes last."""
        due = [
            (row.state == "running", one)
            for row in self.rows
            if (one := seen.get(row.path)) and self._is_due(row, one)
        ]
        if not due:
            return None
        newest_first = -1 if self.policy.order == "newest" else 1
        return min(due, key=lambda pair: (pair[0], newest_first * pair[1].look.newest))[1]

    def _is_due(self, row: Row, one: _Seen) -> bool:
        if not one.is_open or self._rest(row.path):
            return False
        if row.state == "failed":
            last = self._events.last[row.path]
            if row.tries >= TRIES or self._pause_of(last):
                return False
        return one.share is not None and can_go_on(one.share, self.store)

    def _rest(self, path: str) -> float:
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

    def _give_turn(self, one: _Seen) -> None:
        """Measures a checkpoint, and says at once what came of it: it may be deleted any time."""
        share, path = one.share, str(one.checkpoint.path)
        assert share is not None
        self._begin(path, one)
        started = time.monotonic()
        reason = carry_out(
            share,
            settings=self.measuring.settings,
            judging=self.measuring.judging,
            store=self.store,
            listener=self._listener(),
        )
        self.log(f"{one.checkpoint.name}: its turn took {time.monotonic() - started:.1f} s")
        # What others have claimed is theirs; looking again at once would find the same.
        self._resting[path] = time.monotonic() + min(self.policy.interval, 5.0)
        looked = look(one.checkpoint.path)
        if reason and (looked is None or looked.stamp != one.look.stamp):
            self.log(f"{one.checkpoint.name}: changed or deleted while it was measured: {reason}")
            return
        row = self._row(dataclasses.replace(one, share=share_of(share.planned, self.store)))
        if reason:
            row = dataclasses.replace(row, state="failed", reason=reason, tries=row.tries + 1)
        self._say(row, one.look.stamp)

    def _begin(self, path: str, one: _Seen) -> None:
        self.rows = [
            dataclasses.replace(row, state="running", reason=None, watcher=self.name)
            if row.path == path
            else row
            for row in self.rows
        ]
        (row,) = (row for row in self.rows if row.path == path)
        self._say(row, one.look.stamp)
        write_status(self.status, self.rows, now())

    def _listener(self) -> Listener:
        def on_cell_end(planned: PlannedCell, reason: str | None) -> None:
            self.log(f"{planned.title}: {'failed: ' + reason if reason else 'measured'}")

        return Listener(
            on_cell=lambda planned: self._check(),
            on_step=lambda what, done, n: self._check(),
            on_cell_end=on_cell_end,
            on_judge=lambda name, done, n: self._check(),
            on_notice=self.log,
        )
