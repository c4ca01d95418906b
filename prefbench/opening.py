"""A checkpoint's engine while its cells are measured: opened once, and watched for changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefbench.cells import PlannedCell, Settings
from prefbench.checkpoints import read_checkpoint
from prefbench.engines import Engines
from prefbench.engines.adapters import changes_nothing
from prefbench.errors import CheckpointError, EngineError, StoppedError, UnsuitableError

if TYPE_CHECKING:
    from prefbench.engines.base import Engine, ServerSettings

FALLBACK = "hf"
"""Does what other engines cannot: it is slower, and knows everything that transformers knows."""


class Opening:
    """A checkpoint's engine, opened when the first cell needs it and closed at the end."""

    def __init__(
        self,
        planned: PlannedCell,
        settings: Settings,
        engines: Engines,
        *,
        logs: Path,
        on_notice: Callable[[str], None],
    ) -> None:
        """Opens nothing yet.

        Args:
            planned: one of the cells; all are of this checkpoint and engine.
            settings: of the run.
            engines: opens it, and may keep it running for the next checkpoint.
            logs: where engines in other processes keep what they print.
            on_notice: told what the user should know while it happens.
        """
        self.notes: list[str] = []
        """How the numbers came about, for somebody who wonders."""
        self.warnings: list[str] = []
        """What nobody should read the numbers without."""
        self._checkpoint = planned.checkpoint
        self._kind = str(planned.identity["engine"])
        self._dtype = str(planned.identity["dtype"])
        self._settings = settings
        self._engines = engines
        self._logs = logs
        self._on_notice = on_notice
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
        if self._reason is not None:
            raise EngineError(self._reason)
        if self._engine is None:
            try:
                engine = self._open(self._kind)
            except UnsuitableError as error:
                self._tell(f"measured by {FALLBACK} instead of {self._kind}: {error}")
                engine = self._open(FALLBACK)
            self.check_unchanged()
            self._engine = engine
            if self._checkpoint.adapter and changes_nothing(self._checkpoint.path):
                self.warnings.append("the adapter changes nothing: all its B matrices are zero")
                self._on_notice(f"{self._checkpoint.name}: {self.warnings[-1]}")
        return self._engine

    def _open(self, kind: str) -> Engine:
        from prefbench.engines.base import EngineSettings

        settings = EngineSettings(
            dtype=self._dtype,
            device=self._settings.device,
            max_length=self._settings.max_length,
            trust_remote_code=self._settings.trust_remote_code,
            allow_pickle=self._settings.allow_pickle,
            tensor_parallel_size=self._settings.tensor_parallel_size,
            gpu_memory_utilization=self._settings.gpu_memory_utilization,
            n_engines=self._settings.data_parallel_size,
            timeout=self._settings.engine_timeout,
            log_folder=self._logs,
            server=self._server(),
        )
        return self._stack.enter_context(self._engines.open(kind, self._checkpoint, settings))

    def _server(self) -> ServerSettings | None:
        from prefbench.engines.base import ServerSettings

        asked = self._settings
        if asked.base_url is None:
            return None
        return ServerSettings(
            asked.base_url,
            asked.served_model,
            asked.api_key_env,
            asked.server_api,
            asked.concurrency,
            asked.engine_timeout,
        )

    def _tell(self, text: str) -> None:
        self.notes.append(text)
        self._on_notice(f"{self._checkpoint.name}: {text}")

    def note(self, reason: str) -> None:
        """Keeps why it could not be opened, so that its other cells need not try."""
        if self._engine is None:
            self._reason = reason

    def reopen(self, error: StoppedError) -> None:
        """Forgets an engine whose process is gone; the next cell has a fresh one started."""
        self._tell(f"asked once more in a fresh engine: {error}")
        self._stack.close()
        self._engine = None
        self._engines.end_vllm()

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
