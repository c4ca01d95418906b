"""The verb `schedule`: a unit for cron, systemd, Slurm or GitHub that measures on its own."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from prefbench.report.options import Mirrors, Results

EXAMPLES = (
    "Examples: prefbench schedule --cron runs/ --gate policy.yaml · "
    'prefbench schedule --systemd runs/ --at "0 3 * * *" --env-file keys.env --out units/ · '
    "prefbench schedule --slurm runs/ --mirror data/ --after 12345 --slurm-option=--gpus=1 "
    "--slurm-option=--time=08:00:00 --out . · "
    "prefbench schedule --github runs/ --gate policy.yaml --key-env OPENAI_API_KEY"
)


def schedule(
    directories: Annotated[list[Path], typer.Argument(help="Directories of trained checkpoints.")],
    cron: Annotated[bool, typer.Option("--cron", help="A crontab line.")] = False,
    systemd: Annotated[bool, typer.Option("--systemd", help="A service and its timer.")] = False,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="A batch script, and a block for scrontab.")
    ] = False,
    github: Annotated[bool, typer.Option("--github", help="A workflow of GitHub Actions.")] = False,
    suite: Annotated[list[str], typer.Option("--suite", help="Suite to run [paper].")] = [],  # noqa: B006  # typer's way
    task: Annotated[
        list[str], typer.Option("--task", help="Task to run; several may be given.")
    ] = [],  # noqa: B006
    results: Results = Path("results"),
    mirror: Mirrors = [],  # noqa: B006
    every: Annotated[
        str | None, typer.Option(help="15m, 1h, 6h, 1d, …: what divides hour or day evenly [1h].")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help='Cron\'s five fields instead: "0 3 * * *".')
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(help="Policy of the gate that follows; else none does.")
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(help="File with lines NAME=value, such as keys; named, never read here."),
    ] = None,
    key_env: Annotated[
        list[str],
        typer.Option(
            "--key-env",
            help="Environment variable that holds a key, which must be set; on GitHub, the secret.",
        ),
    ] = [],  # noqa: B006
    run_option: Annotated[
        list[str],
        typer.Option(
            "--run-option",
            help="Option of `prefbench run`, in one word: --run-option=--engine=hf.",
        ),
    ] = [],  # noqa: B006
    offline: Annotated[
        bool | None,
        typer.Option("--offline/--online", help="Never ask the hub [offline with --mirror]."),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the unit and its files.")] = "prefbench",
    after: Annotated[
        str | None, typer.Option(help="Slurm: start when this job, such as training, has ended.")
    ] = None,
    slurm_option: Annotated[
        list[str],
        typer.Option("--slurm-option", help="Of sbatch: --slurm-option=--partition=gpu."),
    ] = [],  # noqa: B006
    user: Annotated[str | None, typer.Option(help="systemd: who it runs as [you].")] = None,
    runner: Annotated[
        str | None, typer.Option(help="GitHub: label of the machine [ubuntu-latest].")
    ] = None,
    requirements: Annotated[
        str | None,
        typer.Option(
            help="GitHub: the repository's file that names prefbench, for pip [requirements.txt]."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the files to, instead of printing them.")
    ] = None,
) -> None:
    """Print a unit that measures what is missing, and then asks the gate, by the clock.

    Turns never run at the same time, and what one did not finish the next goes on with. Keys are
    never written: only the names of variables.
    """
    from prefbench.buckets.places import cache as cache_of
    from prefbench.buckets.places import working_copy
    from prefbench.errors import InputError
    from prefbench.schedule import times
    from prefbench.schedule.crontab import write_crontab
    from prefbench.schedule.github import write_github
    from prefbench.schedule.jobs import Job
    from prefbench.schedule.slurm import write_slurm
    from prefbench.schedule.systemd import write_systemd

    wanted = {"cron": cron, "systemd": systemd, "slurm": slurm, "github": github}
    if list(wanted.values()).count(True) != 1:
        raise InputError("say one of --cron, --systemd, --slurm and --github")
    if every is not None and at is not None:
        raise InputError("--every and --at both say when: leave one out")
    _refuse_what_is_not_used(
        next(kind for kind, asked in wanted.items() if asked),
        {
            "--after": (after is not None, "slurm"),
            "--slurm-option": (bool(slurm_option), "slurm"),
            "--user": (user is not None, "systemd"),
            "--runner": (runner is not None, "github"),
            "--requirements": (requirements is not None, "github"),
        },
    )
    _check([*suite, *task], None if github else gate, run_option)

    def place(path: Path) -> Path:
        # On GitHub paths are the repository's, wherever this one lies. Links stay links.
        return path if github else Path(os.path.abspath(path))  # noqa: PTH100

    copy = working_copy(results)
    if copy and github:
        raise InputError(
            f"--github keeps results in GitHub's own cache, not at {copy.url}: leave --results out"
        )
    kept = str(cache_of(os.environ)) if copy and os.environ.get("PREFBENCH_CACHE") else None
    job = Job(
        python="python" if github else sys.executable,
        folder=Path() if github else Path.cwd(),
        runs=tuple(map(place, directories)),
        results=place(results),
        timing=times.at(at) if at is not None else times.every(every or "1h"),
        suites=tuple(suite),
        tasks=tuple(task),
        mirrors=tuple(map(place, mirror)),
        policy=place(gate) if gate is not None else None,
        env_file=place(env_file) if env_file is not None else None,
        key_variables=tuple(key_env),
        run_options=tuple(run_option),
        offline=bool(mirror) if offline is None else offline,
        name=name,
        address=copy.url if copy else None,
        cache=kept,
    )
    if cron:
        texts = write_crontab(job)
    elif systemd:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
        texts = write_systemd(job, user=user or getpass.getuser(), cache=cache)
    elif slurm:
        script = place((out or Path()) / f"{job.name}.sbatch")
        texts = write_slurm(job, script=script, after=after, options=tuple(slurm_option))
    else:
        texts = write_github(
            job,
            requirements=requirements or "requirements.txt",
            runner=runner or "ubuntu-latest",
        )
    _warn_of_readable(env_file)
    if out is None:
        _show(texts)
    else:
        _write(texts, out)


def _refuse_what_is_not_used(kind: str, options: dict[str, tuple[bool, str]]) -> None:
    """An option that would be left out without a word."""
    from prefbench.errors import InputError

    for option, (given, its) in options.items():
        if given and its != kind:
            raise InputError(f"{option} belongs to --{its}")


def _check(names: list[str], policy: Path | None, run_options: list[str]) -> None:
    """Says now what would fail at night: an unknown task, a policy that cannot be read."""
    if policy is not None:
        from prefbench.gate.policies import read_policy

        read_policy(policy)
    if names and not any(option.startswith("--task-folder") for option in run_options):
        from prefbench.tasks import load_tasks, tasks_folder

        load_tasks(names, [tasks_folder()])


def _warn_of_readable(env_file: Path | None) -> None:
    """A file of keys that others may read is worth a line; it may lie on another machine yet."""
    from prefbench.report.layout import plain

    try:
        readable = env_file is not None and env_file.stat().st_mode & 0o077
    except OSError:
        return
    if readable:
        print(plain(f"{env_file}: others may read it; chmod 600 it"), file=sys.stderr)


def _show(texts: Mapping[str, str]) -> None:
    """One after the other, with a comment between them."""
    for n, (name, text) in enumerate(texts.items()):
        print((f"\n# ----- {name}\n" if n else "") + text, end="")


def _write(texts: Mapping[str, str], folder: Path) -> None:
    from prefbench.errors import InputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
            print(folder / name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
