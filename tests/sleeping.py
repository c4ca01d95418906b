"""A child that says and does what tests of children need."""

from __future__ import annotations

import os
import signal
import time

from prefbench.engines.child import progress, serve


def main() -> None:
    tell = progress(every=0.1)

    def work(seconds: float) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.05)
            tell()
        return "done"

    def fail(text: str) -> None:
        raise ValueError(text)

    def die(text: str) -> None:
        print(text, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)

    serve({"say": str, "sleep": time.sleep, "work": work, "fail": fail, "die": die})
