"""A job whose interpreter is a script that tells what it was called with, and reading that."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path, PurePath
from typing import Any

from hypothesis import strategies

from prefbench.schedule.jobs import Job
from prefbench.schedule.times import at

SPECIAL = "'\"\\%$`{}[]()*?#!;&|~-=:@<>,.^ aZ0ä€"
NAMES = strategies.one_of(
    strategies.text(SPECIAL, min_size=1, max_size=24),
    strategies.text(
        strategies.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/"),
        min_size=1,
        max_size=24,
    ),
)
HARD = ['it\'s a "run"', "50%", "\\%", "\\\\%h", "$HOME", "${{ secrets.KEY }}", "-x", "a b ", "%%"]

RECORDER = """\
#!/bin/bash
echo "$PWD" >>"{told}.folder"
printf '%s\\0' "$@" >>"{told}"
printf '\\n\\0' >>"{told}"
env >>"{told}.environment"
{then}
"""


def job(**more: Any) -> Job:
    usual: dict[str, Any] = {
        "python": "/opt/venv/bin/python",
        "folder": PurePath("/srv"),
        "runs": (PurePath("/srv/runs"),),
        "results": PurePath("/srv/results"),
        "timing": at("0 3 * * *"),
    }
    return Job(**usual | more)


def recorder(folder: Path, then: str = "") -> Path:
    """A program that tells its arguments in `told` beside it, and then does something."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "python"
    program.write_text(RECORDER.format(told=folder / "told", then=then))
    program.chmod(0o755)
    return program


def told(program: Path) -> list[list[str]]:
    """The arguments of each call."""
    file = program.parent / "told"
    if not file.exists():
        return []
    calls = file.read_text().split("\0\n\0")
    return [call.split("\0") for call in calls if call]


def words_of_shell(line: str, shell: str = "sh") -> list[str]:
    """What a real shell makes of a line."""
    program = [shell, "-c", f"printf '%s\\0' {line}"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def command_of_cron(line: str, *, two_are_one: bool = False) -> str:
    r"""The command of a crontab line as cron hands it to the shell.

    Up to the first `%` without a backslash before it; `\%` is `%`. A backslash behind a backslash
    stays (cronie, ISC cron), or both are one (some older ones).
    """
    command = line.split(None, 5)[5].rstrip("\n")
    read, escaped = "", False
    for letter in command:
        if escaped:
            if letter == "%" or (two_are_one and letter == "\\"):
                read = read[:-1]
            read += letter
            escaped = False
        elif letter == "%":
            break
        else:
            read += letter
            escaped = letter == "\\"
    return read


def evaluated(text: str) -> str:
    """Text as Actions hands it on, of expressions only literals."""
    found = re.sub(r"\$\{\{ '((?:[^']|'')*)' \}\}", lambda one: "\0" + one[1] + "\0", text)
    assert "${{" not in re.sub("\0[^\0]*\0", "", found), "an expression would be evaluated"
    return found.replace("\0", "")
