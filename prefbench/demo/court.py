"""The demo's win rates once more, by a language model behind a vLLM server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefbench.cells import Settings
from prefbench.comparisons import Judging
from prefbench.demo.verdicts import JUDGE_NAME, demo_judge
from prefbench.engines.serving import HOST, free_port, is_free, serve
from prefbench.judging import is_judged
from prefbench.listener import Listener
from prefbench.runner import Outcome, plan_run, run
from prefbench.store import Store

JUDGES = ("demo_reward", JUDGE_NAME)

FLAGS = (
    *("--dtype", "float32", "--enforce-eager", "--max-model-len", "4096"),
    *("--kv-cache-memory-bytes", str(256 << 20), "--block-size", "32"),
)
ALONE = {"OMP_NUM_THREADS": "1"}
"""A second thread gains so small a model nothing, and beside other work it costs much."""


def judge_by_both(folder: Path, *, settings: Settings, listener: Listener) -> Outcome:
    """Judges the demo's answers by its reward model and by its language model, behind a server.

    The address is part of what a verdict is kept under: what was asked at one before is not asked
    at another, and where nothing is left to ask no server is started.

    Args:
        folder: a zoo with both judges; its results are in `results/`.
        settings: those that the answers were given with.
        listener: told how it goes on.

    Raises:
        EngineError: the server does not start.
    """
    recipe = demo_judge()
    assert recipe.endpoint is not None
    results = folder / "results"
    asked: dict[str, Any] = {
        "tasks": ["demo"],
        "settings": settings,
        "mirrors": [folder / "data"],
        "final_only": True,
    }

    def judged_at(url: str) -> Outcome:
        judging = Judging(judges=JUDGES, base_url=url)
        return run(
            [folder / "checkpoints"], results=results, judging=judging, listener=listener, **asked
        )

    store = Store(results)
    urls = list(dict.fromkeys([recipe.endpoint.base_url, *_asked_at(store)]))
    for url in urls:
        planned = plan_run(
            [folder / "checkpoints"],
            judging=Judging(judges=JUDGES, base_url=url),
            task_folders=(),
            **asked,
        )
        mine = [one for one in planned.comparisons if one.judge.name == JUDGE_NAME]
        if all(is_judged(store, one) for one in mine):
            return judged_at(url)
    ports = [urlsplit(url).port or 0 for url in urls]
    port = next((one for one in ports if is_free(one)), None) or free_port()
    if port != ports[0]:
        listener.on_notice(
            f"{JUDGE_NAME}: port {ports[0]} is taken by another program, so it is served at {port}"
        )
    listener.on_notice(f"{JUDGE_NAME}: starting `vllm serve` at http://{HOST}:{port}/v1")
    with serve(
        folder / "data" / "models" / str(recipe.model),
        name=str(recipe.model),
        log=results / "logs" / "vllm-serve.log",
        port=port,
        flags=FLAGS,
        environment=ALONE,
    ) as url:
        return judged_at(url)


def _asked_at(store: Store) -> list[str]:
    """Addresses at which the language model was asked before."""
    told = [one for plan in store.plans() for one in plan["comparisons"]]
    found = [store.manifest(one["cell"]) for one in told if one["judge"] == JUDGE_NAME]
    return [
        manifest["judging"]["judge"]["recipe"]["endpoint"]["base_url"]
        for manifest in found
        if manifest
    ]
