"""A checkpoint's engine while its cells are measured: opened once, and watched for changes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from prefbench import engines
from prefbench.cells import PlannedCell, Settings
from prefbench.checkpoints import read_checkpoint
from prefbench.errors import CheckpointError, EngineError

if TYPE_CHECKING:
    from prefbench.engines.base import Engine


class Opening:
    """A checkpoint's engine, opened when the first cell needs it and closed at the end."""

    def __init__(self, planned: PlannedCell, settings: Settings) -> None:
        self._checkpoint = planned.checkpoint
        self._dtype = str(planned.identity["dtype"])
        self._settings = settings
        self._stack = contextlib.ExitStack()
        self._engine: Engine | None = None
        self._reason: str | None = None

    def __enter__(self) -> Opening:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.close()

    def engine(self) -> Engine:
        """The loaded checkpoint.

        Raises:
            EngineError: it cannot be loaded, or could not before.
            CheckpointError: its files are no longer those that were to be measured.
        """
        from prefbench.engines.base import EngineSettings

        if self._reason is not None:
            raise EngineError(self._reason)
        if self._engine is None:
            settings = EngineSettings(
                dtype=self._dtype,
                device=self._settings.device,
                max_length=self._settings.max_length,
                trust_remote_code=self._settings.trust_remote_code,
                allow_pickle=self._settings.allow_pickle,
            )
            opened = engines.open_engine(self._settings.engine, self._checkpoint, settings)
            engine = self._stack.enter_context(opened)
            self.check_unchanged()
            self._engine = engine
        return self._engine

    def note(self, reason: str) -> None:
        """Keeps why it could not be opened, so that its other cells need not try."""
        if self._engine is None:
            self._reason = reason

    def check_unchanged(self) -> None:
        """Training may write to a checkpoint while it is measured; its numbers must not count.

        Raises:
            CheckpointError: the files differ from those that were found.
        """
        now_there = read_checkpoint(
            self._checkpoint.path,
            allow_pickle=self._settings.allow_pickle,
            allow_remote_code=self._settings.trust_remote_code,
        )
        if now_there.fingerprint != self._checkpoint.fingerprint:
            raise CheckpointError(
                f"{self._checkpoint.path}: the files have changed since they were found; run again"
            )
