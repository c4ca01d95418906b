"""What was found out about this machine: one finding per thing that was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "missing", "broken", "unused", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One thing, the state it is in, and what to copy into a shell where that is not well.

    `fix` is commands or settings, one per line; what must be said about one follows a `#`.
    `needed` marks what a run cannot do without, or what was asked for by name. `facts` are the
    numbers behind `detail`, for machines.
    """

    group: str
    name: str
    state: State
    detail: str
    fix: str | None = None
    needed: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fails(self) -> bool:
        """Whether something that is needed does not work."""
        return self.needed and self.state in ("missing", "broken")


def gigabytes(n_bytes: float) -> str:
    """A size in GB, of a billion bytes."""
    return f"{n_bytes / 1e9:.1f} GB"


def joined(words: list[str], most: int = 6) -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
