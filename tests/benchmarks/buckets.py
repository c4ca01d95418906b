"""What results on an object store cost a run, beside results on a disk.

    python -m tests.benchmarks.buckets DEMO [N_CHECKPOINTS]

DEMO is what `prefbench demo` has made. Measures its checkpoints on the suite `demo` from nothing,
in a process each time, on this disk and on an S3-compatible server on this machine in turn. The
server, which is one of Python's for tests, takes its time from the same cores.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.buckets.server import Server

ROUNDS = 2


class Took(NamedTuple):
    """Seconds from start to exit, and those of the processor that were the run's own."""

    seconds: float
    processor: float


def run(demo: Path, names: list[str], results: str, environment: dict[str, str]) -> Took:
    words = [str(demo / "checkpoints" / name) for name in names]
    told = ["--final", "--suite", "demo", "--mirror", str(demo / "data"), "--engine", "hf"]
    before, started = _processor(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "prefbench", "run", *words, *told, "--results", results],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    return Took(time.perf_counter() - started, _processor() - before)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(demo: Path, n: int | None = None) -> None:
    names = sorted(path.name for path in (demo / "checkpoints").iterdir())
    # The opponent of judged tasks is among them, however few.
    names = sorted(names, key=lambda name: name != "sft")[:n]
    server = Server()
    server.files.mkdir("benchmark")
    try:
        with tempfile.TemporaryDirectory() as folder:
            for i in range(ROUNDS):
                cache = {**server.environment, "PREFBENCH_CACHE": f"{folder}/cache-{i}"}
                disk = run(demo, names, f"{folder}/disk-{i}", {})
                bucket = run(demo, names, f"s3://benchmark/{i}", cache)
                print(
                    f"{len(names)} checkpoints: {disk.seconds:.1f} s on disk, {bucket.seconds:.1f} "
                    f"s on S3 ({bucket.seconds / disk.seconds:.2f}); of the processor "
                    f"{disk.processor:.1f} s and {bucket.processor:.1f} s "
                    f"({bucket.processor / disk.processor:.2f})",
                    flush=True,
                )
    finally:
        server.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
