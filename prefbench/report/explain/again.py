"""The command that makes a number again, from what its cell's manifest says."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prefbench.errors import PrefbenchError
from prefbench.records import ROUND_ROBIN
from prefbench.report.explain.behind import Behind
from prefbench.report.layout import plain

PLACEHOLDER = "DIR"
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_OPTIONS: Mapping[str, str] = {
    "limit": "--limit",
    "max_length": "--max-length",
    "batch_size": "--batch-size",
    "base_url": "--base-url",
    "served_model": "--served-model",
}
"""Settings that are passed where they are set."""
_DEFAULTS: Mapping[str, tuple[Any, str]] = {
    "chat_template": ("auto", "--chat-template"),
    "dtype": ("auto", "--dtype"),
    "device": ("auto", "--device"),
    "tensor_parallel_size": (1, "--tensor-parallel-size"),
    "server_api": ("completions", "--server-api"),
    "trust_remote_code": (False, "--trust-remote-code"),
    "allow_pickle": (False, "--allow-pickle"),
}
"""Settings that are passed where they are not the default. Others do not change a number."""


class Again(NamedTuple):
    """A command line, word by word, and what somebody who calls it must know.

    No words where no command makes the number.
    """

    words: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """As a shell takes it; holds nothing that steers a terminal."""
        return " ".join(map(_quoted, self.words))


def again(behind: Behind, *, mirrors: Sequence[Path] = ()) -> Again:
    """The command that measures a number's cell in a results directory of its own.

    Args:
        behind: the number.
        mirrors: local directories with the data, where the manifest does not know them.
    """
    manifest = behind.manifest
    if "settings" not in manifest:
        return Again((), ("it was imported, not measured here: no command makes it again",))
    remarks: list[str] = []
    paths = [Path(manifest["checkpoint"]["path"])]
    opponent = list(_opponents(behind, paths))
    folders = _said(manifest["command"], "--task-folder")
    words = ["prefbench", "run", *map(str, paths)]
    if not any(path.name.startswith("checkpoint-") for path in paths):
        words.append("--final")
    # Not the manifest's: several tasks may share one cell.
    words += ["--task", behind.column.group.task]
    words += _settings(manifest)
    words += _reference(manifest)
    words += opponent
    if behind.judging:
        words += _judge(behind.judging, manifest["command"], remarks)
    words += _task_folders(manifest, folders, remarks)
    words += _mirrors(behind, mirrors, remarks)
    words += ["--results", "again"]
    gone = [str(path) for path in paths if not path.is_dir()]
    remarks += [f"{path} is not here any more" for path in gone]
    return Again(tuple(words), tuple(remarks))


def _settings(manifest: Mapping[str, Any]) -> Iterator[str]:
    settings, identity = manifest["settings"], manifest["identity"]
    # A suite may have set a lower limit, and `auto` may find another engine elsewhere.
    for name, value in {**settings, "limit": identity["limit"]}.items():
        if name in _OPTIONS and value is not None:
            yield from (_OPTIONS[name], str(value))
        elif name in _DEFAULTS and value != _DEFAULTS[name][0]:
            option = _DEFAULTS[name][1]
            yield from (option,) if value is True else (option, str(value))
    yield from ("--engine", identity["engine"])
    if identity["fewshot"] == "parity":
        yield from ("--fewshot", "parity")
    if (variable := settings["api_key_env"]) and _VARIABLE.fullmatch(variable):
        yield from ("--api-key-env", variable)


def _reference(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Where what it was tuned from is, for whoever calls it in another place."""
    beside = (manifest.get("analysis") or {}).get("reference") or manifest.get("beside")
    if beside:
        yield from ("--reference", str(beside["path"]))


def _opponents(behind: Behind, paths: list[Path]) -> Iterator[str]:
    """Whom to judge against; puts its path, or the paths of all others, to the paths to run."""
    judging = behind.judging
    if not judging:
        return
    if behind.pairs:
        rows = {row.name: row.path for row in behind.board.rows}
        paths += [rows[other] for other in behind.pairs if other in rows]
        yield from ("--opponent", ROUND_ROBIN)
        return
    theirs = behind.manifest_of("opponent_answers")
    if theirs is None:
        yield from ("--opponent", judging["opponent"])
        return
    path = Path(theirs["checkpoint"]["path"])
    if path == paths[0]:
        yield from ("--opponent", path.name)
    elif path.name != paths[0].name:
        paths.append(path)
        yield from ("--opponent", f"{path.name}/{path.name}")  # as rows of several roots are named
    else:
        common = Path(os.path.commonpath([path, paths[0]]))
        paths[:] = [common]
        yield from ("--opponent", path.relative_to(common).as_posix())


def _judge(judging: Mapping[str, Any], command: Sequence[str], remarks: list[str]) -> Iterator[str]:
    """Who is to judge: by name, with what differs from the judge that has that name today."""
    from prefbench.judges.recipe import load_judges

    name, recipe = judging["judge"]["name"], judging["judge"]["recipe"]
    yield from ("--judge", name)
    folders = _said(command, "--judge-folder")
    try:
        known = load_judges([Path(folder) for folder in folders]).get(name)
    except PrefbenchError:
        known = None
    if known is None and not folders:
        folders = [PLACEHOLDER]
        remarks.append(f"{PLACEHOLDER} of --judge-folder: the folder with the YAML file of {name}")
    for folder in folders:
        yield from ("--judge-folder", folder)
    if known and recipe["model"] != known.recipe.model:
        yield from ("--judge-model", f"{name}={recipe['model']}")
    endpoint = recipe["endpoint"]
    usual = known.recipe.endpoint if known else None
    if usual and endpoint and endpoint["base_url"] != usual.base_url:
        yield from ("--judge-base-url", endpoint["base_url"])
    if judging["sure"]:
        yield "--stop-when-sure"


def _task_folders(
    manifest: Mapping[str, Any], folders: Sequence[str], remarks: list[str]
) -> Iterator[str]:
    """Where the task's file is, unless it is a shipped one; says so if it is not the same today."""
    from prefbench.tasks import load_tasks, tasks_folder

    name = manifest["task"]["name"]
    for folder in folders:
        yield from ("--task-folder", folder)
    try:
        found = load_tasks([name], [tasks_folder(), *map(Path, folders)])
    except PrefbenchError:
        if not folders:
            yield from ("--task-folder", PLACEHOLDER)
        remarks.append(f"the task {name} is not found here: --task-folder names where its file is")
        return
    if all(task.definition != manifest["identity"]["task"] for task, _ in found):
        remarks.append(
            f"the definition of {name}, or lm-eval's version, has changed since: this command "
            "measures today's, in another cell"
        )


def _mirrors(behind: Behind, given: Sequence[Path], remarks: list[str]) -> Iterator[str]:
    manifest = behind.manifest
    command = manifest["command"]
    found = [*map(str, given), *_said(command, "--mirror")]
    if not found and command[1:2] == ["demo"]:
        beside = behind.results.resolve().parent / "data"
        found = [str(beside)] if beside.is_dir() else []
    if not found and manifest["data"]["from"] == "files":
        found = [PLACEHOLDER]
        remarks.append(
            f"{PLACEHOLDER} of --mirror: the local directory with {manifest['data']['title']}, "
            "where PREFBENCH_MIRROR does not name it"
        )
    for folder in dict.fromkeys(found):
        yield from ("--mirror", folder)


def _said(command: Sequence[str], option: str) -> list[str]:
    """What a recorded command line gives for an option, each time that it does."""
    found = []
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word == option and following:
            found.append(following)
        elif word.startswith(f"{option}="):
            found.append(word.partition("=")[2])
    return found


def _quoted(word: str) -> str:
    """A word as a shell takes it; one that could steer a terminal in its ANSI-C form."""
    if plain(word) == word:
        return shlex.quote(word)
    body = "".join(
        c if plain(c) == c and c not in "\\'" else "".join(f"\\x{b:02x}" for b in c.encode())
        for c in word
    )
    return f"$'{body}'"
