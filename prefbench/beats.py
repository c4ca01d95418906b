"""Leases that their holder renews; who stands still for a whole term, others may take it over.

A lease names its holder and carries a beat, a number that the holder raises four times a term.
Another process takes the lease over once it has seen one beat for a whole term by its own clock:
the clocks of two nodes are never compared. Taking over and renewing both end in looking whether
the other came first, so that one of the two finds out.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from prefbench.errors import StoreError
from prefbench.holders import Holder

TERM = 60.0
"""Seconds for which a beat holds."""
BEATS = 4
"""In a term."""
AWAY = (OSError, StoreError)
"""What a place raises that cannot be reached."""

Stamp = object
"""Tells one content of a place from every other that was or will be there."""


class Place(Protocol):
    """Where one lease lies. Of several processes at once, one succeeds in each of these."""

    def create(self, content: bytes) -> Stamp | None:
        """Writes it where nothing lies; None where something does."""

    def read(self) -> tuple[bytes, Stamp] | None:
        """What lies there, no bytes of it where it is no file; None where nothing does."""

    def replace(self, content: bytes, stamp: Stamp) -> Stamp | None:
        """Writes it in the place of what has this stamp; None where that is not there any more."""

    def delete(self, stamp: Stamp) -> bool:
        """Removes what has this stamp; whether it was there and we were the one."""

    def drop(self) -> None:
        """Removes what we have written and nobody else may touch yet."""


def now() -> float:
    """Seconds that nobody sets, counted on where a machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Beats:
    """The leases of this process that one thread renews, and the beats of others that it saw."""

    def __init__(self, clock: Callable[[], float] = now, *, patient: bool = False) -> None:
        """Holds nothing yet.

        Args:
            clock: seconds that only ever grow.
            patient: a lease that cannot be renewed is lost only once another has taken it over,
                not after a term: for places that may be away for long.
        """
        self.clock = clock
        self.patient = patient
        self._seen: dict[str, tuple[Stamp, float]] = {}
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._held: dict[str, BeatingLease] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def take(
        self, key: str, place: Place, *, node: str, term: float = TERM, lock: str = ""
    ) -> BeatingLease | None:
        """The lease of a place, or None while another holds it.

        Args:
            key: the place's name, by which it is remembered.
            place: where the lease lies.
            node: this machine.
            term: seconds for which a beat of ours shall hold.
            lock: the operating system's lock that we hold with it. A lease that was held with the
                same is over: the lock is given back when a process ends, the lease perhaps not.

        Raises:
            OSError, StoreError: the place cannot be read or written.
        """
        holder = Holder(
            node=node,
            lock=lock,
            term=term,
            host=socket.gethostname(),
            pid=os.getpid(),
            since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            token=secrets.token_hex(16),
        )
        for _ in range(2):
            began = self.clock()
            if (stamp := place.create(holder.at(0))) is not None:
                self._seen.pop(key, None)
                lease = BeatingLease(place, holder, stamp, began, self)
                self._keep(lease)
                return lease
            if self.is_held(key, place, node=node, lock=lock):
                return None
        return None  # given back and taken again meanwhile

    def is_held(self, key: str, place: Place, *, node: str, lock: str = "") -> bool:
        """Whether somebody holds a lease; one that is over is removed.

        Raises:
            OSError, StoreError: the place cannot be read or written.
        """
        looked = self.clock()
        found = place.read()
        if found is None:
            self._seen.pop(key, None)
            return False
        content, stamp = found
        holder = Holder.of(content)
        if holder and lock and (holder.node, holder.lock) == (node, lock):
            over = True
        else:
            last, since = self._seen.get(key, (None, 0.0))
            if last != stamp:
                self._seen[key] = stamp, self.clock()
                return True
            over = looked - since >= (holder.term if holder else TERM)
        if over:
            self._seen.pop(key, None)
            place.delete(stamp)
        return not over

    def _keep(self, lease: BeatingLease) -> None:
        if self._pid != os.getpid():  # forked: the leases so far are the parent's
            self._begin()
        with self._changed:
            sooner = all(lease.term < one.term for one in self._held.values())
            self._held[lease.token] = lease
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._beat, daemon=True, name="leases")
                self._thread.start()
            elif sooner:
                self._changed.notify()

    def leave(self, lease: BeatingLease) -> None:
        """Renews a lease no more."""
        if self._pid == os.getpid():
            with self._changed:
                self._held.pop(lease.token, None)

    def _beat(self) -> None:
        """Renews what is held; ends once nothing is."""
        while True:
            with self._changed:
                if not self._held:
                    self._thread = None
                    return
                shortest = min(lease.term for lease in self._held.values())
                self._changed.wait(shortest / BEATS)
                held = list(self._held.values())
            for lease in held:
                lease.beat()


class BeatingLease:
    """A lease that is held; from the thread that works, and from that which renews it."""

    def __init__(
        self, place: Place, holder: Holder, stamp: Stamp, began: float, beats: Beats
    ) -> None:
        self.term = holder.term
        self.token = holder.token
        self._place = place
        self._holder = holder
        self._stamp = stamp
        self._beats = beats
        self._number = 0
        self._renewed = began
        """When the last beat was begun: it holds for a term from then on."""
        self._lost = False
        self._alone = threading.Lock()

    def beat(self) -> None:
        """Renews it, if that is due; where that fails it is tried again at the next beat."""
        with self._alone, suppress(*AWAY):
            if not self._lost and self._beats.clock() - self._renewed >= self.term / BEATS / 2:
                self._renew()

    def is_ours(self) -> bool:
        """Whether it still holds, as far as is known where leases are patient.

        Raises:
            OSError: that cannot be told.
        """
        if self._holder.pid != os.getpid():
            return False
        if self._beats.patient:
            return not self._lost
        with self._alone:
            if not self._lost and self._beats.clock() - self._renewed >= self.term / 2:
                try:
                    self._renew()
                except OSError:
                    # Others may take it any moment, however long it takes them.
                    self._lost = self._beats.clock() - self._renewed >= self.term
            if not self._lost:
                found = self._place.read()
                self._lost = found is None or found[0] != self._holder.at(self._number)
            return not self._lost

    def _renew(self) -> None:
        began = self._beats.clock()
        stamp = self._place.replace(self._holder.at(self._number + 1), self._stamp)
        if stamp is None:
            self._lost = True
        else:
            self._stamp, self._renewed = stamp, began
            self._number += 1

    def release(self) -> None:
        """Gives it back; what cannot be removed runs out after a term."""
        if self._holder.pid != os.getpid():  # a fork of the holder
            return
        self._beats.leave(self)
        with self._alone, suppress(*AWAY):
            if self._lost:
                return
            self._lost = True
            found = self._place.read()
            if found is None or Holder.of(found[0]) != self._holder:
                return
            if self._beats.clock() - self._renewed < self.term / 2:
                self._place.drop()
            else:
                self._place.delete(found[1])
