"""A workflow of GitHub Actions."""

from __future__ import annotations

import re
from typing import Any

import yaml

from prefbench.errors import InputError
from prefbench.schedule.jobs import Job, refuse_breaks, refuse_keys
from prefbench.schedule.quoting import for_actions, for_shell

_LABEL = re.compile(r"[\w.-]+", re.ASCII)
_PATTERN = re.compile(r"[*?\[\]\\]")


def write_github(
    job: Job, *, requirements: str = "requirements.txt", runner: str = "ubuntu-latest"
) -> dict[str, str]:
    """The workflow. Paths are the repository's, or absolute on a runner of one's own.

    Results come from the turn before by the cache, so that only what is missing is measured, and
    are kept whatever the gate says.

    Args:
        job: what to run.
        requirements: the file that names prefbench, for pip.
        runner: label of the machine.

    Raises:
        InputError: a name that Actions would take for something else.
    """
    if job.env_file is not None:
        raise InputError("--env-file: on GitHub, keys are secrets; name them by --key-env")
    for variable in job.key_variables:
        if variable.upper().startswith("GITHUB_"):
            raise InputError(f"--key-env: {variable}: GitHub takes no secret of such a name")
    refuse_breaks("--requirements", requirements)
    refuse_keys("--runner", runner)
    if not _LABEL.fullmatch(runner):
        raise InputError(f"--runner: {runner!r:.80} is no label of a runner")
    results = str(job.results)
    if _PATTERN.search(results) or results != results.strip():
        raise InputError(
            f"--results: {results!r}: GitHub's cache would take it for a pattern; leave out *, ?, "
            "[, ], backslashes and spaces at its ends"
        )
    workflow = {
        "name": job.name,
        "on": {"schedule": [{"cron": job.timing.cron}], "workflow_dispatch": None},
        "permissions": {"contents": "read"},
        "concurrency": {"group": job.name, "cancel-in-progress": False},
        "jobs": {
            "measure": {
                "runs-on": runner,
                "timeout-minutes": 350,
                "steps": _steps(job, requirements),
            }
        },
    }
    text = yaml.dump(
        workflow,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
        default_flow_style=False,
    )
    head = (
        f"# .github/workflows/{job.name}.yml. GitHub's clock is UTC, and its turns may come late.\n"
    )
    return {f"{job.name}.yml": head + text}


def _steps(job: Job, requirements: str) -> list[dict[str, Any]]:
    results = str(job.results)
    # Not to be taken for a comment or an exclusion.
    kept = for_actions(results if results.startswith("/") else f"./{results}")
    key = f"{job.name}-results-"
    now = key + "${{ github.run_id }}-${{ github.run_attempt }}"
    environment = job.environment() | {
        variable: f"${{{{ secrets.{variable} }}}}" for variable in job.key_variables
    }
    measure: dict[str, Any] = {"name": "Measure what is missing", "id": "measure"}
    if environment:
        measure["env"] = environment
    steps = [
        {"uses": "actions/checkout@v5", "with": {"persist-credentials": False}},
        {
            "uses": "actions/setup-python@v6",
            "with": {
                "python-version": "3.12",
                "cache": "pip",
                "cache-dependency-path": for_actions(requirements),
            },
        },
        _shell(["python", "-m", "pip", "install", "-r", requirements], name="Install"),
        {
            "uses": "actions/cache/restore@v5",
            "with": {"path": kept, "key": now, "restore-keys": key},
        },
        _shell(job.measuring(), **measure),
        {
            "uses": "actions/cache/save@v5",
            "if": "always() && steps.measure.outcome != 'skipped'",
            "with": {"path": kept, "key": now},
        },
    ]
    if gating := job.gating("--github"):
        steps.append(_shell(gating, name="Gate"))
    steps.append(
        {
            "uses": "actions/upload-artifact@v6",
            "if": "always() && steps.measure.outcome != 'skipped'",
            "with": {
                "name": f"{job.name}-results",
                "path": kept,
                "if-no-files-found": "ignore",
            },
        }
    )
    return steps


def _shell(words: list[str], **more: Any) -> dict[str, Any]:
    return {**more, "shell": "bash", "run": for_actions(for_shell(words))}


class _Dumper(yaml.SafeDumper):
    """YAML as it is written by hand: no references to what was said before."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
