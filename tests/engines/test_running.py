"""How vLLM's process is started, and how its errors are read; nothing is started here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import LlamaConfig

from prefbench.engines import running
from prefbench.engines.base import EngineSettings
from prefbench.engines.running import (
    CPU_MEMORY_SHARE,
    VISIBLE,
    Start,
    _environment,
    _is_out_of_memory,
    _kv_bytes,
)
from prefbench.errors import EngineError


def start(device: str) -> Start:
    return Start("float32", device, 48, 1, False, False, None, None)


@pytest.mark.parametrize(
    ("visible", "device", "named"),
    [
        (None, "cuda:1", "1"),
        ("2,3", "cuda:0", "2"),
        ("2, 3", "cuda:1", "3"),
        ("GPU-8f2a,MIG-01", "cuda:1", "MIG-01"),
        ("2,3", "cuda", None),
        ("2,3", "cpu", None),
    ],
)
def test_a_device_is_counted_among_those_that_are_visible(monkeypatch, visible, device, named):
    monkeypatch.setattr(running, "installed", lambda: "vllm")
    ours = {} if visible is None else {VISIBLE: visible}
    assert _environment(start(device), ours).get(VISIBLE) == named


@pytest.mark.parametrize(
    ("visible", "shown"),
    [("2,3", "2 GPUs"), ("7", "1 GPU"), ("", "no GPU"), ("-1", "no GPU"), ("0,-1,1,2", "1 GPU")],
)
def test_a_device_that_is_not_visible_is_refused(monkeypatch, visible, shown):
    monkeypatch.setattr(running, "installed", lambda: "vllm")
    with pytest.raises(EngineError, match=f"cuda:2: CUDA_VISIBLE_DEVICES={visible} shows {shown},"):
        _environment(start("cuda:2"), {VISIBLE: visible})


@pytest.mark.parametrize(
    "text",
    [
        "ValueError: No available memory for the cache blocks. Try increasing",
        "ValueError: To serve at least one request with the model's max seq len (131072), (4 GiB "
        "KV cache is needed, which is larger than the available KV cache memory (2 GiB).",
        "ValueError: Cannot auto-fit max_model_len: not enough GPU memory available to serve",
        "ValueError: Free memory on device cuda:0 (1/80 GiB) on startup is less than desired",
        "ValueError: Available memory on node 0 (1/8 GiB) on kv cache allocation is less than",
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried",
        "OSError: [Errno 12] Cannot allocate memory",
        "RuntimeError: DefaultCPUAllocator: not enough memory: you tried to allocate",
    ],
)
def test_too_little_memory_is_known_by_what_is_said(text):
    assert _is_out_of_memory(text)


@pytest.mark.parametrize(
    "text",
    [
        "OSError: /data/memory-dpo/config.json is no JSON",
        "ValueError: KV cache layout LBNHC cannot express this model's mixed page sizes",
        "TypeError: LLM() got an unexpected keyword argument 'kv_cache_memory_bytes'",
    ],
)
def test_other_errors_are_not_taken_for_too_little_memory(text):
    assert not _is_out_of_memory(text)


def test_keys_and_values_leave_room_in_what_is_available(monkeypatch):
    engine: Any = SimpleNamespace(
        config=LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32),
        settings=EngineSettings(n_engines=2),
        max_length=4096,
    )
    monkeypatch.setattr(running, "available_memory", lambda: 10 << 30)
    assert _kv_bytes(engine) == int((10 << 30) * CPU_MEMORY_SHARE / 2)
    monkeypatch.setattr(running, "available_memory", lambda: None)
    assert _kv_bytes(engine) == 2 * 32 * 4096 * 4 * 64 * 1024
