"""A crontab line."""

from __future__ import annotations

import dataclasses
from pathlib import PurePath

from prefbench.errors import InputError
from prefbench.schedule.jobs import Job, Place
from prefbench.schedule.quoting import for_cron

N_CHARACTERS = 998
"""Of a command that Debian's and Red Hat's cron still read."""


def write_crontab(job: Job) -> dict[str, str]:
    """The line, with what to know above it. For cron, cronie and their kin (`%` is special there).

    Raises:
        InputError: it gets too long for cron, or nothing would set the keys.
    """
    refuse_unset_keys(job, "cron")
    command = _command(job)
    if len(command.encode()) > N_CHARACTERS:
        raise InputError(
            f"the crontab line would have {len(command.encode())} bytes, and cron reads "
            f"{N_CHARACTERS}: shorten paths by links, or use --systemd"
        )
    file = f"{job.name}.crontab"
    text = (
        f"# Add it to yours:  (crontab -l; cat {file}) | crontab -\n"
        "# Output goes to schedule.log in the results. Where a turn fails, cron mails a line, to\n"
        "# you or to whom MAILTO=you@example.org names on a line above this one.\n"
        f"{job.timing.cron} {command}\n"
    )
    return {file: text}


def refuse_unset_keys(job: Job, whose: str) -> None:
    """Cron and systemd hand on none of a shell's variables, so a file must set those with keys.

    Raises:
        InputError: there is no file.
    """
    if job.key_variables and job.env_file is None:
        raise InputError(
            f"{whose} hands on none of your shell's variables: name a file that sets "
            f"{', '.join(job.key_variables)} by --env-file (and chmod 600 it)"
        )


def _command(job: Job) -> str:
    job = _nearby(job)
    results = str(job.results)
    steps = [
        # The lock is the kernel's: nothing stays behind after kill -9 or a crash.
        "flock -n 9 || { echo the turn before is still running; exit 0; }",
        f"python={for_cron([job.python])}",
        f'export PATH={for_cron([str(PurePath(job.python).parent)])}:"$PATH"',
    ]
    if job.env_file is not None:
        steps += ["set -a", f". {for_cron([str(job.env_file)])}", "set +a"]
    steps += [f': "${{{variable}:?}}"' for variable in job.key_variables]
    steps += [f"export {name}={value}" for name, value in job.environment().items()]
    steps.append(" && ".join(f'"$python" {for_cron(words[1:])}' for words in job.commands()))
    lock, log = (for_cron([f"{results}/schedule.{kind}"]) for kind in ("lock", "log"))
    return (
        f"cd {for_cron(['--', str(job.folder)])} && mkdir -p {for_cron(['--', results])} && "
        f"( {'; '.join(steps)} ) 9>>{lock} >>{log} 2>&1 || {{ code=$?; "
        f'echo "{job.name}: exit code $code; see schedule.log in the results"; exit $code; }}'
    )


def _nearby(job: Job) -> Job:
    """With paths from its folder on where they lie in it: a crontab's line must be short."""

    def near(place: Place) -> str:
        path = PurePath(place)
        # The point keeps a name that begins with - from being an option, and is what `.` needs.
        return f"./{path.relative_to(job.folder)}" if path.is_relative_to(job.folder) else str(path)

    return dataclasses.replace(
        job,
        runs=tuple(map(near, job.runs)),
        results=near(job.results),
        mirrors=tuple(map(near, job.mirrors)),
        policy=None if job.policy is None else near(job.policy),
        env_file=None if job.env_file is None else near(job.env_file),
    )
