"""Slurm's commands as submitit uses them, for jobs that are processes of this machine.

`write_commands` writes sbatch, srun, sacct and scancel into a folder. They queue nothing and
know no limits: they hold the way of a job through submitit, its files and its states, not what a
cluster does.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

VERBS = ("sbatch", "srun", "sacct", "scancel")


def write_commands(folder: Path) -> None:
    """The commands, each a line that comes back to this file."""
    folder.mkdir(parents=True)
    for verb in VERBS:
        command = folder / verb
        command.write_text(
            f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} {folder} {verb} "$@"\n'
        )
        command.chmod(0o755)


def sbatch(folder: Path, script: str) -> None:
    """Starts a job, or all of an array, and says its number."""
    text = Path(script).read_text()
    number = 1000 + len(list(folder.glob("job-*")))
    found = re.search(r"^#SBATCH --array=0-(\d+)", text, re.MULTILINE)
    tasks = [f"{number}_{i}" for i in range(int(found[1]) + 1)] if found else [str(number)]
    (folder / f"job-{number}").write_text(text)
    for task in tasks:
        i = task.partition("_")[2]
        array = {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": i} if i else {}
        ended = folder / f"task-{task}.ended"
        process = subprocess.Popen(
            ["sh", "-c", f'bash "$0"; echo $? > {ended}', script],
            env={
                **os.environ,
                **array,
                "SLURM_JOB_ID": str(number),
                "SLURM_NTASKS": "1",
                "SLURM_JOB_NUM_NODES": "1",
                "SLURM_NODEID": "0",
                "SLURM_PROCID": "0",
                "SLURM_LOCALID": "0",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        (folder / f"task-{task}").write_text(str(process.pid))
    print(f"Submitted batch job {number}")


def srun(folder: Path, *words: str) -> None:
    """Runs a command in the job that this is."""
    rest, files = list(words), {}
    while rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("--output", "--error"):
            files[option] = rest.pop(0)
    patterns = {
        "%A": os.environ.get("SLURM_ARRAY_JOB_ID", ""),
        "%a": os.environ.get("SLURM_ARRAY_TASK_ID", ""),
        "%j": os.environ["SLURM_JOB_ID"],
        "%t": "0",
    }
    for option, number in (("--output", 1), ("--error", 2)):
        name = re.sub("%.", lambda found: patterns[found[0]], files[option])
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.execvp(rest[0], rest)


def sacct(folder: Path, *words: str) -> None:
    """The states of jobs."""
    print("JobID|State|NodeList")
    for file in folder.glob("task-*"):
        if file.suffix != ".ended":
            print(f"{file.name.removeprefix('task-')}|{state(folder, file)}|here")


def state(folder: Path, file: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return "COMPLETED" if int((folder / f"{file.name}.ended").read_text()) == 0 else "FAILED"
    try:
        os.kill(int(file.read_text()), 0)
    except ProcessLookupError:
        return "NODE_FAIL"
    return "RUNNING"


def scancel(folder: Path, *jobs: str) -> None:
    for job in jobs:
        for file in [*folder.glob(f"task-{job}"), *folder.glob(f"task-{job}_?")]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(file.read_text()), signal.SIGKILL)


if __name__ == "__main__":
    place, verb, *rest = sys.argv[1:]
    {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scancel": scancel}[verb](Path(place), *rest)
