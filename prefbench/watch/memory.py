"""Free memory that a turn waits for: of the device that measures, whoever else uses it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from prefbench.errors import InputError
from prefbench.machine import read_memory

GIB = 1 << 30
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": GIB, "T": 1 << 40}
SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?)\s*(%|([KMGT]?)(?:iB|B)?)", re.IGNORECASE)


class Memory(NamedTuple):
    """Bytes of a device."""

    where: str
    free: int
    total: int


Probe = Callable[[], Memory | None]
"""Looks how much is free now; None where that cannot be told."""


@dataclass(frozen=True)
class Room:
    """How much must be free: bytes, or a share of all."""

    n_bytes: int = 0
    share: float = 0.0

    def needed(self, total: int) -> int:
        """Bytes, of a device that has so many."""
        return max(self.n_bytes, int(self.share * total))


def read_room(text: str) -> Room:
    """`20GiB`, `500 MB` (of 1024 as well, as GPUs count) or `25%`.

    Raises:
        InputError: it is none of these.
    """
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise InputError(f"--min-free-memory {text!r:.40}: is a size such as 20GiB, or 25%")
    number, unit, letter = found.groups()
    if unit != "%":
        return Room(n_bytes=int(float(number) * UNITS[(letter or "").upper()]))
    if float(number) > 100:
        raise InputError(f"--min-free-memory {text}: more than all can never be free")
    return Room(share=float(number) / 100)


def lacking(room: Room, memory: Memory) -> str | None:
    """What is waited for, if so."""
    needed = room.needed(memory.total)
    if memory.free >= needed:
        return None
    now = f"{memory.free / GIB:.1f} GiB now"
    never = "" if needed <= memory.total else f"; it has {memory.total / GIB:.1f} GiB in all"
    return f"waits for {needed / GIB:.3g} GiB free on {memory.where}, {now}{never}"


def probe_of(device: str) -> Probe:
    """How to look at the memory of a device, as `--device` names it."""
    if device.startswith("cuda") or (device == "auto" and _has_cuda()):
        name = device if device.startswith("cuda:") else "cuda:0"
        return lambda: _of_gpu(name)
    return _of_machine


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _of_machine() -> Memory | None:
    found = read_memory()
    if found.available is None or found.total is None:
        return None
    return Memory("this machine", found.available, found.total)


def _of_gpu(name: str) -> Memory | None:
    """As the driver counts, what other processes have included; ours gives back what it keeps."""
    import torch

    if not torch.cuda.is_available():
        return _by_nvidia_smi(name)
    try:
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(name)
    except RuntimeError:  # so full that not even a look has room
        return _by_nvidia_smi(name)
    return Memory(name, free, total)


def _by_nvidia_smi(name: str) -> Memory | None:
    asked = ("--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits")
    try:
        said = subprocess.run(
            ["nvidia-smi", *asked, f"--id={name.partition(':')[2] or 0}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        free, total = (int(word) << 20 for word in said.stdout.split(","))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Memory(name, free, total)
