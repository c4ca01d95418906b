"""The weights of a judge that runs here: a directory, a mirror's copy, or the hub's at a commit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefbench.checkpoints import read_checkpoint
from prefbench.data import is_offline
from prefbench.errors import JudgeError
from prefbench.judges.recipe import JudgeRecipe
from prefbench.records import Checkpoint

MIRRORED = "models"
"""The folder of a mirror that holds models, each under its id."""
ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
NEEDED = ("*.json", "*.jinja", "*.model", "*.safetensors", "*.txt")
"""Of a model on the hub; besides, code or pickled weights where they are allowed."""


def find_model(
    recipe: JudgeRecipe,
    folder: Path,
    mirrors: Sequence[Path],
    *,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """The checkpoint that a judge runs on, by its recipe's `model`; loads no weights.

    Looked for as a directory, then as `models/<id>` in each mirror, then on the hub or in its
    cache, from where what is lacking is downloaded. Its fingerprint belongs to the judge's key.

    Args:
        recipe: of kind vllm or reward.
        folder: of the judge's YAML file, which a directory is relative to.
        mirrors: the first that has the model wins.
        allow_pickle: accept weights that are only there in pickled form.
        trust_remote_code: accept a model that brings its own Python.

    Raises:
        JudgeError: it is not to be had, or cannot be used; the message says what to do.
    """
    path = _local(recipe, folder, mirrors)
    if path is None:
        further = [
            name for name, ok in (("*.bin", allow_pickle), ("*.py", trust_remote_code)) if ok
        ]
        path = _download(recipe, [*NEEDED, *further])
    found = read_checkpoint(path, allow_pickle=allow_pickle, allow_remote_code=trust_remote_code)
    if found.state != "ready":
        raise JudgeError(f"{recipe.judge}: {path}: {found.reason}")
    return replace(found, name=str(recipe.model))


def special_words(tokenizer: Any) -> list[str]:
    """Texts that a tokenizer takes as one token with a meaning of its own, as the end of a turn."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*added, *tokenizer.all_special_tokens})


def _local(recipe: JudgeRecipe, folder: Path, mirrors: Sequence[Path]) -> Path | None:
    """The directory that `model` names; None where it can only be an id on the hub."""
    model = str(recipe.model)
    path = folder / Path(model).expanduser()
    if path.is_dir():
        return path
    if not ID.fullmatch(model) or ".." in model:
        raise JudgeError(
            f"{recipe.judge}: model: {path} is not a directory, and {model!r} is no id of a model "
            "(name, or owner/name)"
        )
    for mirror in mirrors:
        if not mirror.is_dir():
            raise JudgeError(f"{mirror}: no such mirror directory (--mirror or PREFBENCH_MIRROR)")
        if (mirror / MIRRORED / model).is_dir():
            return mirror / MIRRORED / model
    return None


def _download(recipe: JudgeRecipe, patterns: Sequence[str]) -> Path:
    """The directory in the hub's cache that holds the model at the recipe's commit."""
    model, revision = str(recipe.model), recipe.revision
    elsewhere = f"or put the model into a mirror as {MIRRORED}/{model} (--mirror)"
    if not revision:
        raise JudgeError(
            f"{recipe.judge}: model: {model} is neither a directory nor in a mirror, and from the "
            "hub it needs a revision, or its weights could change under its verdicts: add "
            f"`revision: <commit>` from https://huggingface.co/{model}/commits/main, {elsewhere}"
        )
    if not COMMIT.fullmatch(revision):
        raise JudgeError(
            f"{recipe.judge}: revision: {revision!r} can move: give the commit, 40 hex digits, "
            f"from https://huggingface.co/{model}/commits/{revision}"
        )
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            model,
            revision=revision,
            allow_patterns=list(patterns),
            # The same weights for other libraries are in folders of their own.
            ignore_patterns=[f"*/{pattern}" for pattern in patterns if pattern != "*.jinja"],
        )
    except Exception as error:  # the hub's client raises what its HTTP library does, too
        offline = " (offline)" if is_offline() else ""
        said = next(iter(str(error).splitlines()), "")
        raise JudgeError(
            f"{recipe.judge}: {model}@{revision[:12]} is neither a directory nor in a mirror, and "
            f"not to be had from the hub{offline}: {type(error).__name__}: {said}; download it "
            f"where there is a network (`hf download {model} --revision {revision}`), {elsewhere}"
        ) from error
    return Path(found)
