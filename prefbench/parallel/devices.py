"""Which GPUs and processor cores each of several engines gets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from prefbench.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"


def environments(
    n_engines: int,
    *,
    n_gpus_each: int,
    device: str,
    gpus: Sequence[str],
    n_cores: int,
    environment: Mapping[str, str],
) -> list[dict[str, str]]:
    """The variables that each of several engines is started with besides those that are there.

    Args:
        n_engines: how many there are.
        n_gpus_each: GPUs that one checkpoint is spread over.
        device: as the user names it; `auto` computes on the processor where no GPU is visible.
        gpus: those that are visible, as `CUDA_VISIBLE_DEVICES` names them.
        n_cores: of the processor, divided among the engines unless the user has set
            `OMP_NUM_THREADS`.
        environment: the variables that are there.

    Raises:
        InputError: there are too few GPUs, or `device` names one of them.
    """
    threads = {} if environment.get(THREADS) else {THREADS: str(max(1, n_cores // n_engines))}
    if device == "cpu" or (device == "auto" and not gpus and n_gpus_each == 1):
        return [dict(threads) for _ in range(n_engines)]
    if device not in ("auto", "cuda"):
        raise InputError(
            f"device {device!r} is one for all; with {n_engines} engines leave --device out and "
            f"say by {VISIBLE} which GPUs to use"
        )
    return [{**threads, VISIBLE: ",".join(own)} for own in slices(gpus, n_engines, n_gpus_each)]


def slices(gpus: Sequence[str], n_engines: int, n_each: int) -> list[tuple[str, ...]]:
    """The GPUs of each engine: neighbours, which are most often the closest to each other.

    Raises:
        InputError: there are too few.
    """
    needed = n_engines * n_each
    if needed > len(gpus):
        visible = {0: "none is", 1: "1 is"}.get(len(gpus), f"{len(gpus)} are")
        each = "1 GPU" if n_each == 1 else f"{n_each} GPUs"
        raise InputError(
            f"{n_engines} engines × {each} need {needed}, {visible} visible; set "
            "--data-parallel-size or --tensor-parallel-size lower, or --device cpu"
        )
    return [tuple(gpus[i * n_each : (i + 1) * n_each]) for i in range(n_engines)]


def named(variable: str | None, n_seen: int) -> list[str]:
    """The visible GPUs by the names that `CUDA_VISIBLE_DEVICES` gives them, else by number.

    Args:
        variable: its value, if it is set; CUDA drops what stands behind a name that is none.
        n_seen: how many GPUs a process sees.
    """
    names = map(str, range(n_seen)) if variable is None else variable.split(",")
    return [name.strip() for name in names][:n_seen]


def visible_gpus() -> list[str]:
    """The GPUs that engines see here; touches none of them."""
    import torch

    return named(os.environ.get(VISIBLE), torch.cuda.device_count())
