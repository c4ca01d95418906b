"""The verb `gate`: does a checkpoint lose more than a policy allows? The exit code answers."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from prefbench.errors import PrefbenchError
from prefbench.report.options import PLACE, ResultsFolder, results_place

if TYPE_CHECKING:
    from prefbench.gate.gating import Gate
    from prefbench.leaderboard import Gathered

ERROR = 3
"""Exit code of whatever kept a verdict from being found."""

EXAMPLES = """\
Examples: prefbench gate --policy policy.yaml · prefbench gate -p policy.yaml results/ --junit \
gate.xml · prefbench gate -p policy.yaml --against last-week/results --github

A policy: {baseline: sft, rules: [{task: gsm8k_5shot, metric: "exact_match,strict-match", \
max_drop: 2}, {task: hh_helpful_pairs, metric: perplexity, max_rise: 5%}, \
{task: "*", metric: shown, max_drop: 1, max_rise: 5%}, \
{task: hh_helpful_winrate, metric: win_rate, require: better, by: 2}]}

max_drop and max_rise say how far a value may fall or rise: a number in the table's unit, points \
for shares, or 5% of the baseline's value. The first rule that fits a metric counts. Further keys: \
checkpoints, confidence, max_missing; of a rule judge, opponent, higher_is_better.
"""


class GateCommand(TyperCommand):
    """A command line that makes no sense must not read as `inconclusive`, which is 2."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        try:
            return super().make_context(*arguments, **more)
        except Exception as error:
            if getattr(error, "exit_code", None) == 2:
                error.exit_code = ERROR  # type: ignore[attr-defined]  # a usage error of click's
            raise


def gate(
    policy: Annotated[
        Path, typer.Option("--policy", "-p", help="YAML file that says what must not be lost.")
    ],
    results: ResultsFolder = Path("results"),
    baseline: Annotated[
        str | None, typer.Option(help="Row or method, instead of the policy's baseline.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Another results directory, whose baseline counts: last week's. Items are paired "
            "where task and data are the same.",
            parser=results_place,
            metavar=PLACE,
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML file to write.")] = None,
    github: Annotated[
        bool,
        typer.Option(
            "--github", help="Annotate the run on GitHub, and write to $GITHUB_STEP_SUMMARY."
        ),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Whether checkpoints lost more than a policy allows, by intervals of paired differences.

    Exit code 0: everything passes; 1: a regression; 2: inconclusive, with how many items would
    decide; 3: error: something is missing, the policy or the command line is wrong.
    """
    try:
        found = _judge(policy, results, baseline, against)
        if junit is not None:
            _write(junit, found)
        text = _shown(found, json_=json_, github=github)
    except PrefbenchError as error:
        from prefbench.report.layout import plain

        # It may quote names and texts that came with a checkpoint.
        print("error:", "\n".join(map(plain, str(error).splitlines())), file=sys.stderr)
        raise typer.Exit(ERROR) from error
    except Exception as error:  # the interpreter's own exit code would read as a regression
        traceback.print_exc()
        raise typer.Exit(ERROR) from error
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # nobody reads on; the exit code counts all the same
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    raise typer.Exit(found.exit_code)


def by_checkpoint(policy: Path, results: Path, baseline: str | None) -> dict[str, dict[str, Any]]:
    """What `gate --json` says, checkpoint by checkpoint, by their paths.

    All checks count for the correction, as they do there.

    Raises:
        PrefbenchError: there is nothing to gate yet, or the policy makes no sense.
    """
    from prefbench.gate.gating import WORST
    from prefbench.report.collect import gather
    from prefbench.report.gate_text import facts_of

    gathered = gather(results)
    facts = facts_of(_gated(policy, gathered, baseline))
    by_name: dict[str, list[dict[str, Any]]] = {}
    for check in facts["checks"]:
        by_name.setdefault(check["checkpoint"], []).append(check)
    outcomes = {
        name: next(one for one in WORST if one in {check["outcome"] for check in checks})
        for name, checks in by_name.items()
    }
    return {
        str(row.path): {
            "outcome": outcomes[row.name],
            "baseline": facts["baseline"],
            "confidence": facts["confidence"],
            "checks": by_name[row.name],
        }
        for row in gathered.checkpoints
        if row.name in by_name
    }


def _gated(policy: Path, gathered: Gathered, baseline: str | None) -> Gate:
    from prefbench.gate.gating import gate as judge
    from prefbench.gate.policies import read_policy

    return judge(read_policy(policy), gathered, baseline=baseline)


def _judge(policy: Path, results: Path, baseline: str | None, against: Path | None) -> Gate:
    from prefbench.gate.gating import gate as judge
    from prefbench.gate.policies import read_policy
    from prefbench.report.collect import gather

    asked = read_policy(policy)
    gathered = gather(results)
    if against is not None:
        from prefbench.gate.elsewhere import with_baseline
        from prefbench.store import Store

        gathered, baseline = with_baseline(
            gathered,
            baseline or asked.baseline,
            ours=Store(results, create=False),
            other=gather(against),
            theirs=Store(against, create=False),
        )
    return judge(asked, gathered, baseline=baseline)


def _write(file: Path, found: Gate) -> None:
    from prefbench.errors import InputError
    from prefbench.report.gate_ci import as_junit

    try:
        file.write_text(as_junit(found), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {error.strerror or error}") from error


def _shown(found: Gate, *, json_: bool, github: bool) -> str:
    from prefbench.report.gate_ci import as_github, without_commands
    from prefbench.report.gate_text import as_json, as_text

    text = as_json(found) if json_ else as_text(found)
    if not github:
        return text
    _summarise(found)
    # JSON is for a program that reads all of stdout.
    return text if json_ else without_commands(text) + as_github(found)


def _summarise(found: Gate) -> None:
    """Adds to the page that GitHub shows of a run; that it cannot must not hide the verdict."""
    from prefbench.report.gate_text import as_markdown

    if named := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(named).open("a", encoding="utf-8") as file:
                file.write(as_markdown(found))
        except OSError as error:
            print(f"GITHUB_STEP_SUMMARY: {error.strerror or error}", file=sys.stderr)
