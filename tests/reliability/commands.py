"""Command lines of prefbench for tests that start many: killed, starved, with moved clocks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

TOP = Path(__file__).parents[2]


class Done(NamedTuple):
    """How a command ended; `code` is that of Python's subprocess: below 0 for a signal."""

    code: int
    out: str
    err: str
    seconds: float
    n_steps: int
    """Of writing, below the folder that was named."""


class Commands:
    """A process that has imported all and forks for each command, for the length of a `with`.

    Args:
        within: a command to start it by, as `unshare`; it and its children are inside then.
        env: added to its environment.
    """

    def __init__(self, *within: str, env: Mapping[str, str] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="commands-"))
        self._process = subprocess.Popen(
            [*within, sys.executable, "-m", "tests.reliability.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TOP,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )
        if not self._process.stdout or not self._process.stdout.readline():
            pytest.fail(f"{' '.join(within)}: cannot start Python so here")

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *raised: Any) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(
        self,
        *argv: object,
        killed_after: float | None = None,
        under: Path | None = None,
        at: int | str = 0,
        do: str = "kill",
        env: Mapping[str, str] | None = None,
        cwd: Path = TOP,
    ) -> Done:
        """A `prefbench` command, waited for.

        Args:
            argv: its arguments.
            killed_after: seconds after which it is ended by signal 9.
            under: a folder whose writing is counted.
            at: the step of writing at which to `do` something, by number or by its event's name.
            do: `kill`, `begin` to count `killed_after` from there, or a shell command.
            env: added to its environment.
            cwd: where it runs.
        """
        told = {name: self._folder / name for name in ("out", "err")}
        for file in told.values():
            file.write_text("")
        found = self._ask(
            {
                "argv": [str(one) for one in argv],
                "killed_after": killed_after,
                "under": str(under or self._folder),
                "at": at,
                "do": do,
                "env": dict(env or {}),
                "cwd": str(cwd),
                **{name: str(file) for name, file in told.items()},
            }
        )
        said = {name: file.read_text(errors="replace") for name, file in told.items()}
        return Done(**found, **said)

    def shell(self, command: str) -> str:
        """What a shell command says where the commands run; fails if it fails."""
        found = self._ask({"shell": command})
        if found["code"]:
            pytest.fail(f"{command}: {found['err']}")
        return str(found["out"])

    def _ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that forks commands has ended"
        found: dict[str, Any] = json.loads(line)
        return found


def sealed(results: Path) -> dict[str, bytes]:
    """All rows that count, file by file."""
    return {
        str(path.relative_to(results)): path.read_bytes()
        for folder in ("cells", "items")
        for path in sorted((results / folder).rglob("*.parquet"))
    }


def table(commands: Commands, results: Path, *options: object) -> str:
    """The table as `prefbench table` prints it."""
    done = commands.run("table", results, "--format", "csv", *options)
    assert done.code == 0, done.err
    return done.out


def named(where: Path, names: Sequence[str]) -> list[str]:
    """Paths of some checkpoints, as arguments."""
    return [str(where / name) for name in names]
