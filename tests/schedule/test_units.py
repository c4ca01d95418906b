"""What the units do when they run: for a program that tells what it was called with."""

from __future__ import annotations

import fcntl
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path, PurePath
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings

from prefbench.errors import InputError
from prefbench.schedule.crontab import write_crontab
from prefbench.schedule.github import write_github
from prefbench.schedule.jobs import Job
from prefbench.schedule.slurm import write_slurm
from prefbench.schedule.systemd import write_systemd
from tests.schedule.jobs import NAMES, command_of_cron, evaluated, job, recorder, told

Done = subprocess.CompletedProcess[str]


def job_in(place: Path, *, then: str = "", **more: Any) -> Job:
    program = recorder(place / "bin", then)
    usual: dict[str, Any] = {
        "python": str(program),
        "folder": place,
        "runs": (place / "runs",),
        "results": place / "results",
        "policy": place / "policy.yaml",
    }
    return job(**usual | more)


def turn_of_cron(asked: Job) -> Done:
    """As cron starts it: by sh, with next to no environment."""
    command = command_of_cron(write_crontab(asked)["prefbench.crontab"].splitlines()[-1])
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/", "SHELL": "/bin/sh"}
    return subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=False, env=environment
    )


def script_of(asked: Job, folder: Path, **more: Any) -> Path:
    script = folder / "prefbench.sbatch"
    script.write_text(write_slurm(asked, script=script, **more)["prefbench.sbatch"])
    return script


def calls(asked: Job) -> list[list[str]]:
    return told(Path(asked.python))


def expected(asked: Job) -> list[list[str]]:
    return [words[1:] for words in asked.commands()]


def nearby(asked: Job) -> list[list[str]]:
    """The same for cron, which counts paths from the folder on."""
    return [[word.replace(f"{asked.folder}/", "./") for word in words] for words in expected(asked)]


@settings(derandomize=True, deadline=None, max_examples=25)
@given(NAMES, NAMES, NAMES)
@example("it's", "${{ 50% }}", "\\%\\\\")
def test_every_name_reaches_the_program(work: str, run: str, results: str) -> None:
    if {work, run, results} & {".", ".."}:
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / work
        folder.mkdir()
        asked = job_in(
            Path(place), folder=folder, runs=(folder / run,), results=folder / "of" / results
        )
        assert turn_of_cron(asked).returncode == 0
        script = script_of(asked, Path(place))
        subprocess.run(["bash", script], capture_output=True, check=True)
        assert calls(asked) == nearby(asked) + expected(asked)
        folders = (Path(place) / "bin" / "told.folder").read_text().splitlines()
        assert folders == [str(folder)] * 4


# --- cron


def test_cron_runs_the_gate_only_after_a_run_that_went_well(tmp_path: Path) -> None:
    asked = job_in(tmp_path, then="echo the disk is full >&2; exit 7")
    done = turn_of_cron(asked)
    assert done.returncode == 7
    assert done.stdout == "prefbench: exit code 7; see schedule.log in the results\n"
    assert calls(asked) == nearby(asked)[:1]
    assert (tmp_path / "results" / "schedule.log").read_text() == "the disk is full\n"


def test_cron_does_not_start_a_turn_beside_another(tmp_path: Path) -> None:
    asked = job_in(tmp_path)
    (tmp_path / "results").mkdir()
    with (tmp_path / "results" / "schedule.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert turn_of_cron(asked).returncode == 0
    assert calls(asked) == []
    assert "still running" in (tmp_path / "results" / "schedule.log").read_text()
    assert turn_of_cron(asked).returncode == 0
    assert calls(asked) == nearby(asked)


def test_keys_come_from_the_file_and_stand_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "ke'ys %.env"
    asked = job_in(tmp_path, env_file=file, key_variables=("JUDGE_KEY",), offline=True)
    assert turn_of_cron(asked).returncode != 0, "no such file"
    file.write_text("OTHER=1\n")
    assert turn_of_cron(asked).returncode != 0
    assert "JUDGE_KEY" in (tmp_path / "results" / "schedule.log").read_text()
    assert calls(asked) == []
    file.write_text("JUDGE_KEY=abc123\n")
    assert turn_of_cron(asked).returncode == 0
    subprocess.run(["bash", script_of(asked, tmp_path)], check=True)
    environment = (tmp_path / "bin" / "told.environment").read_text().splitlines()
    assert environment.count("JUDGE_KEY=abc123") == environment.count("HF_HUB_OFFLINE=1") == 4
    texts = write_crontab(asked) | write_systemd(asked, user="me")
    assert not any("abc123" in text for text in texts.values())


@pytest.mark.parametrize("write", [write_crontab, lambda one: write_systemd(one, user="me")])
def test_keys_that_nothing_sets_are_said_at_once(write: Any) -> None:
    with pytest.raises(InputError, match="name a file that sets JUDGE_KEY by --env-file"):
        write(job(key_variables=("JUDGE_KEY",)))


def test_a_line_longer_than_cron_reads_is_refused() -> None:
    with pytest.raises(InputError, match="cron reads 998"):
        write_crontab(job(runs=(PurePath("/" + "r" * 900),)))


# --- Slurm


def turn_of_slurm(
    folder: Path, sent: signal.Signals | None, *arguments: str, **environment: str
) -> tuple[int, list[str]]:
    """Exit code of the script, and the words with which it called scontrol."""
    asked = job_in(folder, then="exec sleep 60" if sent else "")
    script = script_of(asked, folder)
    control = folder / "bin" / "scontrol"
    control.write_text(f'#!/bin/sh\necho "$@" >"{folder}/controlled"\n')
    control.chmod(0o755)
    process = subprocess.Popen(
        ["bash", script, *arguments],
        env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": "77", **environment},
    )
    if sent:
        limit = time.monotonic() + 120
        while not calls(asked) and time.monotonic() < limit:
            time.sleep(0.05)
        process.send_signal(sent)
    code = process.wait(timeout=120)
    file = folder / "controlled"
    return code, file.read_text().split() if file.exists() else []


@pytest.mark.parametrize(
    ("sent", "arguments", "environment", "requeued"),
    [
        (signal.SIGUSR1, (), {}, True),
        (signal.SIGUSR1, (), {"SLURM_RESTART_COUNT": "49"}, True),
        (signal.SIGUSR1, (), {"SLURM_RESTART_COUNT": "50"}, False),
        (signal.SIGUSR1, ("by-the-clock",), {}, False),
        (signal.SIGTERM, (), {}, False),
    ],
)
def test_slurm_ends_before_the_limit_and_queues_again(
    tmp_path: Path,
    sent: signal.Signals,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    requeued: bool,
) -> None:
    code, controlled = turn_of_slurm(tmp_path, sent, *arguments, **environment)
    assert code == 143
    assert controlled == (["requeue", "77"] if requeued else [])
    assert len(told(tmp_path / "bin" / "python")) == 1, "no gate after a run that was ended"


def test_slurm_that_went_well_is_not_queued_again(tmp_path: Path) -> None:
    assert turn_of_slurm(tmp_path, None) == (0, [])
    assert len(told(tmp_path / "bin" / "python")) == 2


def test_slurm_fails_as_the_run_does(tmp_path: Path) -> None:
    asked = job_in(tmp_path, then="exit 3")
    done = subprocess.run(["bash", script_of(asked, tmp_path)], check=False)
    assert done.returncode == 3
    assert calls(asked) == expected(asked)[:1]


def test_what_sbatch_and_scrontab_read() -> None:
    made = write_slurm(
        job(), script=PurePath("/s"), after="123_4", options=("--gpus=1", "--time=08:00:00")
    )
    script = made["prefbench.sbatch"].splitlines()
    assert script[0] == "#!/bin/bash"
    asked = [line.removeprefix("#SBATCH ") for line in script if line.startswith("#SBATCH ")]
    assert {"--requeue", "--gpus=1", "--time=08:00:00", "--signal=B:USR1@120"} <= set(asked)
    assert "--dependency=afterany:123_4,singleton" in asked
    # sbatch reads no options after the first command.
    last = max(n for n, line in enumerate(script) if line.startswith("#SBATCH "))
    assert all(line.startswith("#") for line in script[:last])
    block = made["prefbench.scrontab"]
    assert "#SCRON --gpus=1\n" in block
    assert "dependency" not in block


@pytest.mark.parametrize(
    "option",
    ["--gpus 1", "-p gpu", "gpu", "--comment='x'", "--output=x", "--dependency=x", "--a=b;c", ""],
)
def test_what_sbatch_would_misread(option: str) -> None:
    with pytest.raises(InputError, match=r"^--slurm-option"):
        write_slurm(job(), script=PurePath("/s"), options=(option,))


def test_what_is_no_job() -> None:
    with pytest.raises(InputError, match="no job id"):
        write_slurm(job(), script=PurePath("/s"), after="1,afterok:2")


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here: apt-get install shellcheck")
    asked = job_in(tmp_path, env_file=tmp_path / "e", key_variables=("K",), offline=True)
    command = command_of_cron(write_crontab(asked)["prefbench.crontab"].splitlines()[-1])
    line = tmp_path / "line.sh"
    # A file that is only there at night cannot be followed.
    line.write_text(f"#!/bin/sh\n# shellcheck disable=SC1091\n{command}\n")
    done = subprocess.run(
        ["shellcheck", "--severity=warning", script_of(asked, tmp_path), line],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


# --- systemd


@pytest.mark.parametrize("more", [{}, {"policy": None}, {"offline": True, "env_file": "e"}])
def test_systemd_verifies_the_units(tmp_path: Path, more: dict[str, Any]) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here: apt-get install systemd")
    if "env_file" in more:
        more = {**more, "env_file": tmp_path / "key*s [1].env"}
    asked = job_in(tmp_path, runs=(tmp_path / "it's 50% of $HOME",), **more)
    made = write_systemd(asked, user=getpass.getuser(), cache=tmp_path / "a cache")
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / name for name in made)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_service_says() -> None:
    asked = job(
        policy=PurePath("/srv/p.yaml"), env_file=PurePath("/etc/ke[y]s"), key_variables=("KEY",)
    )
    service = write_systemd(asked, user="me", cache=PurePath("/home/me/.cache"))
    lines = service["prefbench.service"].splitlines()
    assert sum(line.startswith("ExecStart=") for line in lines) == 2
    assert {
        "Type=oneshot",
        "User=me",
        "WorkingDirectory=/srv",
        r"EnvironmentFile=/etc/ke\[y]s",
        'ReadWritePaths="/srv/results"',
        'ReadWritePaths="-/home/me/.cache"',
        "PrivateTmp=true",
        "ProtectSystem=strict",
    } <= set(lines)
    timer = service["prefbench.timer"].splitlines()
    assert {"OnCalendar=*-*-* 03:00:00", "Persistent=true"} <= set(timer)


def test_what_lies_in_tmp_stays_visible() -> None:
    made = write_systemd(job(runs=(PurePath("/tmp/runs"),)), user="me")
    assert "PrivateTmp" not in made["prefbench.service"]


@pytest.mark.parametrize("user", ["", "a b", "me\nExecStart=/bin/sh", "%n", "-x"])
def test_who_is_no_user(user: str) -> None:
    with pytest.raises(InputError, match=r"^--user"):
        write_systemd(job(), user=user)


# --- GitHub


def test_what_the_workflow_does(tmp_path: Path) -> None:
    program = recorder(tmp_path / "bin")
    asked = job(
        python="python",
        folder=PurePath(),
        runs=(PurePath("runs/${{ secrets.KEY }} it's"),),
        results=PurePath("!results"),
        policy=PurePath("policy.yaml"),
        key_variables=("JUDGE_KEY",),
    )
    text = write_github(asked)["prefbench.yml"]
    workflow = yaml.safe_load(text)
    assert workflow["on"] == {"schedule": [{"cron": "0 3 * * *"}], "workflow_dispatch": None}
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is False
    steps = workflow["jobs"]["measure"]["steps"]
    for step in steps:
        if "run" in step and "pip" not in step["run"]:
            subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", evaluated(step["run"])],
                check=True,
                cwd=tmp_path,
                env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
            )
    gating = [*asked.gating("--github")]
    assert told(program) == [asked.measuring()[1:], gating[1:]]
    keys = {name: step["env"] for step in steps if "env" in step for name in [step["name"]]}
    assert keys == {"Measure what is missing": {"JUDGE_KEY": "${{ secrets.JUDGE_KEY }}"}}
    used = [step["uses"] for step in steps if "uses" in step]
    assert used == [
        "actions/checkout@v5",
        "actions/setup-python@v6",
        "actions/cache/restore@v5",
        "actions/cache/save@v5",
        "actions/upload-artifact@v6",
    ]
    by_use = {step["uses"]: step for step in steps if "uses" in step}
    for kept in ("actions/cache/save@v5", "actions/upload-artifact@v6"):
        assert by_use[kept]["with"]["path"] == "./!results"
        assert by_use[kept]["if"].startswith("always()")


@pytest.mark.parametrize(
    ("more", "extra", "said"),
    [
        ({"results": PurePath("a*")}, {}, "take it for a pattern"),
        ({"env_file": PurePath("e")}, {}, "keys are secrets"),
        ({"key_variables": ("GITHUB_KEY",)}, {}, "no secret of such a name"),
        ({}, {"runner": "${{ x }}"}, "no label"),
        ({}, {"requirements": "a\nb"}, "line break"),
    ],
)
def test_what_github_would_misread(more: dict[str, Any], extra: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        write_github(job(**more), **extra)
