"""Accuracy runs: ours and lm-eval's `hf` model, side by side in one run.

    PREFBENCH_MIRROR=data/ OMP_NUM_THREADS=1 taskset -c 0 \\
        python -m tests.benchmarks.scoring [--row NAME ...] [--device cuda]

Both sides get the same token ids, in float32; lm-eval runs at the batch size that is best for it
among BATCH_SIZES on the row's first items. Checkpoints are small Llamas with random weights and a
tokenizer trained on the data, made on the spot: 17 M parameters with 8,192 tokens, 64 M with
131,072. Documents are shuffled, so that items and examples are typical ones. Rows with processes
time whole commands from start to exit, with 25-shot ARC, 10-shot HellaSwag and so on; of eight
lm-eval processes one is run and counted eight times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from prefbench import data
from prefbench.engines import open_engine
from prefbench.engines.base import Engine, EngineSettings, Sampling, TokenRequest
from prefbench.harness import build_task
from prefbench.measures.requests import build_requests
from prefbench.tasks import splits_of
from tests.asking import checkpoint_at, task_named
from tests.official import task_file

SHUFFLE = 2
"""A seed whose fixed examples are about as long as those drawn for each document."""
VOCABULARY = {"small": 8192, "large": 131_072}
BATCH_SIZES = (1, 4, 8, 16, 32)
PROCESS_BATCH_SIZE = {"cpu": 1}
"""Of lm-eval's whole commands; long prompts are fastest one by one on a CPU."""
TRIED, TRIED_TEXTS = 6, 32
"""Items on which lm-eval's batch size is chosen, to be scored and to be generated."""
AT_ONCE = 32
"""Items that a run of ours scores at once."""
N_CHECKPOINTS = 8
STOPS = ("Question:", "</s>", "<|im_end|>")

Items = list[list[TokenRequest]]


@dataclass(frozen=True)
class Row:
    """Requests of a task, scored in this process."""

    title: str
    task: str
    n_items: int
    fewshot: str = "fixed"
    model: str = "small"
    n_generated: int = 0


SCORING = {
    "arc25": Row("ARC-Challenge 25-shot, fixed shots", "arc_challenge_25shot", 50),
    "hellaswag10": Row("HellaSwag 10-shot, fixed shots", "hellaswag_10shot", 100),
    "arc0": Row("ARC-Challenge 0-shot", "arc_challenge_0shot", 200),
    "arc25_drawn": Row(
        "ARC-Challenge 25-shot, per-document shots", "arc_challenge_25shot", 50, "parity"
    ),
    "hellaswag10_drawn": Row(
        "HellaSwag 10-shot, per-document shots", "hellaswag_10shot", 100, "parity"
    ),
    "gsm8k": Row("GSM8K 5-shot, 64 tokens each", "gsm8k_5shot", 32, n_generated=64),
}
MEMORY = {
    "memory_drawn": Row(
        "131k vocabulary, ARC 25-shot, per-document shots",
        "arc_challenge_25shot",
        8,
        "parity",
        "large",
    ),
    "memory": Row(
        "131k vocabulary, ARC 25-shot, fixed shots", "arc_challenge_25shot", 8, model="large"
    ),
}
CHOICES = (
    ("arc_easy", 25),
    ("arc_easy", 0),
    ("arc_challenge", 25),
    ("arc_challenge", 0),
    ("hellaswag", 10),
    ("hellaswag", 0),
)
PROCESSES = {
    # title, tasks, items of each, checkpoints
    "cold": ("one item of ARC 25-shot, cold", (("arc_challenge", 25),), 1, 1),
    "eight": ("eight checkpoints, ARC 25-shot fixed", (("arc_challenge", 25),), 50, N_CHECKPOINTS),
    "choices": ("eight checkpoints, ARC and HellaSwag of the suite", CHOICES, 50, N_CHECKPOINTS),
    "suite": (
        "eight checkpoints, these and GSM8K, 512 tokens each",
        (*CHOICES, ("gsm8k", 5)),
        20,
        N_CHECKPOINTS,
    ),
}


# --- what is measured


def make_checkpoints(folder: Path, mirror: Path) -> None:
    """One checkpoint for each vocabulary, and eight to be measured in one run."""
    tokenizer = _tokenizer(mirror)
    for name, size in VOCABULARY.items():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=size,
            hidden_size=384,
            intermediate_size=1024,
            num_hidden_layers=8,
            num_attention_heads=6,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            initializer_range=0.05,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
        )
        model = AutoModelForCausalLM.from_config(config)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        if name == "small":
            for i in range(N_CHECKPOINTS):
                for weight in model.parameters():
                    weight.data.add_(torch.randn_like(weight), alpha=1e-3)
                model.save_pretrained(folder / "runs" / f"checkpoint-{i}")
                tokenizer.save_pretrained(folder / "runs" / f"checkpoint-{i}")


def _tokenizer(mirror: Path) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        _texts(mirror),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY["small"],
            special_tokens=["<end>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")


def _texts(mirror: Path) -> Iterator[str]:
    for name in ("arc_challenge_0shot", "hellaswag_0shot", "gsm8k_5shot"):
        task = task_named(name)
        source = data.find_source(task.config, [mirror], task.file.parent)
        for document in data.load(source, splits_of(task, source))[task.eval_split]:
            yield " ".join(map(str, document.values()))


def items_of(row: Row, engine: Engine, mirror: Path) -> Items:
    """Token ids of a row's items, from shuffled documents."""
    task = task_named(row.task)
    source = data.find_source(task.config, [mirror], task.file.parent)
    loaded = data.load(source, splits_of(task, source))
    shuffled = {split: documents.shuffle(seed=SHUFFLE) for split, documents in loaded.items()}
    harness = build_task(task, source, shuffled, row.fewshot)  # type: ignore[arg-type]
    # Without a train split, examples come from the first documents, which are then no items here.
    n = task.n_shots + row.n_items
    requests = build_requests(task, harness, engine, chat=False, limit=n)
    with requests.built_by(engine):
        return [list(requests.tokens(i)) for i in range(task.n_shots, n)]


# --- the two sides


def ours(engine: Engine, items: Items, n_generated: int) -> list[Any]:
    found: list[Any] = []
    for start in range(0, len(items), AT_ONCE):
        some = items[start : start + AT_ONCE]
        if n_generated:
            prompts = [requests[0].context for requests in some]
            texts = engine.generate(prompts, Sampling(until=STOPS, max_gen_toks=n_generated))
            found += [one.text for one in texts]
        else:
            scored = engine.score([request for requests in some for request in requests])
            found += [(one.logp, one.greedy) for one in scored]
    return found


def theirs(lm: HFLM, items: Items, n_generated: int) -> list[Any]:
    if n_generated:
        asked = {"until": list(STOPS), "do_sample": False, "max_gen_toks": n_generated}
        prompts = [lm.tok_decode(list(requests[0].context)) for requests in items]
        calls = [Instance("generate_until", {}, (p, asked), i) for i, p in enumerate(prompts)]
        return list(lm.generate_until(calls, disable_tqdm=True))
    triples = [(None, list(c), list(a)) for requests in items for c, a in requests]
    return list(lm._loglikelihood_tokens(triples, disable_tqdm=True))


def at_best(path: Path, items: Items, n_generated: int, device: str) -> HFLM:
    """lm-eval's model at its fastest batch size on a few items."""
    lm = HFLM(pretrained=str(path), dtype="float32", device=device, batch_size=1)
    tried = items[: TRIED_TEXTS if n_generated else TRIED]
    seconds = {}
    for size in BATCH_SIZES:
        lm.batch_size_per_gpu = size
        seconds[size] = timed(lambda: theirs(lm, tried, n_generated))[0]
    lm.batch_size_per_gpu = min(seconds, key=seconds.__getitem__)
    return lm


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def scoring_row(row: Row, folder: Path, mirror: Path, device: str) -> str:
    path = folder / row.model
    with open_engine("hf", checkpoint_at(path), EngineSettings(device=device)) as engine:
        items = items_of(row, engine, mirror)
        ours(engine, items[:1], min(row.n_generated, 8))  # loads kernels, checks the engine
        engine._scorer.kept.clear()  # type: ignore[attr-defined]
        seconds, mine = timed(lambda: ours(engine, items, row.n_generated))
    lm = at_best(path, items, row.n_generated, device)
    their_seconds, other = timed(lambda: theirs(lm, items, row.n_generated))
    n_tokens = sum(len(c) + len(a) for requests in items for c, a in requests)
    return line(
        f"{row.title}, {row.n_items} items ({n_tokens:,} tokens)",
        f"{their_seconds:.1f} s at batch size {lm.batch_size_per_gpu}",
        f"{seconds:.2f} s",
        f"{their_seconds / seconds:.1f}×",
        agreement(mine, other),
    )


def agreement(mine: Sequence[Any], other: Sequence[Any]) -> str:
    if isinstance(mine[0], str):
        return f"{sum(a == b for a, b in zip(mine, other, strict=True))} of {len(mine)} texts equal"
    worst = max(abs(a[0] - b[0]) for a, b in zip(mine, other, strict=True))
    flags = all(a[1] == b[1] for a, b in zip(mine, other, strict=True))
    return f"log-probs within {worst:.0e}, greedy flags {'equal' if flags else 'DIFFER'}"


# --- peak memory: each side in a process of its own


def memory_row(name: str, folder: Path, device: str) -> str:
    found = {}
    for side in ("theirs", "ours"):
        command = [sys.executable, "-m", __spec__.name, "--side", side, "--row", name]
        done = subprocess.run(
            [*command, "--folder", str(folder), "--device", device],
            check=True,
            capture_output=True,
            text=True,
        )
        found[side] = json.loads(done.stdout.splitlines()[-1])
    mine, other = found["ours"], found["theirs"]
    return line(
        f"{MEMORY[name].title}, {MEMORY[name].n_items} items: peak memory",
        f"{other['gigabytes']:.2f} GB, {other['seconds']:.1f} s",
        f"{mine['gigabytes']:.2f} GB, {mine['seconds']:.2f} s",
        " and ".join(f"{other[what] / mine[what]:.1f}×" for what in ("gigabytes", "seconds")),
        agreement(mine["found"], other["found"]),
    )


def one_side(side: str, row: Row, folder: Path, mirror: Path, device: str) -> None:
    path = folder / row.model
    with open_engine("hf", checkpoint_at(path), EngineSettings(device=device)) as engine:
        items = items_of(row, engine, mirror)
        if side == "ours":
            seconds, found = timed(lambda: ours(engine, items, 0))
    if side == "theirs":
        lm = HFLM(pretrained=str(path), dtype="float32", device=device, batch_size=4)
        seconds, found = timed(lambda: theirs(lm, items, 0))
    print(json.dumps({"seconds": seconds, "gigabytes": peak_memory() / 1e9, "found": found}))


def peak_memory() -> float:
    """Bytes that this process had at most."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage tells of a process begins with its parent's peak
        (peak,) = (s for s in status.read_text().splitlines() if s.startswith("VmHWM"))
        return float(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


# --- whole processes


def process_row(name: str, folder: Path, mirror: Path, device: str) -> str:
    title, tasks, n_items, n_checkpoints = PROCESSES[name]
    runs = folder / "runs" if n_checkpoints > 1 else folder / "small"
    results = folder / f"results-{name}"
    shutil.rmtree(results, ignore_errors=True)
    mine = [*(f"--task={task}_{n}shot" for task, n in tasks), f"--limit={n_items}"]
    mine += [f"--device={device}", "--engine=hf"]
    seconds, _ = timed(
        lambda: called(
            [
                "-m",
                "prefbench",
                "run",
                str(runs),
                f"--results={results}",
                f"--device={device}",
                *mine,
            ],
            {"PREFBENCH_MIRROR": str(mirror)},
        )
    )
    files = folder / "lm-eval"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir()
    names = []
    for task, n_shots in tasks:
        until = {"until": list(STOPS), "do_sample": False, "max_gen_toks": 512}
        more = {"generation_kwargs": until} if task == "gsm8k" else {}
        config = task_file(task, n_shots, "fixed", mirror, files, **more)
        names.append(config["task"])
    first = folder / "runs" / "checkpoint-0" if n_checkpoints > 1 else runs
    their_seconds, _ = timed(
        lambda: called(
            [
                "-m",
                "lm_eval",
                "run",
                "--model=hf",
                f"--model_args=pretrained={first},dtype=float32",
                f"--tasks={','.join(names)}",
                f"--include_path={files}",
                f"--limit={n_items}",
                f"--device={device}",
                f"--batch_size={PROCESS_BATCH_SIZE.get(device, 16)}",
                "--log_samples",
                f"--output_path={folder / 'lm-eval-out'}",
            ],
            {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        )
    )
    times = f"{n_checkpoints} × " if n_checkpoints > 1 else ""
    return line(
        f"{title}, {n_items} of each task, from start to exit" if n_items > 1 else title,
        f"{times}{their_seconds:.1f} s",
        f"{seconds:.1f} s",
        f"{n_checkpoints * their_seconds / seconds:.1f}×",
        "",
    )


def called(arguments: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}\n{done.stderr[-3000:]}")


# --- the table


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def facts(device: str) -> str:
    machine = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [s for s in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in s]
        machine = names[0].partition(": ")[2] if names else machine
    place = torch.cuda.get_device_name() if device == "cuda" else machine
    libraries = ", ".join(f"{n} {version(n)}" for n in ("torch", "transformers", "lm_eval"))
    return f"{place}, {torch.get_num_threads()} thread(s), float32; {libraries}"


def main() -> None:
    rows = [*SCORING, *MEMORY, *PROCESSES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", action="append", choices=rows, help="only this one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="checkpoints from an earlier run")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    mirror = Path(os.environ["PREFBENCH_MIRROR"]).resolve()
    transformers_logging.disable_progress_bar()
    if asked.side:
        one_side(asked.side, MEMORY[asked.row[0]], asked.folder, mirror, asked.device)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        if not (folder / "runs").exists():
            make_checkpoints(folder, mirror)
        print(facts(asked.device), flush=True)
        print(line("work", "lm-eval", "prefbench", "ratio", "agreement"))
        print(line(*["---"] * 5), flush=True)
        for name in asked.row or rows:
            if name in SCORING:
                told = scoring_row(SCORING[name], folder, mirror, asked.device)
            elif name in MEMORY:
                told = memory_row(name, folder, asked.device)
            else:
                told = process_row(name, folder, mirror, asked.device)
            print(told, flush=True)


if __name__ == "__main__":
    main()
