"""A watch that measures hundreds of checkpoints, which come and are pruned at speed.

Checkpoints differ in a weight, so that each is loaded and asked; three are kept, as by
`save_total_limit`. Memory, threads and open files are those of the watching process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save

from tests.reliability.commands import TOP

KEPT = 3
PATIENCE = 300.0
"""Seconds that one checkpoint may take on a slow machine."""
STILL = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
"""glibc keeps what threads have freed in arenas of theirs; with two, what is left is what grows."""


class Sample(NamedTuple):
    """The watching process after a checkpoint was measured."""

    n: int
    resident: float
    """MiB."""
    n_threads: int
    n_files: int
    status: int
    """Bytes."""
    events: int
    """Bytes."""
    seconds: float
    """Since the sample before."""
    busy: float
    """Seconds of processor since then."""


@dataclass
class Soaked:
    samples: list[Sample] = field(default_factory=list)

    def quarter(self, which: int, what: str) -> float:
        """The median of a quarter of the samples, counted from 1."""
        size = len(self.samples) // 4
        part = self.samples[(which - 1) * size : which * size]
        return statistics.median(getattr(one, what) for one in part)

    @property
    def slope(self) -> float:
        """MiB of resident memory per 100 checkpoints, over the second half, by least squares."""
        half = self.samples[len(self.samples) // 2 :]
        return float(np.polyfit([s.n for s in half], [s.resident for s in half], 1)[0] * 100)


def soak(zoo: Path, folder: Path, *, n: int, tasks: Sequence[str]) -> Soaked:
    """n checkpoints, each written once the one before is measured."""
    runs, results = folder / "runs", folder / "results"
    (runs / "dpo").mkdir(parents=True)
    chosen = [word for task in tasks for word in ("--task", task)]
    command = [
        sys.executable, "-m", "prefbench", "watch", runs, *chosen, "--limit", 2, "--engine", "hf",
        "--interval", 0.05, "--quiet", 0, "--mirror", zoo / "data", "--results", results,
    ]  # fmt: skip
    soaked = Soaked()
    with (folder / "log").open("w") as log:
        watching = subprocess.Popen(
            list(map(str, command)), cwd=TOP, stderr=log, env={**os.environ, **STILL}
        )
        try:
            source, before = _Source(zoo / "checkpoints" / "dpo"), 0.0
            for i in range(1, n + 1):
                begun = time.monotonic()
                source.write(runs / "dpo" / f"checkpoint-{i}", i)
                if (old := runs / "dpo" / f"checkpoint-{i - KEPT}").is_dir():
                    shutil.rmtree(old)
                _wait(watching, results, f"dpo/checkpoint-{i}")
                now = _busy(watching.pid)
                soaked.samples.append(
                    _sample(watching.pid, results, i, time.monotonic() - begun, now - before)
                )
                before = now
            watching.send_signal(signal.SIGTERM)
            assert watching.wait(PATIENCE) == 0
        finally:
            watching.kill()
            watching.wait()
    return soaked


class _Source:
    """What a trainer would save."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors = load_file(folder / "model.safetensors")

    def write(self, folder: Path, i: int) -> None:
        part = folder.with_name(f"tmp-{folder.name}")
        part.mkdir()
        for name in ("config.json", "generation_config.json", "tokenizer.json"):
            shutil.copyfile(self.folder / name, part / name)
        shutil.copyfile(self.folder / "tokenizer_config.json", part / "tokenizer_config.json")
        norm = self.tensors["model.norm.weight"] * np.float32(1 + i / 1000)
        tensors = self.tensors | {"model.norm.weight": norm}
        (part / "model.safetensors").write_bytes(save(tensors, {"format": "pt"}))
        (part / "trainer_state.json").write_text(json.dumps({"global_step": i}))
        part.rename(folder)


def _wait(watching: subprocess.Popen[bytes], results: Path, name: str) -> None:
    """Until a checkpoint is measured."""
    file, until = results / "watch" / "events.jsonl", time.monotonic() + PATIENCE
    told = f'"name": "{name}", "state": "measured"'.encode()
    while time.monotonic() < until:
        assert watching.poll() is None, "the watch has ended"
        if file.exists():
            with file.open("rb") as events:
                events.seek(max(0, file.stat().st_size - 20_000))
                if told in events.read():
                    return
        time.sleep(0.02)
    raise AssertionError(f"{name} was not measured in {PATIENCE} s")


def _busy(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _sample(pid: int, results: Path, n: int, seconds: float, busy: float) -> Sample:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return Sample(
        n=n,
        resident=int(status["VmRSS"].split()[0]) / 1024,
        n_threads=int(status["Threads"]),
        n_files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        status=(results / "status.json").stat().st_size,
        events=(results / "watch" / "events.jsonl").stat().st_size,
        seconds=seconds,
        busy=busy,
    )
