"""Engines: a loaded checkpoint that can answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from prefbench.errors import EngineError
from prefbench.records import Checkpoint

if TYPE_CHECKING:
    from prefbench.engines.base import Engine, EngineSettings
    from prefbench.engines.running import Running

ENGINES: Mapping[str, str] = {
    "hf": "prefbench.engines.hf:open_hf",
    "vllm": "prefbench.engines.vllm:open_vllm",
    "server": "prefbench.engines.server:open_server",
}
"""What `--engine` may name, and the function that opens it; imported only when used."""


SERVER_DTYPE = "the server's own"
"""The number format of what a server answers with: it is not asked for one, and tells of none."""


class Engines:
    """Opens engines, for the length of a `with`; keeps running what the next one may use."""

    def __init__(self, checkpoints: Sequence[Checkpoint] = ()) -> None:
        """Starts nothing.

        Args:
            checkpoints: all that are going to be opened, for engines that serve several at once.
        """
        self.checkpoints = checkpoints
        self.vllm: Running | None = None

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *raised: Any) -> None:
        self.end_vllm()

    def open(
        self, kind: str, checkpoint: Checkpoint, settings: EngineSettings
    ) -> AbstractContextManager[Engine]:
        """A loaded checkpoint, for the length of a `with`.

        Raises:
            EngineError: the kind is unknown, or the checkpoint cannot be loaded.
        """
        if kind not in ENGINES:
            raise EngineError(f"no engine is named {kind!r}; there are: {', '.join(ENGINES)}")
        module, _, name = ENGINES[kind].partition(":")
        opener: Callable[[Checkpoint, EngineSettings, Engines], AbstractContextManager[Engine]] = (
            getattr(import_module(module), name)
        )
        if kind != "vllm" and self.vllm is not None and self.vllm.facts["device"] != "cpu":
            self.end_vllm()  # the device has no room for two
        return opener(checkpoint, settings, self)

    def end_vllm(self) -> None:
        """Ends vLLM, if it is running."""
        running, self.vllm = self.vllm, None
        if running is not None:
            running.child.stop()


@contextmanager
def open_engine(kind: str, checkpoint: Checkpoint, settings: EngineSettings) -> Iterator[Engine]:
    """One loaded checkpoint, for the length of a `with`, after which nothing runs on.

    Raises:
        EngineError: the kind is unknown, or the checkpoint cannot be loaded.
    """
    with Engines([checkpoint]) as engines, engines.open(kind, checkpoint, settings) as engine:
        yield engine
