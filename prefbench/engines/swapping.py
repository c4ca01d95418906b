"""Whether the weights of one checkpoint can take the place of another's in a running engine.

An engine that is given weights keeps everything else: its configuration, and every tensor that the
new weights lack. Neither is an error to it, and both give wrong numbers, so both are looked at here
beforehand, in the files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from prefbench.errors import CheckpointError
from prefbench.weights import read_header, read_json, read_weights

NO_MATTER = {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"}
"""Keys of config.json that change nothing in what an engine computes; it has its own dtype."""


class Described(NamedTuple):
    """What an engine keeps of weights that it was started with; shapes are None if unknown."""

    config: dict[str, Any]
    shapes: dict[str, list[int]] | None


def described(folder: Path) -> Described:
    """As they are now: a directory may hold others later.

    Raises:
        CheckpointError: its files cannot be read.
    """
    return Described(read_json(folder / "config.json"), _shapes(folder))


def cannot_swap(old: Described, new: Described) -> str | None:
    """Why some weights cannot take the place of others, if they cannot."""
    before, after = old.config, new.config
    for key in sorted({*before, *after} - NO_MATTER):
        if before.get(key) != after.get(key):
            return f"config.json: {key} is {_short(after.get(key))}, was {_short(before.get(key))}"
    shapes, others = old.shapes, new.shapes
    if shapes is None or others is None:
        return "its weights are not in safetensors"
    for name in sorted({*shapes, *others}):
        if shapes.get(name) != others.get(name):
            there, was = (
                f"is {one[name]}" if name in one else "is not there" for one in (others, shapes)
            )
            return f"the tensor {name} {there} in the new weights, and {was} in the old"
    return None


def likeness(folder: Path) -> str:
    """Equal for two checkpoints whose configurations let one take the other's place."""
    try:
        config = read_json(folder / "config.json")
    except (CheckpointError, OSError):
        return ""
    return json.dumps({k: v for k, v in config.items() if k not in NO_MATTER}, sort_keys=True)


def _shapes(folder: Path) -> dict[str, list[int]] | None:
    """The shape of every tensor; None where only loading would tell."""
    try:
        files = read_weights(folder, adapter=False, allow_pickle=True).files
    except OSError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    if any(file.suffix != ".safetensors" for file in files):
        return None
    return {name: tensor["shape"] for file in files for name, tensor in read_header(file).items()}


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:77]}…"
