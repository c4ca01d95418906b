"""How long the leaderboard of one hundred checkpoints on the paper suite takes to be read.

    python -m tests.benchmarks.leaderboard [N_CHECKPOINTS]

Makes up records of the suite's real sizes, then times `prefbench table` as a whole process, beside
a process that only imports torch.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from prefbench.store import Store, _write_json, _write_table
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
            _write_table(place / "records.parquet", table)
            identity = {
                "checkpoint": name, "task": "t", "data": "d", "shots": None, "limit": None,
                "fewshot": None, "chat": False, "dtype": "float32", "engine": "hf",
            }  # fmt: skip
            manifest = {
                "identity": identity, "checkpoint": {"name": name}, "n_items": n, "missing": {},
                "n_missing": 0, "n_cut": 0, "n_unfinished": 0, "items": "i",
                "task": {"config": {}}, "higher_is_better": {"acc": True, "exact_match": True},
            }  # fmt: skip
            _write_json(place / "manifest.json", manifest)
            shown = list(task.recipe.metrics)
            cells.append(
                {"cell": cell, "checkpoint": name, "task": task.name, "shown": shown,
                 "missing": None, "identity": identity}
            )  # fmt: skip
    store.write_plan("p", {"id": "p", "when": "0", "checkpoints": checkpoints, "cells": cells})


def timed(*command: str) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as folder:
        make_up(Path(folder), n)
        table = [timed("-m", "prefbench", "table", folder) for _ in range(3)]
        torch = [timed("-c", "import torch") for _ in range(3)]
    print(f"{n} checkpoints × paper suite: {sorted(table)[1]:.1f} s")
    print(f"importing torch alone: {sorted(torch)[1]:.1f} s")


if __name__ == "__main__":
    main()
