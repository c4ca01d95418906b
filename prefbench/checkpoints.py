"""The checkpoints under a directory: what each is, and whether it can be measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from prefbench.errors import CheckpointError
from prefbench.fingerprints import fingerprint
from prefbench.provenance import canonical_method, locate, run_folder, trace
from prefbench.records import Checkpoint, State
from prefbench.weights import IncompleteError, Weights, read_json, read_weights

__all__ = ["canonical_method", "find_checkpoints", "locate", "read_checkpoint", "tokenizer_folder"]

CHECKED_JSON = (
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "trainer_state.json",
)
TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
TOKENIZER_FILES = (
    *(name for names in TOKENIZERS for name in names),
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
WEIGHT_NAMES = re.compile(
    r"adapter_config\.json|(adapter_)?model.*\.safetensors(\.index\.json)?"
    r"|(pytorch|adapter)_model.*\.bin(\.index\.json)?|(policy|model)\.pt|consolidated.*\.pth"
)
TEMPORARY = re.compile(r"tmp-checkpoint-\d+|.*\.tmp")


class _Scan(NamedTuple):
    """What holds for every checkpoint of one scan."""

    root: Path
    allow_pickle: bool
    allow_remote_code: bool
    cache: Path | None


def find_checkpoints(
    root: Path,
    *,
    allow_pickle: bool = False,
    allow_remote_code: bool = False,
    cache: Path | None = None,
) -> list[Checkpoint]:
    """Every checkpoint under a directory, the broken ones with the reason, in natural order.

    Args:
        root: a directory of runs or models; a run; or a single checkpoint.
        allow_pickle: accept weights that are only there in pickled form.
        allow_remote_code: accept checkpoints that bring their own Python.
        cache: where file hashes are kept; None is the user's cache directory.
    """
    if not root.is_dir():
        raise CheckpointError(f"{root} is not a directory: name one that holds checkpoints")
    root = root.resolve()
    scan = _Scan(root, allow_pickle, allow_remote_code, cache)
    folders = list(_candidates(root))
    inside_run = any(folder == root or run_folder(folder) == root for folder in folders)
    top = root.parent if inside_run else root
    found = [_read(folder, folder.relative_to(top).as_posix(), scan) for folder in folders]
    return sorted(found, key=lambda checkpoint: _natural(checkpoint.name))


def read_checkpoint(
    path: Path,
    *,
    allow_pickle: bool = False,
    allow_remote_code: bool = False,
    cache: Path | None = None,
) -> Checkpoint:
    """Describe the checkpoint in one directory from its files, without loading it.

    The arguments are those of `find_checkpoints`. The name is the directory's, after its run's.
    """
    path = path.resolve()
    top = (run_folder(path) or path).parent
    scan = _Scan(top, allow_pickle, allow_remote_code, cache)
    return _read(path, path.relative_to(top).as_posix(), scan)


def tokenizer_folder(checkpoint: Checkpoint) -> Path:
    """Where a checkpoint's tokenizer is: with it, in its run's directory, or in its base."""
    return _tokenizer_folder(checkpoint.path, checkpoint.base)


def _read(path: Path, name: str, scan: _Scan) -> Checkpoint:
    """All that could be learnt, and the first reason against the checkpoint if there is one."""
    path = path.resolve()
    facts: dict[str, Any] = {}
    state: State = "ready"
    reason = None
    try:
        _describe(facts, path, name, scan)
    except IncompleteError as error:
        state, reason = "incomplete", str(error)
    except CheckpointError as error:
        state, reason = "refused", str(error)
    except FileNotFoundError as error:  # a trainer may be deleting it
        state, reason = "incomplete", f"vanished while it was read: {error}"
    except OSError as error:
        state, reason = "refused", f"cannot be read: {error}"
    return Checkpoint(name=name, path=path, state=state, reason=reason, **facts)


def _describe(facts: dict[str, Any], path: Path, name: str, scan: _Scan) -> None:
    """Fill in what Checkpoint says of a directory; raise at the first thing against it."""
    present = {file.name for file in path.iterdir() if file.is_file()}
    run = run_folder(path)
    names = [*reversed(Path(name).parts), path.name, *([run.name] if run else [])]
    known = trace(path, names=names, places=[path, run or path, scan.root, scan.root.parent])
    facts |= {**known.facts, "origins": known.origins}
    if TEMPORARY.fullmatch(path.name):
        raise IncompleteError("still being written, or left by a run that was stopped")
    adapter = facts["adapter"] = "adapter_config.json" in present
    contents = {file: read_json(path / file) for file in CHECKED_JSON if file in present}
    facts["architecture"] = _architecture(contents.get("config.json", {}))
    own_code = _own_code(contents)
    if own_code and not scan.allow_remote_code:
        raise CheckpointError(
            f"{own_code} asks to run Python of its own: read that code, then pass "
            "--trust-remote-code"
        )
    weights = read_weights(path, adapter=adapter, allow_pickle=scan.allow_pickle)
    facts |= {
        "n_bytes": weights.n_bytes,
        "n_parameters": weights.n_parameters,
        "dtype": weights.dtype,
    }
    marks: dict[str, str] = {}
    if adapter:
        base = _base(facts.get("base"), scan)
        facts["architecture"] = base.architecture
        settings = contents["adapter_config.json"]
        settings.pop("base_model_name_or_path", None)  # the base counts, not where it is
        marks = {"base": base.fingerprint, "adapter": json.dumps(settings, sort_keys=True)}
    elif "config.json" not in present:
        raise IncompleteError("config.json is missing")
    tokenizer = _tokenizer_folder(path, facts.get("base"))
    files = _content(path, tokenizer, weights, python=own_code is not None)
    facts["fingerprint"] = fingerprint(files, facts=marks, cache=scan.cache)


def _base(where: str | None, scan: _Scan) -> Checkpoint:
    """The full weights an adapter needs, which must be here and whole themselves."""
    if where is None:
        raise IncompleteError("adapter_config.json names no base_model_name_or_path")
    path = Path(where)
    if not (path.is_absolute() and path.is_dir()):
        raise IncompleteError(
            f"its base {where} is not on this machine: download it, or name its directory "
            "as base in prefbench.yaml"
        )
    if (path / "adapter_config.json").is_file():
        raise IncompleteError(f"its base {where} is an adapter itself: merge that one first")
    base = _read(path, path.name, scan)
    if base.state == "incomplete":
        raise IncompleteError(f"its base {where}: {base.reason}")
    if base.state == "refused":
        raise CheckpointError(f"its base {where}: {base.reason}")
    return base


def _own_code(contents: dict[str, dict[str, Any]]) -> str | None:
    """The file that asks for code from the checkpoint, or None."""
    for name, content in contents.items():
        if content.get("auto_map") or content.get("custom_pipelines"):
            return name
    return None


def _tokenizer_folder(path: Path, base: str | None) -> Path:
    run = run_folder(path)
    for folder in (path, run, Path(base) if base else None):
        if folder and any(all((folder / name).is_file() for name in kind) for kind in TOKENIZERS):
            _check_end(folder / "tokenizer.json")
            return folder
    raise IncompleteError("no tokenizer: tokenizer.json is missing")


def _check_end(path: Path) -> None:
    """That a tokenizer was written to its end; parsing many megabytes for that would take long."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        if not file.read().rstrip().endswith(b"}"):
            raise IncompleteError(f"{path.name} is cut off")


def _content(path: Path, tokenizer: Path, weights: Weights, *, python: bool) -> dict[str, Path]:
    """The files that decide a checkpoint's answers, by the name they count under."""
    files = {file.name: file for file in weights.files}
    for name in ("config.json", "generation_config.json"):
        files[name] = path / name
    for name in TOKENIZER_FILES:
        files[name] = tokenizer / name
    for file in tokenizer.glob("additional_chat_templates/*.jinja"):
        files[f"additional_chat_templates/{file.name}"] = file
    if python:
        files |= {file.name: file for file in path.glob("*.py")}
    return {name: file for name, file in files.items() if file.is_file()}


def _architecture(config: dict[str, Any]) -> str | None:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else None


def _candidates(root: Path) -> Iterator[Path]:
    """Directories that hold a checkpoint or cannot be read; each once, by its own path first.

    Links are followed after everything else, so that a link to a checkpoint under root is seen to
    be that checkpoint. A link to a directory around root is not: it leads to what nobody named.
    """
    seen: set[Path] = set(root.parents)
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        try:
            inside = list(folder.iterdir())
            holds = _is_checkpoint(folder, {path.name for path in inside})
            below = [path for path in inside if path.is_dir() and not path.name.startswith(".")]
        except OSError:
            yield folder  # reading it will say what is wrong
            continue
        if holds:
            yield folder
        if run_folder(folder):
            continue
        for path in sorted(below, key=lambda path: _natural(path.name)):
            (links if path.is_symlink() else folders).append(path)


def _is_checkpoint(folder: Path, names: set[str]) -> bool:
    if any(WEIGHT_NAMES.fullmatch(name) for name in names):
        return True
    if "config.json" not in names or not (folder / "config.json").is_file():
        return False
    try:
        return "model_type" in read_json(folder / "config.json")
    except IncompleteError:
        return True


def _natural(name: str) -> list[Any]:
    """A sort key that puts checkpoint-9 before checkpoint-10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]
