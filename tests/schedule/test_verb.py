from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from prefbench.errors import InputError, PrefbenchError
from prefbench.report.schedule import EXAMPLES, schedule

app = typer.Typer()
app.command(epilog=EXAMPLES)(schedule)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text("rules: [{task: '*', max_drop: 1, max_rise: 5%}]\n")
    return tmp_path


def said(*arguments: str) -> Result:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert isinstance(done.exception, PrefbenchError), done.output
    return str(done.exception)


def test_cron(here: Path) -> None:
    text = said("--cron", "runs", "--gate", "policy.yaml", "--every", "6h").stdout
    assert f"0 */6 * * * cd -- {here} && " in text
    assert f"python={sys.executable}; " in text
    assert '"$python" -m prefbench run --results=./results -- ./runs && ' in text
    assert '"$python" -m prefbench gate --policy=./policy.yaml -- ./results )' in text
    assert "HF_HUB_OFFLINE" not in text
    assert "HF_HUB_OFFLINE=1" in said("--cron", "runs", "--mirror", "data").stdout
    assert "HF_HUB_OFFLINE" not in said("--cron", "runs", "--mirror", "data", "--online").stdout


def test_systemd_prints_both_or_writes_them(here: Path) -> None:
    arguments = ["--systemd", "runs", "--at", "30 4 * * mon-fri", "--user", "me", "--name", "night"]
    printed = said(*arguments).stdout
    assert "\n# ----- night.timer\n" in printed
    assert "OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 04:30:00\n" in printed
    told = said(*arguments, "--out", "units").stdout
    assert told.split() == ["units/night.service", "units/night.timer"]
    service = (here / "units" / "night.service").read_text()
    assert f'"--results={here}/results" "--" "{here}/runs"' in service
    assert service + "\n# ----- night.timer\n" + (here / "units/night.timer").read_text() == printed


def test_slurm(here: Path) -> None:
    said("--slurm", "runs", "--after", "42", "--slurm-option=--gpus=1", "--out", "jobs")
    assert (
        "#SBATCH --dependency=afterany:42,singleton\n"
        in (here / "jobs/prefbench.sbatch").read_text()
    )
    block = (here / "jobs/prefbench.scrontab").read_text()
    assert f"0 * * * * exec bash -- {here}/jobs/prefbench.sbatch by-the-clock\n" in block


def test_github_keeps_the_repository_s_paths() -> None:
    text = said("--github", "runs", "--results", "out", "--key-env", "JUDGE_KEY").stdout
    steps = yaml.safe_load(text)["jobs"]["measure"]["steps"]
    measure = next(step for step in steps if step.get("id") == "measure")
    assert measure["run"] == "python -m prefbench run --results=out -- runs"
    assert measure["env"] == {"JUDGE_KEY": "${{ secrets.JUDGE_KEY }}"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["runs"], "say one of"),
        (["--cron", "--slurm", "runs"], "say one of"),
        (["--cron", "runs", "--every", "1h", "--at", "0 3 * * *"], "leave one out"),
        (["--cron", "runs", "--after", "1"], "--after belongs to --slurm"),
        (["--slurm", "runs", "--user", "me"], "--user belongs to --systemd"),
        (["--cron", "runs", "--runner", "x"], "--runner belongs to --github"),
        (["--cron", "runs", "--suite", "papre"], "papre"),
        (["--cron", "runs", "--gate", "none.yaml"], "none.yaml"),
        (["--cron", "a\nb"], "line break"),
        (["--cron", "runs", "--out", "policy.yaml"], "cannot be written"),
        (["--cron", "runs", "--run-option=--api-key=abc"], "looks like a key"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], told: str) -> None:
    assert told in refused(*arguments)


def test_a_task_of_one_s_own_is_not_looked_for() -> None:
    said("--cron", "runs", "--suite", "mine", "--run-option=--task-folder=tasks")


def test_a_file_of_keys_is_named_and_never_told(here: Path) -> None:
    file = here / "keys.env"
    file.write_text("JUDGE_KEY=hush\n")
    file.chmod(0o644)
    done = said("--systemd", "runs", "--user", "me", "--env-file", "keys.env")
    assert "keys.env: others may read it; chmod 600 it" in done.stderr
    assert f"EnvironmentFile={file}" in done.stdout
    assert "hush" not in done.output
    file.chmod(0o600)
    assert said("--systemd", "runs", "--user", "me", "--env-file", "keys.env").stderr == ""


def test_nothing_is_written_beside_a_refusal(here: Path) -> None:
    with pytest.raises(InputError, match="no job id"):
        raise (
            CliRunner().invoke(app, ["--slurm", "runs", "--after", "x", "--out", "jobs"]).exception
            or AssertionError
        )
    assert not (here / "jobs").exists()


def test_results_on_an_object_store_are_named_by_their_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFBENCH_CACHE", str(tmp_path / "cache"))
    told = ["runs", "--results", "s3://bucket/prefix"]
    said = CliRunner().invoke(app, [*told, "--cron"])
    assert said.exit_code == 0, said.output
    assert "--results=s3://bucket/prefix" in said.stdout
    assert f"PREFBENCH_CACHE={tmp_path}/cache" in said.stdout
    said = CliRunner().invoke(app, [*told, "--github"])
    assert isinstance(said.exception, InputError)
    assert "s3://bucket/prefix" in str(said.exception)
