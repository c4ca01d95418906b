"""The state of a checkpoint: from what is seen of its files, what the store has, and what was."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from prefbench.records import Checkpoint
from prefbench.store import Store
from prefbench.watch.events import Event, State, is_alive
from prefbench.watch.looks import Look
from prefbench.watch.policy import Policy
from prefbench.watch.shares import Share, progress
from prefbench.watch.spending import Spending
from prefbench.watch.status import Row

SETTLED = ("ready", "running", "measured", "judged", "failed")
"""States that only files which were quiet come into."""
DONE = ("measured", "judged")
TRIES = 5
"""Of the same files; changed files begin anew."""


@dataclass(frozen=True)
class Seen:
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


class States:
    """The states of checkpoints, as one watcher derives them."""

    def __init__(self, policy: Policy, store: Store, watcher: str, spending: Spending) -> None:
        self.policy = policy
        self.store = store
        self.watcher = watcher
        self.spending = spending

    def of(self, one: Seen, last: Event | None) -> Row:
        """The state of a checkpoint that is there, and what its last event was."""
        checkpoint = one.checkpoint
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
        if self.policy.skips(checkpoint):
            reason = f"step {checkpoint.step} is no multiple of {self.policy.every}"
            return dataclasses.replace(row, state="skipped", reason=reason)
        return row if one.share is None else self._of_share(row, one, one.share, last)

    def _of_share(self, row: Row, one: Seen, share: Share, last: Event | None) -> Row:
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
        state = "measured" if share.is_measured else "ready"
        if share.awaits_judge and (why := self.spending.reached()):
            row = dataclasses.replace(row, reason=why)
        if last is None or last.stamp != one.look.stamp:
            return dataclasses.replace(row, state=state)
        row = dataclasses.replace(row, state=state, tries=last.tries, ended=last.ended)
        if last.state == "failed":
            return dataclasses.replace(row, state="failed", reason=last.reason)
        if last.state == "running" and self._is_at_it(last.watcher):
            return dataclasses.replace(row, state="running", watcher=last.watcher)
        if last.state == "running" and last.watcher != self.watcher:
            moved = progress(share, self.store) > last.progress
            return _of_ended(dataclasses.replace(row, ended=0 if moved else last.ended + 1))
        return _of_ended(row)

    def _is_at_it(self, watcher: str) -> bool:
        """Whether another one lives: what this one began is over when it looks again."""
        return watcher != self.watcher and is_alive(self.store.folder / "watch", watcher)

    def of_gone(self, last: Event) -> Row:
        """The state of a checkpoint that is there no more: what was measured of it stays."""
        n, n_sealed = len(last.cells), sum(map(self.store.is_sealed, last.cells))
        row = Row(last.name, last.path, "pruned", cells=last.cells, n_measured=n_sealed)
        if last.state == "pruned":
            return dataclasses.replace(row, reason=last.reason)
        if last.state == "running" and self._is_at_it(last.watcher):  # it will see for itself
            return dataclasses.replace(row, state="running", watcher=last.watcher)
        if last.state in DONE and n == n_sealed > 0:
            return dataclasses.replace(row, state=last.state, reason="deleted since")
        kept = f"; {n_sealed} of its {n} cells are kept" if n_sealed else ""
        return dataclasses.replace(row, reason=f"deleted before it was measured{kept}")


def _of_ended(row: Row) -> Row:
    """Says it where processes have ended in its turn, and fails where too many have."""
    if not row.ended:
        return row
    many = f"{row.ended} processes that measured it"
    who = many if row.ended > 1 else "the process that measured it"
    return dataclasses.replace(
        row,
        state="failed" if row.ended >= TRIES else row.state,
        reason=f"{who} ended before it was done",
    )
