"""What is read from an adapter's files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prefbench.engines.adapters import changes_nothing

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight"


def adapter(folder: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_whose_b_is_zero_changes_nothing(tmp_path: Path) -> None:
    untrained = {A: torch.ones(2, 4), B: torch.zeros(4, 2)}
    assert changes_nothing(adapter(tmp_path, **untrained))
    assert not changes_nothing(adapter(tmp_path, **{**untrained, B: torch.eye(4, 2)}))
    assert not changes_nothing(adapter(tmp_path, **{A: torch.ones(2, 4)}))


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.embed_tokens.lora_embedding_B",
        f"{MODULE}.lora_magnitude_vector",
        f"{MODULE}.lora_B.bias",
        "base_model.model.lm_head.weight",
    ],
)
def test_with_more_than_matrices_a_and_b_it_may_change_something(tmp_path: Path, name: str) -> None:
    tensors = {A: torch.ones(2, 4), B: torch.zeros(4, 2), name: torch.ones(4)}
    assert not changes_nothing(adapter(tmp_path, **tensors))


def test_without_safetensors_nothing_is_known(tmp_path: Path) -> None:
    assert not changes_nothing(tmp_path)
