"""LoRA adapters: what an engine must know of them, read from their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from prefbench.weights import read_header, read_json

HEADS = {"lm_head", "embed_tokens", "embed_in", "embed_out", "wte"}
BEYOND_LORA = {
    "alpha_pattern",
    "alora_invocation_tokens",
    "arrow_config",
    "corda_config",
    "eva_config",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "lora_bias",
    "megatron_config",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
}
"""Settings of an adapter, if they are set, that make it more than matrices A and B per module."""


class Needs(NamedTuple):
    """What an engine is started with so that it can take some adapters."""

    rank: int
    modules: tuple[str, ...]


def beyond_lora(folder: Path) -> str | None:
    """Why an adapter is not plain LoRA on plain linear layers, if it is not."""
    config = read_json(folder / "adapter_config.json")
    kind = config.get("peft_type")
    if kind != "LORA":
        return f"it is {kind}, not LORA"
    for name in sorted(BEYOND_LORA):
        if config.get(name):
            return f"it sets {name}"
    if config.get("bias", "none") != "none":
        return "it trains biases"
    modules = _modules(folder)
    if not modules:
        return "it names no target modules"
    if heads := HEADS & set(modules):
        return f"it changes {', '.join(sorted(heads))}"
    return None


def needs(folders: Sequence[Path]) -> Needs:
    """The highest rank of some adapters, and all modules that they change."""
    ranks = [int(read_json(folder / "adapter_config.json").get("r", 8)) for folder in folders]
    modules = {name for folder in folders for name in _modules(folder)}
    return Needs(max(ranks), tuple(sorted(modules)))


def changes_nothing(folder: Path) -> bool:
    """Whether an adapter is the base itself: every B is zero, as it is before training.

    With any tensor beside matrices A and B the answer is no: what it does is not known here.
    """
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return False
    names = list(read_header(file))
    outer = [name for name in names if ".lora_B." in name]
    if not outer or any(".lora_A." not in name for name in {*names} - {*outer}):
        return False
    with safe_open(str(file), "pt") as tensors:
        return not any(bool(tensors.get_tensor(name).any()) for name in outer)


def _modules(folder: Path) -> list[str]:
    """The last part of the name of each module that the adapter has matrices for."""
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return []
    names = [name.partition(".lora_")[0] for name in read_header(file) if ".lora_" in name]
    return sorted({name.rpartition(".")[2] for name in names})
