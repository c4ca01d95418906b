"""What gradients of pairs cost: beside forward and backward passes, side by side in one run.

    OMP_NUM_THREADS=1 taskset -c 0 python -m tests.benchmarks.gradients [--row NAME ...]
        [--checkpoint DIR] [--device cuda]

The other side is one forward and one backward pass of each response by the same code, alternating
with ours pair by pair. Ours is all that a pair is asked: conditions of every objective, the step
down the own one and AdamW's, aligned steps, a random model of the same shape. Models are small
Llamas with random weights, made on the spot; --checkpoint takes one from disk as well. On a CPU
seconds are those of the process, so that others on the machine do not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from prefbench.engines.base import TokenRequest
from prefbench.engines.gradients import Prober, Probing, TokenPair, randomly_initialised
from prefbench.engines.gradients.passes import respond
from tests.benchmarks.scoring import facts, line, peak_memory


@dataclass(frozen=True)
class Row:
    """A shape, and pairs of one length."""

    title: str
    shape: dict[str, int]
    n_pairs: int
    n_context: int = 60
    n_response: int = 40
    own: str = "dpo"


TINY = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "vocab_size": 1024}
LARGE = {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 12, "vocab_size": 8192}
ROWS = {
    "tiny": Row("0.9 M parameters", TINY, 40),
    "tiny-short": Row("0.9 M parameters, short texts", TINY, 40, 20, 10),
    "tiny-tokens": Row("0.9 M parameters, own loss by token", TINY, 40, own="unlikelihood"),
    "large": Row("70 M parameters", LARGE, 4),
    "large-short": Row("70 M parameters, short texts", LARGE, 4, 20, 10),
    "large-long": Row("70 M parameters, long texts", LARGE, 2, 300, 100),
    "large-tokens": Row("70 M parameters, own loss by token", LARGE, 3, own="unlikelihood"),
}


def model_of(row: Row, device: str) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        **row.shape,
        num_attention_heads=row.shape["hidden_size"] // 32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(device).eval()


def pairs_of(row: Row, n_vocabulary: int) -> list[TokenPair]:
    """Random tokens, whose responses differ from their second token on."""
    rng = torch.Generator().manual_seed(1)

    def some(n: int) -> list[int]:
        return torch.randint(n_vocabulary, (n,), generator=rng).tolist()

    made = []
    for _ in range(row.n_pairs):
        context, first = some(row.n_context), some(1)
        chosen, rejected = ([*first, *some(row.n_response - 1)] for _ in range(2))
        sums = -5.0 * row.n_response, -5.0 * row.n_response
        made.append(TokenPair(TokenRequest(context, chosen), TokenRequest(context, rejected), sums))
    return made


def forward_backward(model: Any, pair: TokenPair) -> None:
    for request in pair[:2]:
        for one in model.parameters():
            one.grad = None
        respond(model, request).logps.sum().backward()


def seconds(work: Callable[[], Any], device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - started


def time_row(title: str, model: Any, row: Row, device: str) -> str:
    pairs = pairs_of(row, model.config.vocab_size)
    prober = Prober(model, Probing(own=row.own), random_model=randomly_initialised(model, 0))
    found = prober.probe(pairs[0])
    assert "observed_chosen_adamw" in found
    forward_backward(model, pairs[0])
    ours, theirs = [], []
    for pair in pairs:
        theirs.append(seconds(lambda pair=pair: forward_backward(model, pair), device))
        for one in model.parameters():
            one.grad = None
        ours.append(seconds(lambda pair=pair: prober.probe(pair), device))
    mine, other = statistics.median(ours), statistics.median(theirs)
    return line(
        f"{title}, {row.own}, {row.n_context} + {row.n_response} tokens",
        f"{other * 1000:.0f} ms a pair",
        f"{mine * 1000:.0f} ms a pair",
        f"{mine / other:.1f}×",
    )


# --- peak memory: each side in a process of its own


def one_side(side: str, row: Row, device: str) -> None:
    model = model_of(row, device)
    pair = pairs_of(row, model.config.vocab_size)[0]
    Prober(model, Probing(parameters="last_layer")).probe(pair)  # loads kernels
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    else:
        torch.cuda.reset_peak_memory_stats()
    if side == "ours":
        Prober(model, Probing(own=row.own)).probe(pair)
    elif side == "theirs":
        forward_backward(model, pair)
    weights = sum(one.numel() * one.element_size() for one in model.parameters())
    print(json.dumps({"peak": peak_memory(), "weights": weights}))


def memory_row(name: str, device: str) -> str:
    found = {}
    for side in ("nothing", "theirs", "ours"):
        command = [sys.executable, "-m", "tests.benchmarks.gradients", "--side", side]
        done = subprocess.run(
            [*command, "--row", name, "--device", device],
            check=True,
            capture_output=True,
            text=True,
        )
        found[side] = json.loads(done.stdout.splitlines()[-1])
    base = found["nothing"]["peak"]
    mine, other = ((found[s]["peak"] - base) / found[s]["weights"] for s in ("ours", "theirs"))
    return line(
        f"{ROWS[name].title}, {ROWS[name].own}: peak memory beside the weights, in their size",
        f"{other:.1f}",
        f"{mine:.1f}",
        f"{(1 + mine) / (1 + other):.1f}×",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", action="append", choices=ROWS, help="only this one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint", action="append", type=Path, default=[])
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        one_side(asked.side, ROWS[asked.row[0]], asked.device)
        return
    print(facts(asked.device), flush=True)
    print(line("work", "forward and backward of both responses", "prefbench", "ratio"))
    print(line(*["---"] * 4), flush=True)
    for path in asked.checkpoint:
        model = AutoModelForCausalLM.from_pretrained(path).to(asked.device).eval()
        print(time_row(path.name, model, ROWS["tiny"], asked.device), flush=True)
    for name in asked.row or ROWS:
        model = model_of(ROWS[name], asked.device)
        print(time_row(ROWS[name].title, model, ROWS[name], asked.device), flush=True)
        del model
        if name.startswith("large"):
            print(memory_row(name, asked.device), flush=True)


if __name__ == "__main__":
    main()
