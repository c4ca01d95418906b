"""The watch: look, say what changed, give one checkpoint its turn, look again."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prefbench.buckets.places import working_copy
from prefbench.cells import PlannedCell
from prefbench.errors import InputError, StoreError
from prefbench.listener import Listener
from prefbench.manifest import now
from prefbench.runner import write_plan
from prefbench.store import Store
from prefbench.watch.events import Event, Watcher
from prefbench.watch.looks import has_changed
from prefbench.watch.memory import Probe, lacking, probe_of
from prefbench.watch.news import News, Turn
from prefbench.watch.policy import Measuring, Policy
from prefbench.watch.shares import (
    Share,
    carry_out,
    places,
    progress,
    share_of,
)
from prefbench.watch.sight import Sight
from prefbench.watch.spending import Spending
from prefbench.watch.states import TRIES, Seen, States
from prefbench.watch.status import Row, write_status
from prefbench.watch.telling import Ears, Telling
from prefbench.watch.turns import Turns
from prefbench.watch.waking import Waking


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
    memory: Probe | None = None,
    ears: Ears | None = None,
) -> list[Row]:
    """Measures checkpoints as they come, until it is stopped; with `once`, until all is done.

    Args:
        root: a directory of checkpoints; may be empty yet.
        measuring: what is measured, and where that is kept.
        policy: when, and in which order.
        status: the file that says how far it is [results/status.json].
        log: told what happens, a line at a time; names in it come from the disk.
        stop: asked after each batch and while waiting.
        memory: looks how much is free, where the policy asks for some [of the device].
        ears: who is told besides the log and the status.

    Returns:
        How far each checkpoint is.

    Raises:
        PrefbenchError: nothing can be measured (unknown tasks, data missing), the results cannot
            be written, or, at the end with `once`, the gate could not be asked; what goes wrong
            with one checkpoint is its state.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a directory: name the one that training writes to")
    store = Store(measuring.results)
    store.tell(log)
    capped = measuring.judging.max_cost is not None or measuring.judging.max_calls is not None
    if capped and working_copy(measuring.results):
        log("what judges may cost holds for the watchers of this machine together, not for others'")
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
            memory=memory or probe_of(measuring.settings.device),
            ears=ears or Ears(),
        )
        try:
            watching.go_on()
        except KeyboardInterrupt as stop:
            with contextlib.suppress(StoreError):
                watching.hand_back()
            if not isinstance(stop, Stopped):
                raise
            log("stopped; the same command goes on from here")
        finally:
            with contextlib.suppress(StoreError):
                watching.close()
            if left := store.close():
                log(f"not uploaded: {left}")
    return watching.rows


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
        memory: Probe,
        ears: Ears,
    ) -> None:
        self.root = root
        self.measuring = measuring
        self.policy = policy
        self.store = store
        self.name = name
        self.status = status
        self.log = log
        self.stop = stop
        self.memory = memory
        self.rows: list[Row] = []
        self._news = News(store, name, log)
        self._spending = Spending(store, measuring.judging)
        self._states = States(policy, store, name, self._spending)
        self._turns = Turns(policy, store, self._news, self._spending)
        self._sight = Sight(root, measuring, policy, store=store, news=self._news, log=log)
        own = (store.folder, status, *filter(None, [ears.metrics]))
        self._waking = Waking(root, own, log)
        self._telling = Telling(ears, store.folder / "watch", name, log)
        self._all_quiet: float | None = None
        self._in_trouble = False
        self._room_lacks: str | None = None
        self._room_unknown = False

    def go_on(self) -> None:
        """Until it is stopped, or with `once` until nothing is left to do.

        Results that cannot be written are waited for: a full disk is made room on.
        """
        self.log(f"watching {self.root} every {self.policy.interval:g} s as {self.name}")
        with self._waking, self._telling:
            self._go_on()

    def _go_on(self) -> None:
        while True:
            self._check()
            try:
                seconds = self._step()
            except StoreError as error:
                if self.policy.once:
                    raise
                if not self._in_trouble:
                    self.log(f"waits until it can go on: {error}")
                self._in_trouble = True
                seconds = self.policy.interval
            else:
                if self._in_trouble:
                    self.log("goes on")
                self._in_trouble = False
            if seconds is None:
                return
            self._waking.sleep(seconds, self._check)

    def _step(self) -> float | None:
        """A look, and a turn where one is due: seconds until the next look; None at the end."""
        begun = time.monotonic()
        seen = self._look()
        if self._all_quiet is None:  # what was there at first is, then
            self._all_quiet = time.monotonic() + self.policy.quiet
        turn = self._turns.next(self.rows, seen)
        if turn is not None and self._lacks_room():
            return self.policy.interval
        if turn is not None:
            self._give_turn(turn, seen)
            return 0.0
        waiting = [one.left for one in seen.values() if one.left]
        if self.policy.once and (begun >= self._all_quiet or not waiting):
            if any(row.n_measured for row in self.rows):
                self._telling.check()
            return None
        resting = (self._turns.left(path) for path, one in seen.items() if one.is_open)
        return min([self.policy.interval, *waiting, *filter(None, resting)])

    def _lacks_room(self) -> bool:
        """Whether memory is waited for; every checkpoint that is ready says so."""
        if self.policy.room is None:
            return False
        found = self.memory()
        why = lacking(self.policy.room, found) if found else None
        if found is None and not self._room_unknown:
            self.log("nothing tells how much memory is free here: it is not waited for")
        self._room_unknown = found is None
        if why and not self._room_lacks:
            self.log(why)
        self._room_lacks = why
        if why is not None:
            self.rows = self._waiting(self.rows)
            write_status(self.status, self.rows, now())
        return why is not None

    def _waiting(self, rows: Sequence[Row]) -> list[Row]:
        return [
            dataclasses.replace(row, reason=self._room_lacks)
            if self._room_lacks and row.state == "ready"
            else row
            for row in rows
        ]

    def hand_back(self) -> None:
        """Says that what this watcher was at is not at anybody's hands, and failed nobody."""
        for row in self.rows:
            last = self._news.last(row.path)
            if row.watcher == self.name and last:
                self._news.say(dataclasses.replace(row, state="ready", watcher=None), last.stamp)

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

    def _look(self) -> dict[str, Seen]:
        """Scans, derives each state, writes down which have changed."""
        self._waking.looking()
        self.store.refresh()
        self._news.refresh()
        seen = self._sight.look()
        if seen is None:  # the file system may come back: nothing is gone for that
            return {}
        rows = [self._row(one) for one in seen.values()]
        rows += [self._gone(last) for last in self._news.vanished(seen, self.root)]
        for row in rows:
            here = seen.get(row.path)
            if here and here.share and here.share.is_done and not self._news.is_known(row):
                # Done without a turn of its own: another checkpoint has the same bytes. Tables show
                # what plans name.
                write_plan(self.store, here.share.planned)
            self._news.say(row, here.look.stamp if here else "")
            if here and here.share and row.ended >= TRIES:
                self._fail_all(here.share, str(row.reason))
        rows = [dataclasses.replace(row, since=self._since(row.path)) for row in rows]
        self.rows = self._telling.of(self._waiting(rows), self._waking.seconds)
        write_status(self.status, self.rows, now())
        self._waking.looked()
        return seen

    def _fail_all(self, share: Share, reason: str) -> None:
        """Of a checkpoint that processes die of, its cells cannot say so themselves."""
        for planned in share.todo:
            if self.store.failure(planned.cell) is None:
                with self.store.claim(planned.cell) as cell:
                    if cell:
                        cell.fail(reason)

    def _since(self, path: str) -> str | None:
        last = self._news.last(path)
        return last.when if last else None

    def _row(self, one: Seen) -> Row:
        last = self._news.last(str(one.checkpoint.path))
        return self._states.of(one, last)

    def _gone(self, last: Event) -> Row:
        self._sight.forget(Path(last.path))
        return self._states.of_gone(last)

    def _give_turn(self, one: Seen, seen: Mapping[str, Seen]) -> None:
        """Measures a checkpoint, and says at once what came of it: it may be deleted any time."""
        share, path = one.share, str(one.checkpoint.path)
        assert share is not None
        self._begin(path, one, share)
        started = time.monotonic()
        try:
            failed = carry_out(
                share,
                settings=self.measuring.settings,
                spending=self._spending,
                store=self.store,
                listener=self._listener(),
            )
        finally:
            self._turns.rest(path)
            self._forgive(share, seen)
        self.log(f"{one.checkpoint.name}: its turn took {time.monotonic() - started:.1f} s")
        own = (failed[name] for name in (*share.cells, *share.verdicts) if name in failed)
        reason = next(own, None)
        if reason and has_changed(one.checkpoint.path, one.look):
            self.log(f"{one.checkpoint.name}: changed or deleted while it was measured: {reason}")
            return
        row = self._row(dataclasses.replace(one, share=share_of(share.planned, self.store)))
        if reason:
            row = dataclasses.replace(row, state="failed", reason=reason, tries=row.tries + 1)
        self._news.say(row, one.look.stamp)
        self._put(row)

    def _put(self, row: Row) -> None:
        self.rows = [row if other.path == row.path else other for other in self.rows]

    def _begin(self, path: str, one: Seen, share: Share) -> None:
        (row,) = (row for row in self.rows if row.path == path)
        row = dataclasses.replace(row, state="running", reason=None, watcher=self.name)
        self._put(row)
        beside = tuple(cell for cell in places(share) if cell not in share.cells)
        plan = write_plan(self.store, share.planned)  # tables show what plans name
        turn = Turn(plan, beside, progress(share, self.store))
        self._news.say(row, one.look.stamp, turn=turn)
        write_status(self.status, self.rows, now())

    def _forgive(self, share: Share, seen: Mapping[str, Seen]) -> None:
        """Forgets failures of what has gone or changed in a turn: the files were no longer there.

        Where the process ends before it comes to that, whoever looks next does it.
        """
        for cell, path in places(share).items():
            before = seen.get(str(path))
            changed = has_changed(path, before.look) if before else not path.is_dir()
            if changed and not self.store.is_sealed(cell):
                self.store.forget_failure(cell)

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
