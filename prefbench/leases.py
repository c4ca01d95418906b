"""Claims: of all processes that share results, one alone measures a cell."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol


class Lease(Protocol):
    """A claim, from when it was had until it is given back."""

    def is_ours(self) -> bool:
        """Whether it still holds; of a process that stood still for long others have taken it."""

    def release(self) -> None:
        """Gives it back; what cannot be given back runs out by itself."""


class Leases(Protocol):
    """A kind of leases."""

    def take(self, name: str, folder: Path) -> Lease | None:
        """The lease of something, or None while another has it.

        Args:
            name: of a cell, or of what else is one process's alone.
            folder: its own in the results directory; it is there.

        Raises:
            OSError: claims cannot be written or read there.
        """


class Claim:
    """All the leases that a claim of a cell is made of; it holds while each does."""

    def __init__(self, leases: Sequence[Lease], given_back: ExitStack) -> None:
        self._leases = leases
        self._given_back = given_back

    def is_ours(self) -> bool:
        """Whether each lease still holds."""
        return all(lease.is_ours() for lease in self._leases)

    def release(self) -> None:
        """Gives all back, the last one first."""
        self._given_back.close()


def take_all(kinds: Sequence[Leases], name: str, folder: Path) -> Claim | None:
    """A lease of each kind, or none at all while another has one of them."""
    with ExitStack() as stack:
        held = []
        for kind in kinds:
            lease = kind.take(name, folder)
            if lease is None:
                return None
            stack.callback(lease.release)
            held.append(lease)
        return Claim(held, stack.pop_all())
    raise AssertionError("nothing above is suppressed")
