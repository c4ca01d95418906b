"""Leases on an object store: of several machines one works at a thing.

leases/<name>.json   who holds it, and a beat that grows while its holder lives

Where a store creates an object only if there is none (S3, GCS), two machines never hold one lease,
but for one that was cut off for longer than a lease lasts and has not noticed yet. Elsewhere two
that begin in the same moment may both hold it. Then a cell is measured twice: the one that is
sealed first counts, and nothing is lost.

Unlike those in files (lease_files.py), these are not lost by standing still: a store may be away
for long, and the run goes on meanwhile. Only who has taken one over ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prefbench.beats import TERM, BeatingLease, Beats, Stamp, now
from prefbench.buckets.objects import NotThereError, Objects

LOOKS = 2.0
"""Seconds between two looks at a lease that another machine holds."""
FREE = b"free\n"
"""What is put over a lease that has run out: unlike deleting, that can be made conditional."""


@dataclass(frozen=True)
class ObjectPlace:
    """An object that several machines may write."""

    objects: Objects
    name: str

    def create(self, content: bytes) -> Stamp | None:
        """Writes it where nothing lies; None where something does."""
        stamp = self.objects.create(self.name, content)
        if stamp is None:
            found = self._found()
            if found and found[0] == FREE:
                stamp = self.objects.replace(self.name, content, found[1])
        return stamp

    def read(self) -> tuple[bytes, Stamp] | None:
        """What lies there; None where nothing does."""
        found = self._found()
        return None if found is None or found[0] == FREE else found

    def replace(self, content: bytes, stamp: Stamp) -> Stamp | None:
        """Writes it in the place of what has this stamp; None where that is not there any more."""
        assert isinstance(stamp, str)
        replaced = self.objects.replace(self.name, content, stamp)
        if replaced is None:
            found = self._found()
            if found and found[0] == content:  # it was written before, but the answer got lost
                return found[1]
        return replaced

    def delete(self, stamp: Stamp) -> bool:
        """Frees what has this stamp; whether it was there and we were the one."""
        assert isinstance(stamp, str)
        return self.objects.replace(self.name, FREE, stamp) is not None

    def drop(self) -> None:
        """Removes what we have written and nobody else may touch yet."""
        self.objects.delete(self.name)

    def _found(self) -> tuple[bytes, str] | None:
        try:
            return self.objects.read(self.name)
        except NotThereError:
            return None


class ObjectLeases:
    """The leases that this process holds or has looked at."""

    def __init__(
        self,
        objects: Objects,
        copy: str,
        *,
        term: float = TERM,
        looks: float = LOOKS,
        clock: Callable[[], float] = now,
    ) -> None:
        """Holds nothing yet.

        Args:
            objects: where leases are kept.
            copy: the name of the working copy: what a process that used it has left is ours.
            term: seconds without a sign of life, by the observer's own clock, after which others
                may take a lease.
            looks: seconds for which a lease that another holds is not asked for again.
            clock: of this process, never compared with another's.
        """
        self._objects = objects
        self._copy = copy
        self._term = term
        self._looks = looks
        self._clock = clock
        # A thread of its own: slow answers must not hold up the beats of leases in files.
        self._beats = Beats(clock, patient=True)
        self._not_before: dict[str, float] = {}

    def take(self, name: str) -> BeatingLease | None:
        """Takes a lease; None while another machine holds it.

        Within a working copy it is the caller's matter that one process alone asks for it.

        Raises:
            StoreError: the store cannot be asked.
        """
        if self._clock() < self._not_before.get(name, 0.0):
            return None
        place = ObjectPlace(self._objects, f"leases/{name}.json")
        lease = self._beats.take(
            name, place, node=self._copy, term=self._term, lock="its working copy"
        )
        if lease is None:
            self._not_before[name] = self._clock() + self._looks
        return lease
