"""The forward pass that an engine's numbers are compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from prefbench.checkpoints import read_checkpoint
from prefbench.engines import probe
from prefbench.engines.base import EngineSettings
from prefbench.engines.probe import direct_logps
from prefbench.weights import read_weights


@pytest.mark.parametrize("room_for", ["the adapter", "the base"])
def test_the_base_of_an_adapter_is_what_takes_the_memory(
    path: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_for: str
) -> None:
    base = path("llama")
    config = LoraConfig(r=1, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path)
    checkpoint = read_checkpoint(tmp_path)
    small = checkpoint.n_parameters
    large = read_weights(base, adapter=False, allow_pickle=False).n_parameters
    assert small
    assert large
    assert large > 10 * small
    n_parameters = {"the adapter": 5 * small, "the base": 2 * large}[room_for]
    monkeypatch.setattr(probe, "available_memory", lambda: 4 * n_parameters)
    found = direct_logps(checkpoint, EngineSettings(), [5, 6, 7], base)
    if room_for == "the adapter":
        assert found is None
        return
    assert found is not None
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(base)(torch.tensor([[5, 6]])).logits[0]
    np.testing.assert_allclose(found, logits.log_softmax(-1).double().numpy(), atol=1e-4)
