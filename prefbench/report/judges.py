"""The verb `judges`: which there are, and the report card of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefbench.report.options import Results

if TYPE_CHECKING:
    from prefbench.examination.card import Bill
    from prefbench.judges.presence import Presence

judges = typer.Typer(
    help="Which judges there are, and how far each can be trusted.",
    epilog="Examples: prefbench judges · prefbench judges check helpful_dialogue --dry-run",
    invoke_without_command=True,
    rich_markup_mode=None,
)


class Format(StrEnum):
    text = "text"
    markdown = "markdown"
    json = "json"


Folders = Annotated[
    list[Path], typer.Option("--judge-folder", help="Folder with judge YAML files of your own.")
]
Mirrors = Annotated[
    list[Path],
    typer.Option("--mirror", help="Local directory with models; may be given several times."),
]


@judges.callback(invoke_without_command=True)
def _list(
    asked: typer.Context,
    judge_folder: Folders = [],  # noqa: B006  # typer's way
    mirror: Mirrors = [],  # noqa: B006
    json_: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """The judges there are: whom each asks, and whether its key or model is there."""
    if asked.invoked_subcommand is not None:
        return
    from prefbench.cells import mirror_places
    from prefbench.judges.presence import look_for_judges

    found = look_for_judges(judge_folder, mirror_places(mirror))
    print(list_as_json(found) if json_ else list_as_text(found), end="")


@judges.command(
    epilog="Examples: prefbench judges check helpful_dialogue --limit 100 --dry-run · "
    "prefbench judges check demo_reward --mirror demo/data -r demo/results --controls · "
    "prefbench judges check structured --labels preferred.jsonl --repeats 2 --max-cost 1"
)
def check(
    judge: Annotated[str, typer.Argument(help="Its name.")],
    results: Results = Path("results"),
    task: Annotated[
        list[str], typer.Option("--task", help="Only answers to this task; may be repeated.")
    ] = [],  # noqa: B006
    opponent: Annotated[
        list[str], typer.Option("--opponent", help="Only answers against this opponent.")
    ] = [],  # noqa: B006
    labels: Annotated[
        Path | None,
        typer.Option(help="What people prefer: prompt, first, second, preference; or HH-RLHF."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Pairs of results, and as many of labels.")] = 50,
    repeats: Annotated[int, typer.Option(help="Ask everything so many times more.")] = 0,
    injections: Annotated[
        bool, typer.Option("--injections", help="Try every attack on the answers that lost.")
    ] = False,
    attack: Annotated[
        list[str], typer.Option("--attack", help="Only this attack; may be repeated.")
    ] = [],  # noqa: B006
    controls: Annotated[
        bool, typer.Option("--controls", help="Judge answers that ought not to win.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the choice of pairs, and of intervals.")] = 0,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    judge_folder: Folders = [],  # noqa: B006
    judge_model: Annotated[
        list[str],
        typer.Option(help="Asked instead of the judge's own: MODEL, or JUDGE=MODEL for one."),
    ] = [],  # noqa: B006
    judge_base_url: Annotated[
        str | None, typer.Option(help="Asked instead of the judge's own endpoint.")
    ] = None,
    judge_api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds its key, if it needs one.")
    ] = None,
    judge_concurrency: Annotated[
        int | None, typer.Option(help="Requests to the judge at once [its own, 32].")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="US dollars that it may cost; never passed.")
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(help="Calls that may be made; never passed.")
    ] = None,
    mirror: Mirrors = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked and what it costs.")
    ] = False,
    format_: Annotated[Format, typer.Option("--format", help="Of the card.")] = Format.text,
) -> None:
    """A judge's report card: what its verdicts hang on besides the answers' worth.

    Shows it pairs of answers that are kept in results, and pairs that people have labelled.
    Verdicts are kept as those of a run: the same command again costs nothing. Exit code 0: all was
    asked; 1: some verdicts are missing, and the same command asks for them again.
    """
    from prefbench.comparisons import Judging
    from prefbench.examination.card import Examination, check_judge, foresee_check

    examination = Examination(
        labels=labels,
        tasks=tuple(task),
        opponents=tuple(opponent),
        limit=limit,
        repeats=repeats,
        injections=injections,
        attacks=tuple(attack),
        controls=controls,
        seed=seed,
        confidence=confidence,
    )
    asked: dict[str, Any] = {
        "results": results,
        "judging": Judging(
            folders=tuple(judge_folder),
            models=tuple(judge_model),
            base_url=judge_base_url,
            api_key_env=judge_api_key_env,
            concurrency=judge_concurrency,
            max_cost=max_cost,
            max_calls=max_calls,
        ),
        "mirrors": mirror,
    }
    if dry_run:
        print(bill_as_text(foresee_check(judge, examination, **asked)), end="")
        return
    from prefbench.report.card import STYLES
    from prefbench.report.progress import showing

    with showing() as listener:
        card = check_judge(judge, examination, listener=listener, **asked)
    print(STYLES[format_.value](card), end="")
    if card.unheard:
        raise typer.Exit(1)


# --- the list


def list_as_text(found: Sequence[Presence]) -> str:
    """Two lines or three per judge."""
    from prefbench.report.card import wrapped
    from prefbench.report.layout import plain

    name = max((len(one.recipe.judge) for one in found), default=0)
    lines = []
    for one in found:
        recipe = one.recipe
        mark = "ready  " if one.there else "lacking"
        model = recipe.model or f"{len(recipe.members)} judges, {recipe.rule}"
        lines.append(f"{recipe.judge.ljust(name)}  {mark}  {recipe.kind:6}  {model}")
        lines += wrapped(f"{recipe.description or 'no description'}", 4)
        lines += wrapped(f"{one.said}; {_nearby(one.file)}", 4)
    n_ready = sum(one.there for one in found)
    lines.append(f"{n_ready} of {len(found)} judges can be asked from here")
    return "\n".join(plain(line) for line in lines) + "\n"


def list_as_json(found: Sequence[Presence]) -> str:
    rows = [
        {
            **{
                key: getattr(one.recipe, key)
                for key in ("judge", "kind", "model", "revision", "description", "members")
            },
            "file": str(one.file),
            "there": one.there,
            "said": one.said,
        }
        for one in found
    ]
    return json.dumps(rows, indent=1) + "\n"


def _nearby(path: Path) -> str:
    """A path as it is shortest from here."""
    whole = path.resolve()
    here = Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


# --- the bill


def bill_as_text(bill: Bill) -> str:
    """What would be asked, for a person who has to say yes to it."""
    from prefbench.report.card import wrapped
    from prefbench.report.layout import plain

    name = plain(bill.judge.name)
    lines = [f"{bill.n_cases} pairs would be shown to {name}"]
    kinds = {one.recipe.kind for one in bill.judge.members or (bill.judge,)}
    if "openai" in kinds:
        kept = f"; {bill.n_kept} verdicts are kept already" if bill.n_kept else ""
        lines += [
            f"  {bill.calls} calls, about {bill.n_in:,} tokens in and at most "
            f"{bill.n_out_most:,} out{kept}",
            f"  about ${bill.cost:.2f}, at most ${bill.cost_most:.2f}",
        ]
    else:
        lines.append(f"  {bill.calls} verdicts at most, on this machine, at no price")
    if bill.supposed:
        lines += wrapped(
            "attacks are counted as if every pair were decided; only losers are attacked", 2
        )
    return "\n".join([*lines, "nobody was asked"]) + "\n"
