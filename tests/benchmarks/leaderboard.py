"""How long the leaderboard of one hundred checkpoints on the paper suite takes to be read.

    python -m tests.benchmarks.leaderboard [N_CHECKPOINTS]

Makes up records of the suite's real sizes, then takes time and memory of `prefbench table` as a
whole process, beside the same intervals by scipy.stats.bootstrap.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from scipy.stats import bootstrap

from prefbench.files import write_json, write_table
from prefbench.report.collect import gather
from prefbench.store import Store
from prefbench.tasks import load_tasks, tasks_folder

N_ITEMS = {
    "wikitext2": 62,
    "hh_helpful_pairs": 2354,
    "hh_harmless_pairs": 2312,
    "causal_dialogue_pairs": 1500,
    "gsm8k_5shot": 1319,
    "arc_easy": 2376,
    "arc_challenge": 1172,
    "hellaswag": 10042,
}
PAIR = [
    f"{what}_{kind}"
    for what in ("sum_logp", "n_tokens", "n_bytes", "n_texts", "mean_logp", "text_logp")
    for kind in ("chosen", "rejected")
] + ["preferred", "cut"]


def quantities(task: str) -> list[str]:
    if task.endswith("pairs"):
        return PAIR
    if task == "wikitext2":
        names = ("word_perplexity", "byte_perplexity", "bits_per_byte")
        return [f"{name}.{part}" for name in names for part in ("value", "weight")]
    if task == "gsm8k_5shot":
        filters = ("strict-match", "flexible-extract", "final-number")
        return [*(f"exact_match,{name}" for name in filters), "unfinished", "cut"]
    return ["acc", "acc_norm", "cut"]


def column(name: str, n: int, rng: np.random.Generator) -> np.ndarray:
    if "logp" in name or name.endswith(".value"):
        return -rng.gamma(4, 10, n)
    if name.startswith("n_") or name.endswith(".weight"):
        return rng.integers(10, 200, n).astype(float)
    return (rng.random(n) < 0.5).astype(float)


def make_up(folder: Path, n_checkpoints: int) -> None:
    store, rng = Store(folder), np.random.default_rng(0)
    checkpoints, cells = [], []
    tasks = [task for task, _ in load_tasks(["paper"], [tasks_folder()])]
    for i in range(n_checkpoints):
        name = f"run{i:03}"
        checkpoints.append(
            {"name": name, "path": name, "state": "ready", "method": "dpo" if i else "sft",
             "fingerprint": name}
        )  # fmt: skip
        for task in tasks:
            n = next(size for key, size in N_ITEMS.items() if task.name.startswith(key))
            cell = f"{name}-{task.name}"
            items = np.arange(n, dtype=np.int32)
            columns = {key: column(key, n, rng) for key in quantities(task.name)}
            table = pa.table(
                {
                    "item": items,
                    "cluster": pa.array(items.astype(str)).dictionary_encode(),
                    "reason": pa.nulls(n, pa.string()),
                    **columns,
                }
            )
            place = folder / "cells" / cell
            write_table(place / "records.parquet", table)
            identity = {
                "checkpoint": name, "task": "t", "data": "d", "shots": None, "limit": None,
                "fewshot": None, "chat": False, "dtype": "float32", "engine": "hf",
                "max_length": None,
            }  # fmt: skip
            manifest = {
                "identity": identity, "checkpoint": {"name": name}, "n_items": n, "missing": {},
                "n_missing": 0, "n_cut": 0, "n_unfinished": 0, "items": "i",
                "engine": {"kind": "hf"}, "task": {"config": {}},
                "higher_is_better": {"acc": True, "exact_match": True},
            }  # fmt: skip
            write_json(place / "manifest.json", manifest)
            shown = list(task.recipe.metrics)
            cells.append(
                {"cell": cell, "checkpoint": name, "task": task.name, "shown": shown,
                 "missing": None, "identity": identity}
            )  # fmt: skip
    store.write_plan("p", {"id": "p", "when": "0", "checkpoints": checkpoints, "cells": cells})


class Spent(NamedTuple):
    """What a process took: seconds from start to exit, and memory at its most."""

    seconds: float
    n_bytes: int


def spent(*command: str) -> Spent:
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, f"{command} failed"
    return Spent(time.monotonic() - started, used.ru_maxrss * 1024)


def with_scipy(folder: Path, n_resamples: int = 10_000) -> float:
    """Seconds that scipy takes for one paired difference of perplexity and one of accuracy."""
    store = Store(folder, create=False)
    base, other = (store.records(f"{name}-hh_helpful_pairs") for name in ("run000", "run001"))
    columns = [
        one[key].to_numpy()
        for one in (base, other)
        for key in ("sum_logp_chosen", "n_tokens_chosen")
    ]
    right = [
        store.records(f"{name}-hellaswag_0shot")["acc_norm"].to_numpy()
        for name in ("run000", "run001")
    ]

    def perplexities(*sums: np.ndarray, axis: int = -1) -> np.ndarray:
        a, n, b, m = (one.sum(axis=axis) for one in sums)
        return np.exp(-b / m) - np.exp(-a / n)

    def accuracies(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return b.mean(axis=axis) - a.mean(axis=axis)

    started = time.monotonic()
    for data, statistic in ((columns, perplexities), (right, accuracies)):
        bootstrap(
            data, statistic, paired=True, vectorized=True, n_resamples=n_resamples, batch=100,
            method="percentile", rng=np.random.default_rng(0),
        )  # fmt: skip
    return time.monotonic() - started


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_up(folder, n)
        gathered = gather(folder)
        n_records = sum(len(one.items) for one in gathered.measured)
        n_columns = sum(len(group.shown) for group in gathered.groups)
        table = [spent("-m", "prefbench", "table", name) for _ in range(3)]
        whole = spent("-m", "prefbench", "table", name, "--format", "json")
        torch = [spent("-c", "import torch") for _ in range(3)]
        one = with_scipy(folder) / 2
    print(f"{n} checkpoints × paper suite, {n_records:,} records, 10,000 paired resamples")
    for what, took in (
        (f"the table, {n_columns} columns", sorted(table)[1]),
        ("all metrics, as JSON", whole),
        ("importing torch alone", sorted(torch)[1]),
    ):
        print(f"{what}: {took.seconds:.1f} s, {took.n_bytes / 2**30:.2f} GiB")
    # scipy makes one difference at a time, and the intervals of the values besides.
    route = one * n_columns * (2 * n - 1)
    ours = sorted(table)[1].seconds
    print(
        f"scipy.stats.bootstrap: {one:.1f} s a difference, some {route / 60:.0f} min for the "
        f"table's intervals, {route / ours:.0f}×"
    )


if __name__ == "__main__":
    main()
