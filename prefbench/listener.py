"""Who is told how a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefbench.cells import PlannedCell


def _nothing(*args: Any) -> None:
    pass


@dataclass
class Listener:
    """Called as a run goes on; a face may show it."""

    on_plan: Callable[[int, int], None] = _nothing
    """Cells in all, and cells to be measured."""
    on_cell: Callable[[PlannedCell], None] = _nothing
    on_step: Callable[[str, int, int], None] = _nothing
    """What is being done, items done, items in all."""
    on_cell_end: Callable[[PlannedCell, str | None], None] = _nothing
    """With the reason where it failed."""
    on_judge: Callable[[str, int, int], None] = _nothing
    """A judge's name, verdicts that are there, and verdicts in all."""
    on_notice: Callable[[str], None] = _nothing
    """What the user should know now: an engine that did not do, another that does instead."""
    on_place: Callable[[str], None] = _nothing
    """Where an engine is that is not on this machine."""
    for_engine: Callable[[int], Listener] | None = None
    """Of several engines at once, the one who is told of this one; by default this one of all."""

    def of(self, engine: int) -> Listener:
        """Who is told of one of several engines."""
        return self.for_engine(engine) if self.for_engine else self
