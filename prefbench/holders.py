"""Who holds a lease, as the lease says it."""

from __future__ import annotations

import dataclasses
import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LONGEST = 3600.0
"""Seconds: a longer term is none that we have written."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    node: str
    """A machine since it was started."""
    lock: str
    """The operating system's lock that goes with the lease, if any, as this node knows it."""
    term: float
    host: str
    pid: int
    since: str
    token: str

    def at(self, beat: int) -> bytes:
        """The lease at a beat; as long at every one, so that it fits where it lies."""
        return json.dumps({**dataclasses.asdict(self), "beat": f"{beat:012}"}).encode() + b"\n"

    @classmethod
    def of(cls, content: bytes) -> Holder | None:
        """Who has written a lease; None where none of ours has."""
        try:
            told = json.loads(content)
            told.pop("beat")
            holder = cls(**told)
            sane = 0 < holder.term <= LONGEST
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None
        return holder if sane else None


def this_node() -> str:
    """This machine since it was started: also what runs in containers on it."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()
