"""How many verdicts a second come from a server that takes the same time for each.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.judging [--asks 2000] [--concurrency 32]

The server runs in a process of its own and is asked over the loopback device. The most that can be
reached is concurrency / latency. Rows: the client alone with ready requests; the same with requests
that take a millisecond to make and answers that take one to write; a judge with its prompts,
budget, and reading.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prefbench.client import Client, Endpoint
from prefbench.judges.budget import Budget
from prefbench.judges.chat import PATH, ChatJudge
from prefbench.judges.judge import Ask, Turn, Verdict
from prefbench.judges.recipe import JudgeRecipe, judges_folder, read_recipe

LATENCIES = (1.0, 0.5, 0.25, 0.1)
TEXT = "The answer weighs one thing against another and comes to no end. " * 20


def served(latency: float) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "tests.misbehaving", str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"


def busy(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def bodies(n: int, seconds: float) -> Iterator[dict[str, Any]]:
    for _ in range(n):
        busy(seconds)
        yield {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": TEXT}]}


def answers(endpoint: Endpoint, n: int, seconds: float) -> Iterator[object]:
    with Client(endpoint) as client:
        for _, outcome in client.post_each(PATH, bodies(n, seconds)):
            assert isinstance(outcome, dict)
            busy(seconds)
            yield outcome


def verdicts(endpoint: Endpoint, n: int) -> Iterator[object]:
    recipe = read_recipe(judges_folder() / "helpful_dialogue.yaml")
    facts = recipe.model_dump(by_alias=True) | {"endpoint": {"base_url": endpoint.base_url}}
    asks: Sequence[Ask] = [Ask((Turn("user", f"{i}?"),), TEXT, TEXT[::-1]) for i in range(n)]
    budget = Budget(max_cost=1000.0)
    with ChatJudge(JudgeRecipe.model_validate(facts), budget=budget, endpoint=endpoint) as judge:
        for _, verdict in judge.decide(asks):
            assert isinstance(verdict, Verdict)
            yield verdict


def rate(found: Iterable[object]) -> float:
    began = time.perf_counter()
    return sum(1 for _ in found) / (time.perf_counter() - began)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--asks", type=int, default=2000)
    arguments.add_argument("--concurrency", type=int, default=32)
    given = arguments.parse_args()
    n, concurrency = given.asks, given.concurrency
    print(f"{n} requests, {concurrency} at once, {os.cpu_count()} cores")
    print("latency   at most   client alone   1 ms each to make and write   judge")
    for latency in LATENCIES:
        process, url = served(latency)
        try:
            endpoint = Endpoint(url, concurrency=concurrency)
            most = concurrency / latency
            rates = [
                rate(answers(endpoint, n, 0.0)),
                rate(answers(endpoint, n, 0.001)),
                rate(verdicts(endpoint, n)),
            ]
        finally:
            process.terminate()
            process.wait()
        said = "   ".join(f"{one:6.1f}/s ({one / most:4.0%})" for one in rates)
        print(f"{latency:5.2f} s  {most:6.1f}/s   {said}", flush=True)


if __name__ == "__main__":
    main()
