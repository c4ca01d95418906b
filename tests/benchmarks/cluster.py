"""The cells of the demo's checkpoints by one process, by two, and by two nodes of Ray.

    python -m tests.benchmarks.cluster DEMO [--limit 200]

DEMO is what `prefbench demo` has made. Each row times a whole command from start to exit, on one
thread an engine; the nodes of Ray are this machine's, started before, and their start is a row of
its own. The same with one item a task shows what each way costs beside the measuring.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.nodes import ray_cluster

TASKS = ("demo_dialogues", "demo_causal", "demo_arithmetic", "demo_facts", "demo_everyday")


def seconds(demo: Path, results: Path, limit: int, options: Sequence[str]) -> float:
    command = [
        *(sys.executable, "-m", "prefbench", "run", str(demo / "checkpoints"), "--final"),
        *(word for task in TASKS for word in ("--task", task)),
        *("--mirror", str(demo / "data"), "--results", str(results), "--limit", str(limit)),
        *("--engine", "hf", "--device", "cpu", "--format", "json", *options),
    ]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def rows(results: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*.parquet"))
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("demo", type=Path)
    parser.add_argument("--limit", type=int, default=200)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.perf_counter()
    with ray_cluster(0, 1, 1) as cluster, tempfile.TemporaryDirectory() as folder:
        print(f"two nodes of Ray started: {time.perf_counter() - began:.1f} s\n", flush=True)
        ways: dict[str, list[str]] = {
            "one process": [],
            "two processes": ["--data-parallel-size", "2"],
            "two nodes of Ray": ["--executor", "ray", "--ray-address", cluster.address],
        }
        print(f"| | {asked.limit} items a task | 1 item a task |\n|---|---|---|", flush=True)
        first: dict[int, dict[str, bytes]] = {}
        for i, (way, options) in enumerate(ways.items()):
            took = []
            for limit in (asked.limit, 1):
                results = Path(folder) / f"{i}-{limit}"
                took.append(seconds(asked.demo, results, limit, options))
                if first.setdefault(limit, rows(results)) != rows(results):
                    sys.exit(f"{way}: the rows differ from those of one process")
            print(f"| {way} | {took[0]:.1f} s | {took[1]:.1f} s |", flush=True)
        n_cells = sum(name.endswith("records.parquet") for name in first[1])
        print(f"\n{n_cells} cells; all rows are the same, byte for byte")


if __name__ == "__main__":
    main()
