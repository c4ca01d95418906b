"""What the preference report costs, beside one plain forward pass over the same pairs.

    PREFBENCH_MIRROR=data/ OMP_NUM_THREADS=1 taskset -c 0 \\
        python -m tests.benchmarks.preference_report [--task hh_helpful_margins] [--pairs 100] \\
        [--checkpoint DIR] [--device cuda]

Ours is what a run does for a checkpoint: scoring with token log-probs and hidden states, and the
arithmetic of margins beside a reference whose answers are there. The plain pass is transformers'
own, in float32, over prompt and text of each pair, texts of like length in one batch, at the best
of BATCH_SIZES; it takes log-softmax and picks the texts' tokens, and no more. Both go several times
in turns; the fastest counts. Without --checkpoint a Llama of 17 M parameters with random weights is
made.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from prefbench.engines import open_engine
from prefbench.engines.base import Engine, EngineSettings, TokenRequest
from prefbench.measures.answers import ask
from prefbench.measures.margins import PairAnswers, margins_of
from prefbench.measures.requests import Requests
from prefbench.records import Answer
from tests.asking import checkpoint_at, requests_of, tokens_of
from tests.benchmarks.scoring import VOCABULARY, _tokenizer

FLOOR = 1.2
"""What the report may cost of a plain pass."""
BATCH_SIZES = (1, 4, 8, 16)
AT_ONCE = 32
"""Items that a run of ours scores at once."""
REPEATS = 3


def scored(requests: Requests, engine: Engine) -> list[Answer]:
    """The answers of all items, as a run asks for them."""
    found: list[Answer] = []
    with requests.built_by(engine):
        for start in range(0, len(requests), AT_ONCE):
            found += ask(requests, engine, range(start, min(start + AT_ONCE, len(requests))))
    engine._scorer.kept.clear()  # type: ignore[attr-defined]
    return found


def arithmetic(requests: Requests, answers: Sequence[Answer]) -> list[Any]:
    pairs = [
        PairAnswers(one, one, len(requests.item(one.item).fields["chosen"])) for one in answers
    ]
    return margins_of(pairs)


@torch.inference_mode()
def plain(model: Any, texts: Sequence[TokenRequest], size: int) -> list[float]:
    """The log-prob of each text, in the order given."""
    lengths = [len(text.context) + len(text.continuation) for text in texts]
    order = sorted(range(len(texts)), key=lengths.__getitem__)
    sums = [0.0] * len(texts)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        ids = [[*texts[i].context, *texts[i].continuation] for i in rows]
        longest = max(map(len, ids))
        padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids])
        padded = padded.to(model.device)
        logps = model(input_ids=padded, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        picked = logps.gather(-1, padded[:, 1:, None])[..., 0].cpu()
        for row, i, whole in zip(picked, rows, ids, strict=True):
            n = len(texts[i].context)
            sums[i] = float(row[n - 1 : len(whole) - 1].sum())
    return sums


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def measure(checkpoint: Path, task: str, n_pairs: int, mirror: Path, device: str) -> None:
    with open_engine("hf", checkpoint_at(checkpoint), EngineSettings(device=device)) as engine:
        requests = requests_of(task, mirror, engine, limit=n_pairs)
        texts = [text for item in tokens_of(requests) for text in item]
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        model = model.to(device).eval()
        few = texts[: 4 * max(BATCH_SIZES)]
        seconds = {}
        for each in BATCH_SIZES:
            seconds[each], _ = timed(lambda each=each: plain(model, few, each))
        size = min(seconds, key=seconds.__getitem__)
        scored(requests, engine)  # loads kernels
        rounds = []
        for _ in range(REPEATS):
            ours, answers = timed(lambda: scored(requests, engine))
            sums, found = timed(lambda answers=answers: arithmetic(requests, answers))
            theirs, logps = timed(lambda: plain(model, texts, size))
            rounds.append((ours, sums, theirs))
    ours, sums, theirs = (min(each) for each in zip(*rounds, strict=True))
    flat = [logp for one in answers for logp in one.logps]
    n_tokens = sum(len(one.context) + len(one.continuation) for one in texts)
    n_parameters = sum(each.numel() for each in model.parameters())
    print(
        f"{task}, {len(requests)} items, {len(texts)} texts, {n_tokens:,} tokens; "
        f"{n_parameters / 1e6:.1f} M parameters, {model.device}"
    )
    print(f"plain pass at batch size {size:<3}{theirs:9.2f} s")
    print(f"scoring with details     {ours:9.2f} s{ours / theirs:8.2f}×")
    print(f"arithmetic of margins    {sums:9.2f} s{sums / theirs:8.2f}×")
    verdict = "within" if (ours + sums) / theirs < FLOOR else "ABOVE"
    print(f"report                   {ours + sums:9.2f} s{(ours + sums) / theirs:8.2f}×, ", end="")
    print(f"{verdict} the floor of {FLOOR}×")
    missing = sum(isinstance(one, str) for one in found)
    if len(flat) == len(logps):
        apart = max(abs(a - b) for a, b in zip(flat, logps, strict=True))
        print(f"log-probs differ by {apart:.1e} nats at most; {missing} items missing")
    else:
        print(f"{missing} items missing")


def make_checkpoint(folder: Path, mirror: Path) -> None:
    """A Llama with random weights, and a tokenizer of the data."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCABULARY["small"],
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    AutoModelForCausalLM.from_config(shape).save_pretrained(folder)
    _tokenizer(mirror).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="hh_helpful_margins")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    mirror = Path(os.environ["PREFBENCH_MIRROR"])
    print(f"{platform.platform()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        if asked.checkpoint is None:
            make_checkpoint(Path(folder), mirror)
        checkpoint = asked.checkpoint or Path(folder)
        measure(checkpoint, asked.task, asked.pairs, mirror, asked.device)


if __name__ == "__main__":
    main()
