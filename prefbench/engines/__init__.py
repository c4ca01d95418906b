"""Engines: a loaded checkpoint that can answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING

from prefbench.errors import EngineError
from prefbench.records import Checkpoint

if TYPE_CHECKING:
    from prefbench.engines.base import Engine, EngineSettings

ENGINES: Mapping[str, str] = {
    "hf": "prefbench.engines.hf:open_hf",
    "server": "prefbench.engines.server:open_server",
}
"""What `--engine` may name, and the function that opens it; imported only when used."""


def open_engine(
    kind: str, checkpoint: Checkpoint, settings: EngineSettings
) -> AbstractContextManager[Engine]:
    """A loaded checkpoint, for the length of a `with`.

    Raises:
        EngineError: the kind is unknown, or the checkpoint cannot be loaded.
    """
    if kind not in ENGINES:
        raise EngineError(f"no engine is named {kind!r}; there are: {', '.join(ENGINES)}")
    module, _, name = ENGINES[kind].partition(":")
    opener: Callable[[Checkpoint, EngineSettings], AbstractContextManager[Engine]] = getattr(
        import_module(module), name
    )
    return opener(checkpoint, settings)
