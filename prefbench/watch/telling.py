"""Who is told what a look has found, besides the status: the gate, a metrics file, a webhook."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from prefbench.errors import InputError, PrefbenchError
from prefbench.watch.gauges import write_gauges
from prefbench.watch.outbox import Outbox
from prefbench.watch.status import Row
from prefbench.watch.webhook import Webhook

Gate = Callable[[], Mapping[str, Mapping[str, Any]]]
"""What the gate says now of each checkpoint, by path: `outcome`, `baseline` and `checks`."""


@dataclass(frozen=True)
class Ears:
    """Who is told.

    Attributes:
        gate: asked after each change of what is measured.
        metrics: file that Prometheus' node exporter reads.
        webhook: address that is told of failures and regressions; a secret.
        first_wait: seconds before the webhook is tried again; twice as long each time.
    """

    gate: Gate | None = None
    metrics: Path | None = None
    webhook: str | None = dataclasses.field(default=None, repr=False)
    first_wait: float = 1.0


class Telling:
    """Tells, for the length of a `with`; what cannot be told stops no measuring."""

    def __init__(self, ears: Ears, folder: Path, watcher: str, log: Callable[[str], None]) -> None:
        self.ears = ears
        self.watcher = watcher
        self.log = log
        self.outbox = Outbox(folder)
        self._stack = contextlib.ExitStack()
        self._webhook: Webhook | None = None
        if ears.webhook is not None:
            self._webhook = Webhook(ears.webhook, self.outbox, log, first_wait=ears.first_wait)
        self._gated: Mapping[str, Mapping[str, Any]] = {}
        self._gated_of: set[tuple[str, int, int]] = set()
        self._troubles: dict[str, str] = {}

    def __enter__(self) -> Telling:
        if self._webhook:
            self._stack.enter_context(self._webhook)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def check(self) -> None:
        """That the gate answered when it was asked last.

        Raises:
            InputError: why it did not, such as a baseline that is not there.
        """
        if why := self._troubles.get("gate"):
            raise InputError(f"the gate could not be asked: {why}")

    def of(self, rows: Sequence[Row], seconds: float) -> list[Row]:
        """Tells of all checkpoints, and adds what the gate says of each."""
        rows = self._with_gate(rows)
        if self._webhook:
            with self._trouble("webhook"):
                self.outbox.tell(rows, self.watcher)
                self._webhook.wake()
        if self.ears.metrics:
            with self._trouble("metrics"):
                write_gauges(
                    self.ears.metrics,
                    rows,
                    watcher=self.watcher,
                    when=time.time(),
                    seconds=seconds,
                    n_unsent=len(self.outbox.unsent()),
                )
        return rows

    def _with_gate(self, rows: Sequence[Row]) -> list[Row]:
        if self.ears.gate is None:
            return list(rows)
        measured = {(row.path, row.n_measured, row.n_judged) for row in rows}
        if measured != self._gated_of:
            # What it said of fewer cells is no longer so, where it cannot be asked now.
            before, self._gated = self._gated, {}
            with self._trouble("gate"):
                self._gated = self.ears.gate()
                self._gated_of = measured
            for row in rows:
                self._say(row, before.get(row.path), self._gated.get(row.path))
        return [dataclasses.replace(row, gate=self._gated.get(row.path)) for row in rows]

    def _say(
        self, row: Row, before: Mapping[str, Any] | None, found: Mapping[str, Any] | None
    ) -> None:
        if found and (before is None or before["outcome"] != found["outcome"]):
            named = [one for one in found["checks"] if one["outcome"] == found["outcome"] != "pass"]
            why = f": {named[0]['task']} {named[0]['metric']}" if named else ""
            more = f" and {len(named) - 1} more" if len(named) > 1 else ""
            self.log(f"{row.name}: gate: {found['outcome']}{why}{more}")

    @contextlib.contextmanager
    def _trouble(self, name: str) -> Iterator[None]:
        """Says once what keeps something from being told."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever it is, measuring goes on
            known = isinstance(error, PrefbenchError)
            said = str(error) if known else f"{type(error).__name__}: {error}"
            if self._troubles.get(name) != said:
                self.log(f"{name}: {said}")
            self._troubles[name] = said
        else:
            self._troubles.pop(name, None)
