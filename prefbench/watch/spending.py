"""What all watchers of a results directory have spent on judges: caps hold for them together.

results/watch/spending.jsonl   a line per judge's sitting and second, the last of each counts
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from prefbench.comparisons import Judging
from prefbench.errors import StoreError
from prefbench.judges.budget import Budget
from prefbench.store import Store
from prefbench.watch.lines import Lines

OFTEN = 1.0
"""Seconds between two lines: what was spent after the last one is not known after `kill -9`."""


class Spent(NamedTuple):
    """In all sittings so far; what may have been charged without an answer counts."""

    calls: int
    dollars: float
    refused: bool
    """Whether a call was turned away at the caps that hold now."""


class Spending:
    """The caps of a watch, and what is left of them."""

    def __init__(self, store: Store, judging: Judging) -> None:
        self.store = store
        self.file = store.folder / "watch" / "spending.jsonl"
        self.judging = judging
        self._noted = 0.0
        self._known: tuple[int, Spent] | None = None

    @property
    def is_capped(self) -> bool:
        """Whether there is any cap."""
        return self.judging.max_cost is not None or self.judging.max_calls is not None

    def reached(self) -> str | None:
        """Why no judge is asked any more, if so."""
        if not self.is_capped:
            return None
        spent, asked = self.spent(), self.judging
        over = asked.max_calls is not None and spent.calls >= asked.max_calls
        over |= asked.max_cost is not None and spent.dollars >= asked.max_cost
        if not (over or spent.refused):
            return None
        caps = [f"{asked.max_calls} calls"] if asked.max_calls is not None else []
        caps += [f"${asked.max_cost:g}"] if asked.max_cost is not None else []
        return (
            f"judging waits: the limit of {' and '.join(caps)} is reached ({spent.calls} calls, "
            f"${spent.dollars:.2f}); start the watch with a higher one"
        )

    def spent(self) -> Spent:
        """What the file says.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            size = self.file.stat().st_size
            if self._known and self._known[0] == size:
                return self._known[1]
        except FileNotFoundError:
            return Spent(0, 0.0, False)
        except OSError as error:
            raise StoreError(f"{self.file}: cannot be read: {error}") from error
        last: dict[str, Mapping[str, Any]] = {}
        for one in Lines(self.file).new():
            try:
                last[str(one["sitting"])] = {
                    "calls": int(one["calls"]),
                    "dollars": float(one["dollars"]),
                    "refused": one["refused"] == self._caps,
                }
            except (ValueError, TypeError, LookupError):  # of no form that is known
                continue
        spent = Spent(
            sum(one["calls"] for one in last.values()),
            sum(one["dollars"] for one in last.values()),
            any(one["refused"] for one in last.values()),
        )
        self._known = size, spent  # it is only ever appended to
        return spent

    @property
    def _caps(self) -> list[float | None]:
        return [self.judging.max_cost, self.judging.max_calls]

    @contextmanager
    def left(self) -> Iterator[Judging | None]:
        """The judging with what is left of the caps, for this process alone; None if nothing is."""
        if not self.is_capped:
            yield self.judging
            return
        with self.store.alone("spending", wait=True):
            spent, asked = self.spent(), self.judging
            if self.reached():
                yield None
                return
            cost = None if asked.max_cost is None else asked.max_cost - spent.dollars
            calls = None if asked.max_calls is None else asked.max_calls - spent.calls
            yield dataclasses.replace(asked, max_cost=cost, max_calls=calls)

    def note(self, sitting: str, budget: Budget, *, now: bool = False) -> None:
        """Writes down what a sitting has spent so far, not more often than is of use."""
        if not self.is_capped or not (now or time.monotonic() - self._noted > OFTEN):
            return
        facts = budget.facts
        if not (facts["calls"] or budget.has_refused):
            return
        self._noted = time.monotonic()
        line = {
            "sitting": sitting,
            "calls": facts["calls"],
            "dollars": facts["spent"] + facts["reserved"],
            "refused": self._caps if budget.has_refused else None,
        }
        Lines(self.file).append(line)
