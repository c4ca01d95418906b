"""What a training script imports of prefbench: nothing but that is loaded there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefbench.integrations.trainer import PrefbenchCallback

__all__ = ["PrefbenchCallback"]


def __getattr__(name: str) -> Any:
    if name != "PrefbenchCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from prefbench.integrations.trainer import PrefbenchCallback
    except ImportError as error:
        raise ImportError(
            "PrefbenchCallback is a callback for transformers.Trainer, and transformers cannot be "
            f"imported here ({error}): pip install transformers"
        ) from error
    return PrefbenchCallback
