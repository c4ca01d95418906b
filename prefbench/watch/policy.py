"""When a watch looks and whose turn it is; what is measured, and where that is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefbench.cells import Settings
from prefbench.comparisons import Judging
from prefbench.errors import InputError
from prefbench.records import Checkpoint
from prefbench.watch.memory import Room

Order = Literal["newest", "oldest"]


@dataclass(frozen=True)
class Policy:
    """When to look, and whose turn it is.

    Attributes:
        interval: seconds between two looks where nothing is to be done.
        quiet: seconds for which files must not have changed before they are touched.
        order: whether the checkpoint that was written last comes first, or last.
        every: of each `checkpoint-N` only those whose step N is a multiple of this.
        once: end when all that was there is done, or failed.
        room: memory that must be free before a turn begins.
        pause: seconds before a failed checkpoint is tried again; four times as long each time.
    """

    interval: float = 60.0
    quiet: float = 30.0
    order: Order = "newest"
    every: int | None = None
    once: bool = False
    room: Room | None = None
    pause: float = 60.0

    def __post_init__(self) -> None:
        if not self.interval > 0:
            raise InputError(f"the interval must be above 0 seconds, not {self.interval:g}")
        if not self.quiet >= 0:
            raise InputError(f"the quiet time cannot be {self.quiet:g} seconds")
        if self.every is not None and self.every < 1:
            raise InputError(f"every must be at least 1, not {self.every}")

    def skips(self, one: Checkpoint) -> bool:
        """Whether a step is left out."""
        inside = one.path.name.startswith("checkpoint-")
        return bool(self.every and inside and one.step is not None and one.step % self.every)


@dataclass(frozen=True)
class Measuring:
    """What is measured, and where that is kept: the arguments of a run."""

    tasks: Sequence[str] = ("paper",)
    results: Path = Path("results")
    settings: Settings = dataclasses.field(default_factory=Settings)
    judging: Judging = dataclasses.field(default_factory=Judging)
    mirrors: Sequence[Path] = ()
    task_folders: Sequence[Path] = ()
