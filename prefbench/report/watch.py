"""The verbs `watch` and `status`: measure checkpoints as training writes them; how far it is."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from prefbench.report.layout import padded, plain, width_of
from prefbench.report.options import (
    AllowPickle,
    Api,
    ApiKeyEnv,
    BaseUrl,
    BatchSize,
    Chat,
    ChatTemplate,
    Concurrency,
    Device,
    Dtype,
    EngineName,
    EngineTimeout,
    Fewshot,
    FewshotKind,
    Folders,
    GpuMemory,
    JudgeApiKeyEnv,
    JudgeBaseUrl,
    JudgeConcurrency,
    JudgeFolders,
    JudgeModels,
    Judges,
    Limit,
    MaxCalls,
    MaxCost,
    MaxLength,
    Mirrors,
    Opponents,
    Reference,
    RemoteCode,
    Results,
    ResultsFolder,
    ServedModel,
    ServerApi,
    StopWhenSure,
    TensorParallel,
)

if TYPE_CHECKING:
    from prefbench.watch.status import Row, Status
    from prefbench.watch.telling import Gate

EXAMPLES = (
    "Examples: prefbench watch runs/ · prefbench watch runs/ --suite quick --interval 60 "
    "--mirror data/ · prefbench watch runs/ --every 1000 --order oldest · "
    "prefbench watch runs/ --once"
)
STATUS_EXAMPLES = "Examples: prefbench status · prefbench status results/ --json"


class TurnOrder(StrEnum):
    newest = "newest"
    oldest = "oldest"


def watch(
    directory: Annotated[Path, typer.Argument(help="Directory that training writes to.")],
    suite: Annotated[list[str], typer.Option("--suite", help="Suite to measure [paper].")] = [],  # noqa: B006  # typer's way
    task: Annotated[list[str], typer.Option("--task", help="Task to measure.")] = [],  # noqa: B006
    results: Results = Path("results"),
    interval: Annotated[
        float, typer.Option(help="Seconds between two looks, where nothing is to be done.")
    ] = 60.0,
    quiet: Annotated[
        float,
        typer.Option(help="Seconds for which a checkpoint's files must not have changed."),
    ] = 30.0,
    order: Annotated[
        TurnOrder, typer.Option(help="The checkpoint that was written last first, or last.")
    ] = TurnOrder.newest,
    every: Annotated[
        int | None,
        typer.Option(help="Of each checkpoint-N only those whose N is a multiple of this."),
    ] = None,
    min_free_memory: Annotated[
        str | None,
        typer.Option(
            help="Begin no turn while the device (the machine, on a CPU) has less free: 20GiB, 25%."
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End when all that is there is done, or failed.")
    ] = False,
    status_file: Annotated[
        Path | None,
        typer.Option("--status", help="File that says how far it is [RESULTS/status.json]."),
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option(help="Policy that each checkpoint is held to, as by `prefbench gate`."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Row or method, instead of the policy's baseline.")
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(help="File to write for Prometheus' node exporter, e.g. prefbench.prom."),
    ] = None,
    webhook_env: Annotated[
        str | None,
        typer.Option(
            help="Environment variable with an address to tell of failures and regressions."
        ),
    ] = None,
    limit: Limit = None,
    fewshot: FewshotKind = Fewshot.fixed,
    chat_template: ChatTemplate = Chat.auto,
    engine: EngineName = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    max_length: MaxLength = None,
    batch_size: BatchSize = None,
    tensor_parallel_size: TensorParallel = 1,
    gpu_memory_utilization: GpuMemory = 0.9,
    engine_timeout: EngineTimeout = 900.0,
    base_url: BaseUrl = None,
    served_model: ServedModel = None,
    server_api: Api = ServerApi.completions,
    api_key_env: ApiKeyEnv = None,
    concurrency: Concurrency = 32,
    reference: Reference = None,
    judge: Judges = [],  # noqa: B006
    opponent: Opponents = [],  # noqa: B006
    judge_folder: JudgeFolders = [],  # noqa: B006
    judge_model: JudgeModels = [],  # noqa: B006
    judge_base_url: JudgeBaseUrl = None,
    judge_api_key_env: JudgeApiKeyEnv = None,
    judge_concurrency: JudgeConcurrency = None,
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    stop_when_sure: StopWhenSure = False,
    mirror: Mirrors = [],  # noqa: B006
    task_folder: Folders = [],  # noqa: B006
    allow_pickle: AllowPickle = False,
    trust_remote_code: RemoteCode = False,
) -> None:
    """Measure checkpoints as training writes them; beside training, for as long as it takes.

    Looks again and again, and touches a checkpoint only when it is whole and its files have been
    quiet. What is done is never done again, by whichever of several watchers of one results
    directory. SIGTERM and Ctrl-C stop it after the batch in flight (exit codes 0 and 130), and the
    same command goes on; `prefbench status` says how far it is. What judges may cost holds for all
    watchers of the results together, and for all their lives; where it is reached, judging waits
    and measuring goes on. With --once the exit code is 1 if a checkpoint failed, 2 if the
    gate could not be asked.
    """
    from prefbench.cells import Settings
    from prefbench.comparisons import Judging
    from prefbench.watch.memory import read_room
    from prefbench.watch.policy import Measuring, Policy
    from prefbench.watch.telling import Ears
    from prefbench.watch.watching import watch as keep_watching

    measuring = Measuring(
        tasks=[*suite, *task] or ["paper"],
        results=results,
        settings=Settings(
            limit=limit,
            fewshot=fewshot.value,
            chat_template=chat_template.value,
            engine=engine,
            dtype=dtype,
            device=device,
            max_length=max_length,
            batch_size=batch_size,
            tensor_parallel_size=tensor_parallel_size,
            gpu_memory_utilization=gpu_memory_utilization,
            engine_timeout=engine_timeout,
            base_url=base_url,
            served_model=served_model,
            server_api=server_api.value,
            api_key_env=api_key_env,
            concurrency=concurrency,
            reference=reference,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
        ),
        judging=Judging(
            judges=tuple(judge),
            opponents=tuple(opponent),
            folders=tuple(judge_folder),
            models=tuple(judge_model),
            base_url=judge_base_url,
            api_key_env=judge_api_key_env,
            concurrency=judge_concurrency,
            max_cost=max_cost,
            max_calls=max_calls,
            stop_when_sure=stop_when_sure,
        ),
        mirrors=mirror,
        task_folders=task_folder,
    )
    policy = Policy(
        interval=interval,
        quiet=quiet,
        order=order.value,
        every=every,
        once=once,
        room=read_room(min_free_memory) if min_free_memory else None,
    )
    with _asked_to_stop() as signals:
        rows = keep_watching(
            directory,
            measuring,
            policy,
            status=status_file,
            log=_log,
            stop=lambda: bool(signals),
            ears=Ears(
                gate=_gate(gate, results, baseline),
                metrics=metrics,
                webhook=_secret(webhook_env),
            ),
        )
    if signal.SIGINT in signals:
        raise typer.Exit(130)
    if not signals and any(row.state == "failed" for row in rows):
        raise typer.Exit(1)


def _gate(policy: Path | None, results: Path, baseline: str | None) -> Gate | None:
    """The gate as `prefbench gate` judges; a policy that makes no sense is refused at once."""
    from prefbench.errors import InputError
    from prefbench.gate.policies import read_policy
    from prefbench.report.gate import by_checkpoint

    if policy is None:
        if baseline is not None:
            raise InputError("--baseline is the gate's: name its policy by --gate")
        return None
    read_policy(policy)
    return lambda: by_checkpoint(policy, results, baseline)


def _secret(variable: str | None) -> str | None:
    """What an environment variable holds.

    Raises:
        InputError: it is not set; what it holds is never said.
    """
    from prefbench.errors import InputError

    if variable is None:
        return None
    if "://" in variable:
        raise InputError("--webhook-env takes the name of a variable, not the address itself")
    if not (held := os.environ.get(variable)):
        raise InputError(f"--webhook-env: the variable {variable} is not set")
    return held


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """The signals that have asked to stop; a second one does not wait for the batch in flight."""
    came: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _log(line: str) -> None:
    when = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
    print(f"{when} {plain(line)}", file=sys.stderr, flush=True)


def status(
    results: ResultsFolder = Path("results"),
    file: Annotated[
        Path | None, typer.Option("--status", help="Where the watch writes it, if elsewhere.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """How far a watch is: the state of each checkpoint, and why. Starts nothing."""
    from prefbench.watch.status import read_status

    found = read_status(results, file)
    print(as_json(found) if json_ else as_text(found), end="")


def as_json(found: Status) -> str:
    """Everything that is known."""
    return json.dumps(dataclasses.asdict(found), indent=1) + "\n"


def as_text(found: Status) -> str:
    """A line per checkpoint, and below it why it is not done."""
    head = ("checkpoint", "state", "step", "cells", "judged", "since")
    lines = [head, *(_cells(row) for row in found.rows)]
    widths = [max(width_of(line[i]) for line in lines) for i in range(len(head))]
    text = []
    for i, line in enumerate(lines):
        parts = (padded(cell, width) for cell, width in zip(line, widths, strict=True))
        text.append("  ".join(parts).rstrip())
        if i:
            text += [f"    {plain(why)}" for why in why_of(found.rows[i - 1])]
    counts: dict[str, int] = {}
    for row in found.rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    text.append(", ".join(f"{n} {state}" for state, n in counts.items()) or "no checkpoints yet")
    n = len(found.watchers)
    watching = f"{n} watcher{'s' * (n > 1)}" if n else "no watcher runs"
    watching += " on this machine" * found.far
    text.append(f"{watching}; last look {found.when[:19].replace('T', ' ')} UTC")
    return "\n".join(text) + "\n"


def why_of(row: Row) -> Iterator[str]:
    """What is to be said of a checkpoint besides its state."""
    if row.reason:
        yield row.reason + (f" (tried {row.tries} times)" * (row.tries > 1))
    if row.gate:
        checks = row.gate["checks"]
        named = [one for one in checks if one["outcome"] == row.gate["outcome"] != "pass"]
        what = ", ".join(f"{one['task']} {one['metric']}" for one in named[:3])
        more = f" and {len(named) - 3} more" * (len(named) > 3)
        said = f": {what}{more}" if what else f" ({len(checks)} checks)"
        yield f"gate beside {row.gate['baseline']}: {row.gate['outcome']}{said}"


def _cells(row: Row) -> tuple[str, ...]:
    return tuple(
        map(
            plain,
            (
                row.name,
                row.state,
                "?" if row.step is None else str(row.step),
                f"{row.n_measured}/{len(row.cells)}" if row.cells else "-",
                f"{row.n_judged}/{len(row.comparisons)}" if row.comparisons else "-",
                (row.since or "")[:19].replace("T", " "),
            ),
        )
    )
