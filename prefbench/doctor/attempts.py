"""What only trying can tell: `main` runs in a process of its own and prints one line of JSON.

A broken build may crash the process that imports it, and vLLM changes the one it runs in.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "vocab_size": 64,
}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}


def try_hf(argument: str) -> dict[str, Any]:
    """One forward pass of a small Llama, and the GPUs that torch sees."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, LlamaConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    build: Any = AutoModelForCausalLM.from_config
    model = build(LlamaConfig(**SMALL)).to(device)
    with torch.inference_mode():
        logits = model(torch.tensor([[3, 4, 5]], device=device)).logits
    if not bool(torch.isfinite(logits).all()):
        raise ArithmeticError("a small model's logits are not finite")
    gpus = []
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        gpus.append({"name": torch.cuda.get_device_name(i), "total": total, "free": free})
    return {
        "torch": str(torch.__version__),
        "transformers": str(transformers.__version__),
        "gpu_build": torch.version.cuda or torch.version.hip,
        "gpus": gpus,
    }


def try_vllm(argument: str) -> dict[str, Any]:
    """An engine around a small Llama of random weights, and two tokens from it."""
    import vllm
    from vllm.platforms import current_platform

    more = {"block_size": 32} if current_platform.is_cpu() else {}
    dtype = "float32" if current_platform.is_cpu() else "half"
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SMALL}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        engine = vllm.LLM(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype=dtype,
            max_model_len=64,
            enforce_eager=True,
            kv_cache_memory_bytes=16 << 20,
            use_tqdm_on_load=False,
            **more,
        )
    asked = vllm.SamplingParams(max_tokens=2, temperature=0, detokenize=False)
    [answer] = engine.generate([{"prompt_token_ids": [3, 4, 5]}], asked, use_tqdm=False)
    return {
        "version": str(vllm.__version__),
        "device": str(current_platform.device_type),
        "n_tokens": len(answer.outputs[0].token_ids),
    }


def try_data(argument: str) -> dict[str, Any]:
    """Reads data as a run would without a network: rows by split, or why not, by task."""
    from prefbench import data
    from prefbench.errors import DataError

    told: dict[str, Any] = {}
    for task, fields, splits in json.loads(argument):
        files = {split: Path(file) for split, file in fields["files"].items()}
        try:
            loaded = data.load(data.Source(**{**fields, "files": files}), splits)
            told[task] = {"rows": {split: len(rows) for split, rows in loaded.items()}}
        except DataError as error:
            told[task] = {"error": str(error)}
    return {"tasks": told}


ATTEMPTS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "hf": try_hf,
    "vllm": try_vllm,
    "data": try_data,
}


def main(seconds: str, what: str, argument: str = "") -> None:
    """Tries one thing and tells what came of it."""
    # The end of this process even if the one that waits for it was killed.
    signal.alarm(int(float(seconds)) + 5)
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not the answer

    def tell(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=own, flush=True)
        os._exit(0)  # after vLLM the usual end takes seconds

    def failed(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        first = error
        while cause := first.__cause__ or first.__context__:
            first = cause
        said = _first_line(error)
        tell({"error": said if first is error else f"{said} (from {_first_line(first)})"})

    sys.excepthook = failed
    started = time.monotonic()
    facts = ATTEMPTS[what](argument)
    tell({**facts, "seconds": round(time.monotonic() - started, 1)})


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
