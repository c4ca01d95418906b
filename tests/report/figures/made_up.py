"""Results directories made up for figures: what each checkpoint has is said by a few numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from prefbench.files import write_json, write_table
from prefbench.store import Store

PAIRS, QUIZ, WINS = "made_up_pairs", "made_up_quiz", "made_up_wins"
HOSTILE = "evil $\\frac{1}{$ _^{ \x1b[31m\u202e<script>alert(1)</script>--> 日本 " + "x" * 300


class Point(NamedTuple):
    """A checkpoint and how good it is; None where a task was not measured."""

    name: str
    method: str | None
    step: int | None = None
    perplexity: float | None = None
    agility: float = 1.0
    accuracy: float | None = None
    win_rate: float | None = None
    state: str = "ready"


ZOO = (
    Point("sft", "sft", None, 3.0, 0.5, 0.6, None),
    Point("dpo", "dpo", None, 5.0, 2.0, 0.3, 0.7),
    Point("ipo", "ipo", None, 3.2, 0.9, 0.62, 0.55),
    Point("slic", "slic", None, 2.8, 1.1, 0.6, 0.5),
)
TRAINING = (
    ZOO[0],
    *(
        Point(
            f"{method}/checkpoint-{step}" if step < 500 else method,
            method, step, 3.0 + slope * step / 500, 0.5 + 1.5 * slope * step / 500,
            0.6 - 0.15 * slope * step / 500, 0.5 + 0.1 * slope * step / 500,
        )
        for method, slope in (("dpo", 2.0), ("ipo", 0.6), ("dpop", -0.2))
        for step in (100, 200, 300, 400, 500)
    ),
)  # fmt: skip


def make_up(
    folder: Path, points: Sequence[Point], *, tasks: Sequence[str] = (), n_items: int = 80
) -> Path:
    """A results directory of some checkpoints, as a run would have left it."""
    store = Store(folder)
    cells, comparisons = [], []
    names = (PAIRS, QUIZ, WINS, *tasks)
    for i, point in enumerate(points):
        for task in names:
            columns = _columns(point, task, n_items)
            if columns is None:
                continue
            cell = {
                "cell": f"{i}-{names.index(task)}", "checkpoint": point.name, "task": task,
                "missing": None, "shown": _SHOWN[_kind(task)], "identity": _identity(i),
            }  # fmt: skip
            _write(folder, cell, columns, judged=_kind(task) == WINS)
            if _kind(task) == WINS:
                comparisons.append({**cell, "against": "sft", "judge": "toy"})
            else:
                cells.append(cell)
    checkpoints = [
        {"name": p.name, "path": f"/made_up/{p.name}", "state": p.state, "method": p.method,
         "step": p.step, "fingerprint": str(i)}
        for i, p in enumerate(points)
    ]  # fmt: skip
    plan = {"id": "p", "when": "0", "checkpoints": checkpoints, "cells": cells}
    store.write_plan("p", {**plan, "comparisons": comparisons})
    return folder


_SHOWN = {PAIRS: ["perplexity", "agility"], QUIZ: ["acc"], WINS: ["win_rate", "lc_win_rate"]}


def _kind(task: str) -> str:
    return next(kind for kind in _SHOWN if task.startswith(kind))


def _columns(point: Point, task: str, n_items: int) -> dict[str, Any] | None:
    """Items share their difficulty among checkpoints, as real ones do."""
    rng = np.random.default_rng(len(task))
    shared, own = rng.normal(size=n_items), rng.random(n_items)
    tokens = rng.integers(10, 60, n_items).astype(float)
    if _kind(task) == PAIRS and point.perplexity is not None:
        chosen = np.log(point.perplexity) * np.exp(0.4 * shared)
        rejected = chosen + point.agility + 0.5 * rng.normal(size=n_items)
        return {
            "sum_logp_chosen": -tokens * chosen, "n_tokens_chosen": tokens,
            "sum_logp_rejected": -tokens * rejected, "n_tokens_rejected": tokens,
        }  # fmt: skip
    if _kind(task) == QUIZ and point.accuracy is not None:
        return {"acc": (own < point.accuracy).astype(float)}
    if _kind(task) == WINS and point.win_rate is not None:
        chars = rng.integers(20, 200, (2, n_items)).astype(float)
        win = (own < point.win_rate).astype(float)
        return {"win": win, "n_chars": chars[0], "n_chars_opponent": chars[1]}
    return None


def _identity(i: int) -> dict[str, Any]:
    return {
        "checkpoint": str(i), "task": "t", "data": "d", "shots": None, "limit": None,
        "fewshot": None, "chat": False, "dtype": "float32", "engine": "hf", "max_length": None,
    }  # fmt: skip


def _write(
    folder: Path, cell: Mapping[str, Any], columns: Mapping[str, Any], *, judged: bool
) -> None:
    n_items = len(next(iter(columns.values())))
    items = np.arange(n_items, dtype=np.int32)
    table = pa.table(
        {
            "item": items,
            "cluster": pa.array(items.astype(str)).dictionary_encode(),
            "reason": pa.nulls(n_items, pa.string()),
            **columns,
        }
    )
    manifest: dict[str, Any] = {
        "identity": cell["identity"], "checkpoint": {"name": cell["checkpoint"]},
        "n_items": n_items, "missing": {}, "n_missing": 0, "n_cut": 0, "n_unfinished": 0,
        "items": "i", "task": {"config": {}}, "higher_is_better": {"acc": True},
        "engine": {"kind": "hf"},
    }  # fmt: skip
    if judged:
        manifest["judging"] = {
            "judge": {"name": "toy", "recipe": {"kind": "reward", "model": "toy"}},
            "cost": 0, "n_verdicts": n_items, "n_unreadable": 0, "n_unheard": 0,
            "agreement": None, "sure": None,
        }  # fmt: skip
    place = folder / "cells" / str(cell["cell"])
    write_table(place / "records.parquet", table)
    write_json(place / "manifest.json", manifest)
