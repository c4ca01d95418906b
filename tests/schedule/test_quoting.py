"""Any name of a directory comes out as it went in, through each format and its real reader."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path, PurePath

import pytest
import yaml
from hypothesis import example, given, settings, strategies

from prefbench.errors import InputError
from prefbench.schedule.github import write_github
from prefbench.schedule.quoting import for_cron, for_shell, for_systemd, setting, whole_line
from prefbench.schedule.slurm import write_slurm
from tests.schedule.jobs import HARD, NAMES, command_of_cron, evaluated, job, words_of_shell

LISTS = strategies.lists(NAMES, min_size=1, max_size=12)
often = settings(derandomize=True, deadline=None, max_examples=60)


@often
@given(LISTS)
@example(HARD)
def test_shell(names: list[str]) -> None:
    assert words_of_shell(for_shell(names)) == names
    assert shlex.split(for_shell(names)) == names


@often
@given(LISTS)
@example(HARD)
def test_cron(names: list[str]) -> None:
    line = f"0 3 * * * {for_cron(names)}"
    for two_are_one in (False, True):
        assert words_of_shell(command_of_cron(line, two_are_one=two_are_one)) == names


@settings(derandomize=True, deadline=None, max_examples=30)
@given(LISTS)
@example(HARD)
def test_systemd(names: list[str]) -> None:
    """By systemd's own account of a unit: the words of its command, and the paths it may write."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here: apt-get install systemd")
    paths = [f"/{PurePath(name)}" for name in names]
    unit = [
        "[Service]",
        "Type=oneshot",
        f"WorkingDirectory={whole_line('it', '/srv/50% of')}",
        f"ExecStart={for_systemd(['/usr/bin/env', *names])}",
        *(f"ReadWritePaths={setting(path)}" for path in paths),
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.service"
        file.write_text("\n".join(unit), encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", str(file)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "SYSTEMD_LOG_LEVEL": "debug", "LC_ALL": "C.UTF-8"},
        )
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    (command,) = [line for line in lines if line.startswith("Command Line: ")]
    # `$$` becomes `$` only when the program starts; a single one would be a variable.
    words = words_of_shell(command.partition(": ")[2])[1:]
    assert all("$" not in word.replace("$$", "") for word in words)
    assert [word.replace("$$", "$") for word in words] == names
    assert "WorkingDirectory: /srv/50% of" in lines
    (writable,) = [line for line in lines if line.startswith("ReadWritePaths: ")]
    assert writable.partition(": ")[2] == " ".join(paths).strip()


@pytest.mark.parametrize("path", [" a", "a ", "a\\"])
def test_what_systemd_would_lose_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="systemd cannot hold"):
        whole_line("the working directory", path)


def test_a_program_that_systemd_would_not_find() -> None:
    with pytest.raises(InputError, match=r"a \$ in its path"):
        for_systemd(["/opt/$x/python", "-m"])


@often
@given(LISTS)
@example(HARD)
def test_workflow(names: list[str]) -> None:
    made = write_github(job(python="python", runs=tuple(map(PurePath, names))))
    steps = yaml.safe_load(made["prefbench.yml"])["jobs"]["measure"]["steps"]
    command = next(step for step in steps if step.get("id") == "measure")["run"]
    words = words_of_shell(evaluated(command), "bash")
    assert words[words.index("--") + 1 :] == [str(PurePath(name)) for name in names]


def test_scrontab_names_the_script() -> None:
    made = write_slurm(job(), script=PurePath("/srv/it's %j $x/prefbench.sbatch"))
    line = made["prefbench.scrontab"].splitlines()[-1]
    fields, words = line.split()[:5], words_of_shell(line.split(None, 5)[5])
    assert fields == ["0", "3", "*", "*", "*"]
    # Unlike cron, scrontab hands on the line as it is.
    assert words == ["exec", "bash", "--", "/srv/it's %j $x/prefbench.sbatch", "by-the-clock"]
