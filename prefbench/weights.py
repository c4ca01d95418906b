"""What a checkpoint's weight files say of themselves, read from their headers, never loaded."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prefbench.errors import CheckpointError

DTYPES: Mapping[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I8": "int8",
    "U8": "uint8",
}
"""Safetensors' names of number formats and torch's."""

TRAINING_STATE = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
"""Pickled files a trainer writes beside the weights. They are never opened."""


MOST_JSON = 1 << 28
"""Bytes; no JSON of a checkpoint is larger, the log of a very long training included."""
MOST_HEADER = 100_000_000
"""Bytes of a header that safetensors itself reads."""
MOST_AXES = 64


class IncompleteError(CheckpointError):
    """A checkpoint whose files are not all there, or not whole."""


class Weights(NamedTuple):
    """The weight files of one checkpoint; None where only loading them would tell."""

    files: tuple[Path, ...]
    n_bytes: int
    n_parameters: int | None
    dtype: str | None


def read_weights(folder: Path, *, adapter: bool, allow_pickle: bool) -> Weights:
    """Find the weights of a checkpoint and check that they are whole.

    Raises:
        IncompleteError: a file is missing or does not have the length its header states.
        CheckpointError: the weights are pickled, which is code that runs when they are loaded.
    """
    safe, pickled = ("adapter_model", "adapter_model") if adapter else ("model", "pytorch_model")
    if files := _files(folder, f"{safe}.safetensors"):
        return _described(files, _weight_map(folder / f"{safe}.safetensors.index.json", files))
    if files := _files(folder, f"{pickled}.bin"):
        if not allow_pickle:
            raise CheckpointError(
                f"{files[0].name} is pickled and could run code when loaded: "
                "save the weights as safetensors, or pass --allow-pickle"
            )
        return Weights(files, sum(file.stat().st_size for file in files), None, None)
    if parts := sorted(folder.glob(f"{safe}-*-of-*.safetensors")):
        raise IncompleteError(f"{safe}.safetensors.index.json is missing beside {parts[0].name}")
    if foreign := _foreign(folder):
        raise CheckpointError(
            f"{foreign.name} is a pickled training checkpoint that transformers does not load, "
            "with --allow-pickle or without: save the model with save_pretrained"
        )
    raise IncompleteError(f"no weights: {safe}.safetensors is missing")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; IncompleteError where it is none."""
    if path.stat().st_size > MOST_JSON:
        raise IncompleteError(f"{path.name} is larger than {MOST_JSON >> 20} MiB")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise IncompleteError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise IncompleteError(f"{path.name} holds no JSON object")
    return content


def read_header(path: Path) -> dict[str, Any]:
    """The tensors a safetensors file states, after checking its length against them.

    Source: the format, huggingface.co/docs/safetensors: eight bytes of header length, little
    endian, the header as JSON, then the data that the header's offsets point into.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 + length:
            raise IncompleteError(f"{path.name} is cut off in its header, at {size} bytes")
        if length > MOST_HEADER:
            raise IncompleteError(f"{path.name} states a header of {length} bytes")
        text = file.read(length)
    try:
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        stated = 8 + length + max(map(_end_of, header.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise IncompleteError(f"{path.name} does not start with a safetensors header") from error
    if size != stated:
        raise IncompleteError(f"{path.name} has {size} bytes where its header states {stated}")
    return header


def _end_of(tensor: Mapping[str, Any]) -> int:
    """Where a tensor's data end, as its header says.

    Raises:
        ValueError, TypeError, LookupError: it says no such thing, or what no tensor can be.
    """
    begin, end = tensor["data_offsets"]
    shape = tensor["shape"]
    if not isinstance(tensor["dtype"], str) or not isinstance(shape, list):
        raise TypeError("a tensor has a number format and a shape")
    if len(shape) > MOST_AXES or any(type(n) is not int or n < 0 for n in (begin, end, *shape)):
        raise ValueError("a tensor has a few axes, each with a length")
    if math.prod(shape) > 8 * (end - begin):
        raise ValueError("a tensor's numbers take a bit or more each")
    return int(end)


def _files(folder: Path, name: str) -> tuple[Path, ...]:
    """The one file of this name, or the shards its index lists, or nothing."""
    if (folder / name).is_file():  # transformers, too, takes it before an index
        return (folder / name,)
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return ()
    shards = sorted(set(_weight_map(index).values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise CheckpointError(f"{index.name} lists {shard}, which is outside the checkpoint")
        if not (folder / shard).is_file():
            raise IncompleteError(f"{shard} is missing, which {index.name} lists")
    return tuple(folder / shard for shard in shards)


def _weight_map(index: Path, files: tuple[Path, ...] = ()) -> dict[str, str]:
    """Which shard holds which tensor; empty where the weights are the one file without index."""
    if len(files) == 1 and f"{files[0].name}.index.json" == index.name:
        return {}
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise IncompleteError(f"{index.name} has no weight_map")
    return {str(tensor): str(shard) for tensor, shard in shards.items()}


def _described(files: tuple[Path, ...], weight_map: Mapping[str, str]) -> Weights:
    n_elements: Counter[str] = Counter()
    headers = {file.name: read_header(file) for file in files}
    for tensor, shard in weight_map.items():
        if tensor not in headers[shard]:
            raise IncompleteError(f"{shard} lacks the tensor {tensor} that the index lists for it")
    for header in headers.values():
        for tensor in header.values():
            n_elements[tensor["dtype"]] += math.prod(tensor["shape"])
    dtype = max(n_elements, key=lambda name: n_elements[name], default=None)
    return Weights(
        files,
        n_bytes=sum(file.stat().st_size for file in files),
        n_parameters=sum(n_elements.values()),
        dtype=DTYPES.get(dtype, dtype.lower()) if dtype else None,
    )


def _foreign(folder: Path) -> Path | None:
    """A pickled file that may be weights in another library's form."""
    for pattern in ("*.pt", "*.pth", "*.bin"):
        for path in sorted(folder.glob(pattern)):
            if not path.name.startswith(TRAINING_STATE) and "_states" not in path.name:
                return path
    return None
