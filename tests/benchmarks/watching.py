"""A real training with the callback, and a watch beside it that is killed again and again.

    python -m tests.benchmarks.watching [--steps 100] [--every 60] [--zoo FOLDER] [--out FOLDER]

TRL's DPO trainer tunes the demo's base; `prefbench watch` measures its checkpoints, is killed with
-9 at random moments and started again. The same training runs at the same time without callback
and watch, so that whatever else the machine does slows both. In the end all must be what one
`prefbench run` over the same checkpoints gives.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from subprocess import Popen

from prefbench.demo.training import train_zoo
from prefbench.watch.status import read_status
from tests.watch.real_training import Measured, check_same_as_one_run, train

TASKS = ("demo_dialogues", "demo_everyday", "demo_arithmetic_pairs")
KEPT = 3


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--steps", type=int, default=100)
    asked.add_argument("--save-steps", type=int, default=5)
    asked.add_argument("--pairs", type=int, default=24)
    asked.add_argument("--every", type=float, default=60.0, help="seconds of a watcher's life")
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--zoo", type=Path, help="a zoo that is there; a new one takes minutes")
    asked.add_argument("--out", type=Path, help="a new folder; by default one that is deleted")
    given = asked.parse_args()
    with _folder(given.out) as folder:
        zoo = given.zoo or folder / "zoo"
        if given.zoo is None:
            train_zoo(zoo)
        runs, results = folder / "runs", folder / "results"
        runs.mkdir()
        shape = {name: getattr(given, name) for name in ("steps", "save_steps", "pairs")}
        start = zoo / "base"
        beside = train("dpo", start, runs / "dpo", limit=KEPT, **shape)
        alone = train("dpo", start, folder / "alone", limit=KEPT, callback=False, **shape)
        measured = Measured(runs, TASKS, zoo / "data", limit=50)
        n_killed = watch_and_kill(measured, results, beside, Random(given.seed), given.every)
        said, _ = beside.communicate()
        alone.communicate()
        assert (beside.returncode, alone.returncode) == (0, 0), said
        last = measured.watch(results, "--once", "--quiet", 5, "--interval", 1)
        end, _ = last.communicate()
        assert last.returncode == 0, end
        n_cells = check_same_as_one_run(measured, results, folder / "one-run")
        report(folder, n_killed, n_cells, said)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        out.mkdir(parents=True)
        yield out
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def watch_and_kill(
    measured: Measured, results: Path, training: Popen[str], rng: Random, every: float
) -> int:
    """Keeps a watcher alive for random times until training has ended; how many were killed."""
    n_killed = 0
    while training.poll() is None:
        watching = measured.watch(results, "--interval", 1)
        until = time.monotonic() + rng.uniform(0.5, 1.5) * every
        while time.monotonic() < until and training.poll() is None:
            time.sleep(0.2)
        assert watching.poll() is None, watching.communicate()[0]
        watching.kill()
        watching.communicate()
        n_killed += 1
    return n_killed


def report(folder: Path, n_killed: int, n_cells: int, said: str) -> None:
    """The figures; what must hold has been checked, but for the weights."""
    seconds = {}
    for name in ("runs/dpo", "alone"):
        log = json.loads((folder / name / "trainer_state.json").read_text())["log_history"]
        (seconds[name],) = (row["train_runtime"] for row in log if "train_runtime" in row)
    weights = [folder / name / "model.safetensors" for name in seconds]
    (line,) = re.findall("seconds of the callback at each save: (.*)", said)
    saves = sorted(map(float, line.split()))
    states = Counter(row.state for row in read_status(folder / "results").rows)
    ratio = seconds["runs/dpo"] / seconds["alone"]
    equal = weights[0].read_bytes() == weights[1].read_bytes()
    print(f"watchers killed with -9: {n_killed}")
    print(f"checkpoints written: {len(saves)} and the final model, of which {KEPT} + 1 are kept")
    print("as the watch saw them:", ", ".join(f"{n} {state}" for state, n in states.items()))
    print(f"cells of the {KEPT} kept: {n_cells}; tables and records equal those of one run: yes")
    print(
        f"training: {seconds['runs/dpo']:.0f} s with callback and watch, {seconds['alone']:.0f} s "
        f"without, ratio {ratio:.3f}; final weights equal: {'yes' if equal else 'NO'}"
    )
    print(
        f"the callback: median {1e3 * statistics.median(saves):.1f} ms a save, at most "
        f"{1e3 * saves[-1]:.1f} ms, {sum(saves) / seconds['runs/dpo']:.4%} of training"
    )


if __name__ == "__main__":
    main()
