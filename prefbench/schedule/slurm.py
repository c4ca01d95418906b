"""A Slurm batch script, and the scrontab block that starts it by the clock."""

from __future__ import annotations

import re
from pathlib import PurePath

from prefbench.errors import InputError
from prefbench.schedule.jobs import Job, refuse_breaks, refuse_keys
from prefbench.schedule.quoting import for_shell

_JOB_ID = re.compile(r"\d+(_\d+)?")
# What needs no quotes: sbatch has rules of its own for them.
_OPTION = re.compile(r"--[a-z][a-z-]*(=[\w.,:/@+=-]*)?", re.ASCII)
OURS = ("job-name", "output", "open-mode", "requeue", "no-requeue", "signal", "dependency", "array")
SECONDS = 120
"""Between the signal and the limit."""
N_REQUEUES = 50

SCRIPT = """\
set -u
stopped=
child=
# USR1 comes before the time limit, TERM by scancel or preemption; both end prefbench by TERM.
stop() {
    stopped=$1
    if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; fi
}
trap 'stop limit' USR1
trap 'stop ended' TERM
step() {
    if [ -n "$stopped" ]; then return 143; fi
    "$@" &
    child=$!
    if [ -n "$stopped" ]; then kill -TERM "$child"; fi
    wait "$child"
    local code=$?
    # A signal ends the first wait, not the child.
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        code=$?
    done
    child=
    if [ -n "$stopped" ]; then return 143; fi
    return "$code"
}
"""


def write_slurm(
    job: Job, *, script: PurePath, after: str | None = None, options: tuple[str, ...] = ()
) -> dict[str, str]:
    """The script, to be submitted by hand or by scrontab.

    It gets SIGUSR1 before its time limit, ends prefbench by SIGTERM and queues itself again, as the
    next turn goes on where this one stopped. One job of its name runs at a time.

    Args:
        job: what to run, with absolute paths.
        script: where the script will lie, for the scrontab.
        after: a job, such as training, at whose end it may start.
        options: of sbatch: --partition=gpu, --gpus=1, --time=08:00:00.

    Raises:
        InputError: a job or an option that sbatch would not take.
    """
    if after is not None and not _JOB_ID.fullmatch(after):
        raise InputError(f"--after: {after!r:.40} is no job id of Slurm's")
    refuse_breaks("--out", script)
    refuse_keys("--slurm-option", *options)
    for option in options:
        name = option.partition("=")[0].removeprefix("--")
        if not _OPTION.fullmatch(option) or name in OURS:
            raise InputError(
                f"--slurm-option: {option!r:.80} is no long option without spaces or quotes, or "
                "one that is set here already"
            )
    return {
        f"{job.name}.sbatch": _script(job, after, options),
        f"{job.name}.scrontab": _scrontab(job, script, options),
    }


def _script(job: Job, after: str | None, options: tuple[str, ...]) -> str:
    waits = "singleton" if after is None else f"afterany:{after},singleton"
    lines = [
        "#!/bin/bash",
        f"# sbatch {job.name}.sbatch",
        f"#SBATCH --job-name={job.name}",
        f"#SBATCH --output={job.name}-%j.log",
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        f"#SBATCH --signal=B:USR1@{SECONDS}",
        f"#SBATCH --dependency={waits}",
        *(f"#SBATCH {option}" for option in options),
        "",
    ]
    setup = [
        f"cd {for_shell(['--', str(job.folder)])} || exit",
        f'export PATH={for_shell([str(PurePath(job.python).parent)])}:"$PATH"',
    ]
    if job.env_file is not None:
        file = for_shell([str(job.env_file)])
        setup += ["set -a", "# shellcheck source=/dev/null", f". {file} || exit", "set +a"]
    setup += [f': "${{{variable}:?is not set}}"' for variable in job.key_variables]
    setup += [f"export {name}={value}" for name, value in job.environment().items()]
    steps = " &&\n    ".join(f"step {for_shell(words)}" for words in job.commands())
    ending = (
        f"{steps}\n"
        "code=$?\n"
        # A job of scrontab's has its next turn anyway, and cannot be queued again by itself.
        'if [ "$stopped" = limit ] && [ "${1:-}" != by-the-clock ] &&\n'
        f'    [ "${{SLURM_RESTART_COUNT:-0}}" -lt {N_REQUEUES} ]; then\n'
        '    scontrol requeue "$SLURM_JOB_ID"\n'
        "fi\n"
        'exit "$code"\n'
    )
    return "\n".join([*lines, *setup, SCRIPT]) + ending


def _scrontab(job: Job, script: PurePath, options: tuple[str, ...]) -> str:
    """Its next turn is queued only when the one before has ended (scrontab(1)), so none pile up."""
    lines = [
        "# Add it by: scrontab -e",
        f"#SCRON --job-name={job.name}",
        f"#SCRON --output={job.name}-%j.log",
        "#SCRON --open-mode=append",
        f"#SCRON --signal=B:USR1@{SECONDS}",
        *(f"#SCRON {option}" for option in options),
        # exec: the signal goes to the process that Slurm started.
        f"{job.timing.cron} exec {for_shell(['bash', '--', str(script), 'by-the-clock'])}",
    ]
    return "\n".join(lines) + "\n"
