"""Who is told how a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefbench.records import Checkpoint
from prefbench.tasks import Task


def _nothing(*args: Any) -> None:
    pass


@dataclass
class Listener:
    """Called as a run goes on; a face may show it."""

    on_plan: Callable[[int, int], None] = _nothing
    """Cells in all, and cells to be measured."""
    on_cell: Callable[[Checkpoint, Task], None] = _nothing
    on_step: Callable[[str, int, int], None] = _nothing
    """What is being done, items done, items in all."""
    on_cell_end: Callable[[Checkpoint, Task, str | None], None] = _nothing
    """With the reason where it failed."""
    on_notice: Callable[[str], None] = _nothing
    """What the user should know now: an engine that did not do, another that does instead."""
