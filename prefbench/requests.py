"""What training says of a checkpoint that it has just saved: a small file in its folder.

prefbench_request.json   {"step": 500, "files": {"model.safetensors": [size, time], …}, …}

It is written by the callback in `prefbench.integrations` and is no part of the checkpoint: what it
says is asked like a model card, and believed only as far as the files themselves bear it out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pydantic import TypeAdapter

REQUEST = "prefbench_request.json"

MODEL_FILE = re.compile(
    r"[^.].*\.(safetensors|json|jinja|model|txt|tiktoken|py)|(pytorch|adapter)_model.*\.bin"
)
"""Weights, their index, settings, tokenizer; neither optimizer nor random state."""
WEIGHTS = re.compile(r"[^.].*\.safetensors|(pytorch|adapter)_model.*\.bin")

MOST_BYTES = 1 << 20
MOST_CHARACTERS = 4096
MOST = 1 << 53
"""Of a step or a seed: what every reader of JSON can hold."""

Files = dict[str, tuple[int, int]]
"""Of each file its size in bytes and when it was last written, in nanoseconds."""


@dataclass(frozen=True)
class Request:
    """A checkpoint's files as they were when it was saved, and what the trainer knew of it.

    Attributes:
        step: optimizer steps done.
        when: ISO 8601, by the clock of the training machine.
        files: those right in the folder that make the model; none where only the rest is said.
        method: as the user of the callback names it.
        trainer: class of the trainer's arguments, such as TRL's `DPOConfig`.
        losses: TRL's `loss_type`.
        start: path or hub id of the model that training began with.
        reference: path or hub id, as the user of the callback names it.
        beta: strength of the pull towards the reference.
        seed: of training.
    """

    step: int
    when: str
    files: Files = dataclasses.field(default_factory=dict)
    method: str | None = None
    trainer: str | None = None
    losses: tuple[str, ...] = ()
    start: str | None = None
    reference: str | None = None
    beta: float | None = None
    seed: int | None = None
    format: Literal[1] = 1


def model_files(folder: Path) -> Files:
    """The model's files right in a folder; links are none of them.

    Raises:
        OSError: there is no such folder, or a file is deleted meanwhile.
    """
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == REQUEST or not MODEL_FILE.fullmatch(entry.name):
                continue
            seen = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(seen.st_mode):
                found[entry.name] = seen.st_size, seen.st_mtime_ns
    return found


def weights_of(files: Files) -> Files:
    """Those of the files that hold weights."""
    return {name: seen for name, seen in files.items() if WEIGHTS.fullmatch(name)}


def write_request(folder: Path, request: Request) -> None:
    """Writes the file whole or not at all, beside what it speaks of.

    Nothing waits for the disk: that could take as long as the weights before it. A request that a
    power cut empties is none.

    Raises:
        OSError: it cannot be written; the folder must be there.
    """
    text = json.dumps(dataclasses.asdict(request), indent=1)
    temporary = folder / f".{REQUEST}.tmp"
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(folder / REQUEST)


@cache
def _form() -> TypeAdapter[Request]:
    from pydantic import TypeAdapter  # here, as training needs none of it

    return TypeAdapter(Request)


def read_request(folder: Path) -> Request | None:
    """What a folder's request says; None where there is none, or what is there is no request."""
    try:
        # Neither a link nor a pipe is waited for, whatever lies there.
        number = os.open(folder / REQUEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                return None
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            return None
        request = _form().validate_json(text, strict=True)
    except (OSError, ValueError):
        return None
    texts = (request.when, *request.losses, request.method, request.trainer)
    texts += request.start, request.reference
    numbers = (request.step, request.seed or 0, request.beta or 0.0)
    bounded = all(len(text or "") <= MOST_CHARACTERS for text in texts)
    return request if bounded and all(0 <= one <= MOST for one in numbers) else None


def is_whole(folder: Path, request: Request) -> bool:
    """Whether the files are the very ones that the request speaks of, and no weights beside them.

    Their times count too: a resumed training writes the same sizes into the same folder again,
    where the request of the first one may still lie.
    """
    try:
        now = model_files(folder)
    except (OSError, ValueError):
        return False
    weights = weights_of(request.files)
    return bool(weights) and weights == weights_of(now) and request.files.items() <= now.items()
