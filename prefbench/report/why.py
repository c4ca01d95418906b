"""The verb `why`: everything behind one number of the table, and the command that makes it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefbench.report.options import Baseline, Confidence, Interval, IntervalMethod, Results

if TYPE_CHECKING:
    from prefbench.report.explain.again import Again
    from prefbench.report.explain.behind import Behind
    from prefbench.report.explain.samples import Sample

EXAMPLES = (
    "Examples: prefbench why dpo demo_arithmetic · "
    "prefbench why dpo gsm8k_5shot exact_match,flexible-extract --samples 5 --full · "
    "prefbench why 73fb941c --item 12 · prefbench why dpo hh_helpful_winrate --json"
)


def why(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT TASK [METRIC] | CELL [METRIC]",
            help="As the table writes them, parts will do; or a cell's id, or its beginning. "
            "Without METRIC, the first that the task shows.",
        ),
    ],
    results: Results = Path("results"),
    samples: Annotated[
        int, typer.Option(help="Items to show from either end, the worst and the best.")
    ] = 3,
    item: Annotated[
        list[int], typer.Option("--item", help="Item to show instead; several may be given.")
    ] = [],  # noqa: B006  # typer's way
    full: Annotated[bool, typer.Option("--full", help="Texts to their end.")] = False,
    baseline: Baseline = None,
    interval: Interval = IntervalMethod.percentile,
    confidence: Confidence = 0.95,
    mirror: Annotated[
        list[Path],
        typer.Option(
            "--mirror", help="Where the data are, for the command that makes the number again."
        ),
    ] = [],  # noqa: B006
    json_: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Everything behind one number: interval, task, bytes, engine, samples, how to make it again.

    Loads no model and asks nobody. The numbers are those of the table of all runs in the results;
    the difference to the baseline stands alone here, not corrected for others beside it.
    """
    from prefbench.errors import InputError
    from prefbench.report.explain.again import again
    from prefbench.report.explain.behind import look_up
    from prefbench.report.explain.explained import as_text
    from prefbench.report.explain.samples import samples_of

    if samples < 0:
        raise InputError(f"--samples is a number of items, not {samples}")
    behind = look_up(
        results, words, baseline=baseline, confidence=confidence, interval=interval.value
    )
    found = samples_of(behind, n=samples, items=item)
    command = again(behind, mirrors=mirror)
    print(as_json(behind, found, command) if json_ else as_text(behind, found, command, full=full))


def as_json(behind: Behind, samples: Sequence[Sample], command: Again) -> str:
    """Everything, texts to their end; ASCII, so that nothing in it can steer a terminal."""
    group = behind.column.group
    whole = {
        "checkpoint": behind.row.name,
        "task": group.task,
        "conditions": group.conditions or None,
        "opponent": group.opponent or None,
        "judge": group.judge or None,
        "metric": behind.column.metric.name,
        "unit": behind.column.metric.unit,
        **behind.entry.score.estimate._asdict(),
        "confidence": behind.board.confidence,
        "n_resamples": behind.n_resamples,
        "seed": behind.seed,
        "n_clusters": behind.n_clusters,
        "baseline": behind.board.baseline,
        "difference": behind.entry.difference and behind.entry.difference._asdict(),
        "cell": behind.cell,
        "round_robin": dict(behind.pairs) or None,
        "manifest": behind.manifest,
        "answers": behind.manifest_of("answers"),
        "opponent_answers": behind.manifest_of("opponent_answers"),
        "command": list(command.words) or None,
        "remarks": list(command.remarks),
        "samples": [dataclasses.asdict(sample) for sample in samples],
    }
    return json.dumps(_finite(whole), indent=1, default=str)


def _finite(value: Any) -> Any:
    """Null in place of numbers that JSON does not have, as the perplexity of what cannot be."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
