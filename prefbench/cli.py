"""The command line: every verb has its Python function, imported when the verb runs."""

from __future__ import annotations

import gc
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefbench import __version__
from prefbench.buckets.places import told
from prefbench.errors import InputError, PrefbenchError
from prefbench.report import (
    claims,
    compare,
    gate,
    imported,
    judges,
    publish,
    push,
    schedule,
    table,
    trajectory,
    watch,
    why,
    winrate,
)
from prefbench.report.options import (
    AllowPickle,
    Api,
    ApiKeyEnv,
    Baseline,
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
    Form,
    GpuMemory,
    Interval,
    IntervalMethod,
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
    ServedModel,
    ServerApi,
    StopWhenSure,
    TableForm,
    TensorParallel,
)

if TYPE_CHECKING:
    from prefbench.cells import Settings
    from prefbench.comparisons import Judging
    from prefbench.parallel.executors import Executor
    from prefbench.runner import Outcome

app = typer.Typer(
    name="prefbench",
    help="Evaluate a directory of preference-tuned checkpoints: one table, with intervals.",
    epilog="Begin with: prefbench demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # brackets in help texts are meant as they are written
)


STOPPED = 130


class Where(StrEnum):
    here = "here"
    ray = "ray"
    slurm = "slurm"
    submitit_local = "submitit-local"


class JudgeMode(StrEnum):
    online = "online"
    batch = "batch"


@app.callback(invoke_without_command=True)
def _start(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"prefbench {__version__}")
        raise typer.Exit


@app.command(epilog="Example: prefbench scan runs/")
def scan(
    directory: Annotated[Path, typer.Argument(help="Directory of trained checkpoints.")],
    allow_pickle: AllowPickle = False,
    trust_remote_code: RemoteCode = False,
    json_: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """What is here: method, step, reference, complete or not, and why."""
    from prefbench.checkpoints import find_checkpoints
    from prefbench.report.scan import as_json, as_text

    found = find_checkpoints(
        directory, allow_pickle=allow_pickle, allow_remote_code=trust_remote_code
    )
    if not found:
        raise InputError(
            f"{directory}: no checkpoints here; a checkpoint has a config.json or an "
            "adapter_config.json beside its weights"
        )
    print(as_json(found) if json_ else as_text(found), end="")


@app.command(
    epilog="Examples: prefbench run runs/ · prefbench run runs/ --suite quick --final · "
    "prefbench run runs/ --task gsm8k_5shot --limit 100 --mirror data/ · "
    "prefbench run runs/ --suite winrates --opponent sft --max-cost 5 --dry-run · "
    "prefbench run runs/ --engine server --base-url http://127.0.0.1:8000/v1 · "
    "prefbench run runs/ --executor ray --ray-address auto --tensor-parallel-size 2 · "
    "prefbench run runs/ --executor slurm --max-workers 8 --slurm partition=gpu "
    "--slurm gpus_per_node=1 --slurm time=240"
)
def run(
    directories: Annotated[list[Path], typer.Argument(help="Directories of trained checkpoints.")],
    suite: Annotated[list[str], typer.Option("--suite", help="Suite to run [paper].")] = [],  # noqa: B006  # typer's way
    task: Annotated[
        list[str], typer.Option("--task", help="Task to run; several may be given.")
    ] = [],  # noqa: B006
    results: Results = Path("results"),
    limit: Limit = None,
    final: Annotated[bool, typer.Option("--final", help="Only each run's final model.")] = False,
    fewshot: FewshotKind = Fewshot.fixed,
    chat_template: ChatTemplate = Chat.auto,
    engine: EngineName = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    max_length: MaxLength = None,
    batch_size: BatchSize = None,
    tensor_parallel_size: TensorParallel = 1,
    data_parallel_size: Annotated[
        int,
        typer.Option(help="Engines at once, each on GPUs of its own; they share the cells."),
    ] = 1,
    gpu_memory_utilization: GpuMemory = 0.9,
    engine_timeout: EngineTimeout = 900.0,
    base_url: BaseUrl = None,
    served_model: ServedModel = None,
    server_api: Api = ServerApi.completions,
    api_key_env: ApiKeyEnv = None,
    concurrency: Concurrency = 32,
    twice: Annotated[
        list[str],
        typer.Option(
            help="Row or method to measure a second time, in other batches and with other seeds: "
            "the table marks differences that are no larger than that noise."
        ),
    ] = [],  # noqa: B006
    reference: Reference = None,
    judge: Judges = [],  # noqa: B006
    opponent: Opponents = [],  # noqa: B006
    judge_folder: JudgeFolders = [],  # noqa: B006
    judge_model: JudgeModels = [],  # noqa: B006
    judge_base_url: JudgeBaseUrl = None,
    judge_api_key_env: JudgeApiKeyEnv = None,
    judge_concurrency: JudgeConcurrency = None,
    judge_mode: Annotated[
        JudgeMode, typer.Option(help="batch: write files of requests, read files of replies.")
    ] = JudgeMode.online,
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    stop_when_sure: StopWhenSure = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be measured and what judges cost.")
    ] = False,
    mirror: Mirrors = [],  # noqa: B006
    task_folder: Folders = [],  # noqa: B006
    baseline: Baseline = None,
    interval: Interval = IntervalMethod.percentile,
    format_: TableForm = Form.text,
    allow_pickle: AllowPickle = False,
    trust_remote_code: RemoteCode = False,
    executor: Annotated[
        Where,
        typer.Option(
            help="Who measures: this machine, a Ray cluster, or jobs of Slurm; submitit-local "
            "tries such jobs as processes of this machine."
        ),
    ] = Where.here,
    max_workers: Annotated[
        int | None,
        typer.Option(
            help="Of a cluster: actors at once [what Ray has room for, growing with it], or jobs "
            "of Slurm [4]."
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="auto, host:port or ray://host:port [RAY_ADDRESS, else a cluster that runs here, "
            "else one is started for the run]."
        ),
    ] = None,
    cpus_per_engine: Annotated[
        int | None,
        typer.Option(help="Cores of a Ray actor [1 beside GPUs, else 4 or what a node has]."),
    ] = None,
    patience: Annotated[
        float, typer.Option(help="Seconds to wait for a Ray node that is large enough.")
    ] = 600.0,
    slurm: Annotated[
        list[str],
        typer.Option(
            "--slurm",
            help="KEY=VALUE for the jobs, as sbatch names it: partition, time (minutes), "
            "gpus_per_node, cpus_per_task, mem, account, qos, …; several may be given.",
        ),
    ] = [],  # noqa: B006
) -> None:
    """Measure everything that is not measured yet, and print the table.

    The same command again does nothing that is done. Exit code 0: all measured; 1: something was
    not, and the table says what and why; 2: the command makes no sense; 130: stopped by Ctrl-C,
    and the same command goes on from there.
    """
    settings = _settings(
        limit=limit,
        fewshot=fewshot.value,
        chat_template=chat_template.value,
        engine=engine,
        dtype=dtype,
        device=device,
        max_length=max_length,
        batch_size=batch_size,
        tensor_parallel_size=tensor_parallel_size,
        data_parallel_size=data_parallel_size,
        gpu_memory_utilization=gpu_memory_utilization,
        engine_timeout=engine_timeout,
        base_url=base_url,
        served_model=served_model,
        server_api=server_api.value,
        api_key_env=api_key_env,
        concurrency=concurrency,
        twice=tuple(twice),
        reference=reference,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
    )
    judging = _judging(
        judges=tuple(judge),
        opponents=tuple(opponent),
        folders=tuple(judge_folder),
        models=tuple(judge_model),
        base_url=judge_base_url,
        api_key_env=judge_api_key_env,
        concurrency=judge_concurrency,
        mode=judge_mode.value,
        max_cost=max_cost,
        max_calls=max_calls,
        stop_when_sure=stop_when_sure,
    )
    if baseline is not None:
        from prefbench.cells import find
        from prefbench.leaderboard import find_baseline

        # Said now, not after hours of measuring.
        find_baseline(find(directories, settings, final_only=final), baseline)
    carried_out_by = _executor(
        executor,
        max_workers=max_workers,
        ray_address=ray_address,
        cpus_per_engine=cpus_per_engine,
        patience=patience,
        slurm=slurm,
    )
    asked: dict[str, Any] = {
        "tasks": [*suite, *task] or ["paper"],
        "results": results,
        "settings": settings,
        "judging": judging,
        "mirrors": mirror,
        "task_folders": task_folder,
        "final_only": final,
    }
    if dry_run:
        from prefbench.foresight import foresee
        from prefbench.report.foresight import as_text

        print(as_text(foresee(directories, **asked)), end="")
        return
    outcome = _run(directories, **asked, executor=carried_out_by)
    _print_table(results, outcome.plan, baseline, interval.value, format_.value)
    _report(outcome, results)


@app.command(epilog="Example: prefbench tasks --task-folder my-tasks/")
def tasks(task_folder: Folders = []) -> None:  # noqa: B006
    """The tasks and suites there are."""
    from prefbench.report.scan import tasks_as_text
    from prefbench.tasks import load_index, tasks_folder

    print(tasks_as_text(*load_index([tasks_folder(), *task_folder])), end="")


@app.command(epilog="Example: prefbench mirror data/ --suite paper")
def mirror(
    directory: Annotated[Path, typer.Argument(help="Where to put the data.")],
    suite: Annotated[
        list[str], typer.Option("--suite", help="Suite whose data to copy [paper].")
    ] = [],  # noqa: B006
    task: Annotated[list[str], typer.Option("--task", help="Task whose data to copy.")] = [],  # noqa: B006
    from_: Annotated[
        list[Path], typer.Option("--from", help="Mirror to copy from, before the hub is asked.")
    ] = [],  # noqa: B006
    task_folder: Folders = [],  # noqa: B006
) -> None:
    """Copy the data of tasks for machines without internet."""
    from prefbench.cells import plan_tasks
    from prefbench.data import write_mirror
    from prefbench.tasks import splits_of

    planned = plan_tasks([*suite, *task] or ["paper"], mirrors=from_, folders=task_folder)
    wanted = [(one.source, splits_of(one.task, one.source)) for one in planned if one.source]
    for title, file in write_mirror(wanted, directory):
        print(f"{title}: {file}")
    for one in planned:
        if one.missing:
            print(f"{one.task.name}: {one.missing}", file=sys.stderr)


@app.command(
    epilog="Examples: prefbench doctor · prefbench doctor --quick --suite quick --mirror data/ · "
    "prefbench doctor --engine vllm --endpoint http://localhost:8000/v1 · prefbench doctor runs/dpo"
)
def doctor(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="A training run, or one of its checkpoint-N: look at its log alone, and whether "
            "what was measured agrees with it."
        ),
    ] = None,
    engine: Annotated[
        list[str], typer.Option("--engine", help="hf or vllm: must work, else exit code 1.")
    ] = [],  # noqa: B006
    suite: Annotated[
        list[str], typer.Option("--suite", help="Suite whose data to look for [paper].")
    ] = [],  # noqa: B006
    task: Annotated[list[str], typer.Option("--task", help="Task whose data to look for.")] = [],  # noqa: B006
    endpoint: Annotated[
        list[str],
        typer.Option(
            "--endpoint",
            help="OpenAI-compatible address that must answer; OPENAI_BASE_URL is looked at anyway.",
        ),
    ] = [],  # noqa: B006
    api_key_env: Annotated[
        str, typer.Option(help="Variable that holds the key for --endpoint.")
    ] = "OPENAI_API_KEY",
    mirror: Mirrors = [],  # noqa: B006
    task_folder: Folders = [],  # noqa: B006
    results: Results = Path("results"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Start no engine and read no data: a second or two.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Which engines, data and endpoints this machine can use, and the fix for what it cannot.

    Downloads nothing. Exit code 0: a run can start; 1: it cannot, or something that was asked for
    by name does not work.
    """
    import shutil

    from prefbench.report.doctor import as_json, as_text, waiting
    from prefbench.report.run_log import verdict

    closing = None
    if run is not None:
        from prefbench.doctor.run_log import examine_run
        from prefbench.report.collect import gather
        from prefbench.store import there

        held = there(results)
        findings = examine_run(run, gather(results) if held and held.plans() else None)
        closing = verdict(findings)
    else:
        from prefbench.doctor.examine import examine

        with waiting() as told:
            findings = examine(
                engine=engine,
                suites=suite,
                tasks=task,
                mirrors=mirror,
                task_folders=task_folder,
                endpoints=endpoint,
                key_variable=api_key_env,
                results=results,
                quick=quick,
                waiting=told,
            )
    if json_:
        print(as_json(findings), end="")
    else:
        colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        width = max(60, min(120, shutil.get_terminal_size((100, 24)).columns))
        print(as_text(findings, width=width, colours=colours, closing=closing), end="")
    if any(one.fails for one in findings):
        raise typer.Exit(1)


@app.command(
    epilog="Examples: prefbench demo · prefbench demo --llm-judge · prefbench demo --preference · "
    "prefbench demo --toys · prefbench demo --only-train zoo/"
)
def demo(
    directory: Annotated[Path, typer.Argument(help="Where to put everything.")] = Path("demo"),
    only_train: Annotated[
        bool, typer.Option("--only-train", help="Train, measure nothing.")
    ] = False,
    llm_judge: Annotated[
        bool,
        typer.Option(
            "--llm-judge",
            help="Judge by a small language model, too: behind a `vllm serve` on this machine.",
        ),
    ] = False,
    preference: Annotated[
        bool,
        typer.Option(
            "--preference",
            help="Measure what tuning did, and say which of the literature's claims hold here.",
        ),
    ] = False,
    toys: Annotated[
        bool,
        typer.Option("--toys", help="Work out and draw toys whose answers are known; train none."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the made-up world and of training.")] = 0,
    format_: TableForm = Form.text,
) -> None:
    """Train eleven small checkpoints by ten methods in a made-up world, and show their table.

    Needs no GPU, no key and no network; what is there already is used again.
    """
    if toys:
        from prefbench.report.toys import show_toys

        show_toys(directory / "toys")
        return
    from prefbench.demo.training import train_zoo
    from prefbench.report.progress import showing, zoo_progress

    if llm_judge and not only_train:
        from prefbench.engines.serving import need_vllm

        need_vllm()  # said now, not after minutes of training
    with zoo_progress() as progress:
        train_zoo(directory, seed=seed, progress=progress, judge=llm_judge)
    checkpoints, data, results = (directory / name for name in ("checkpoints", "data", "results"))
    if only_train:
        print(
            f"eleven checkpoints: {checkpoints}\nmeasure them with:\n  "
            f"prefbench run {checkpoints} --final --suite demo --mirror {data}"
        )
        return
    settings = _settings(engine="hf")  # the embedded one: the same numbers on every machine
    outcome = _run(
        [checkpoints],
        tasks=["demo_preference" if preference else "demo"],
        results=results,
        settings=settings,
        mirrors=[data],
        final_only=True,
    )
    if preference:
        claims.claims(results, readings=True)
        _report(outcome, results)
        return
    if llm_judge:
        from prefbench.demo.court import judge_by_both

        with showing() as listener:
            outcome = judge_by_both(directory, settings=settings, listener=listener)
    _print_table(results, outcome.plan, None, "percentile", format_.value)
    _report(outcome, results)


app.command(epilog=table.EXAMPLES)(table.table)
app.command(epilog=compare.EXAMPLES)(compare.compare)
app.command(epilog=why.EXAMPLES)(why.why)
app.command(epilog=claims.EXAMPLES)(claims.claims)
app.command(epilog=publish.EXAMPLES)(publish.report)
app.command(cls=gate.GateCommand, epilog=gate.EXAMPLES)(gate.gate)
app.command(epilog=trajectory.EXAMPLES)(trajectory.trajectory)
app.command(epilog=push.EXAMPLES)(push.push)
app.command(epilog=schedule.EXAMPLES)(schedule.schedule)
app.command(epilog=watch.EXAMPLES)(watch.watch)
app.command(epilog=watch.STATUS_EXAMPLES)(watch.status)
app.command(epilog=imported.EXAMPLES, name="import")(imported.import_)
app.command(epilog=winrate.EXAMPLES)(winrate.winrate)
app.add_typer(judges.judges, name="judges")


def _settings(**values: Any) -> Settings:
    from prefbench.cells import Settings

    return Settings(**values)


def _executor(
    where: Where,
    *,
    max_workers: int | None,
    ray_address: str | None,
    cpus_per_engine: int | None,
    patience: float,
    slurm: list[str],
) -> Executor | None:
    """Who measures; None is this machine.

    Raises:
        InputError: an option is given that the executor does not know.
    """
    given = {
        "--ray-address": ray_address is not None,
        "--cpus-per-engine": cpus_per_engine is not None,
        "--slurm": bool(slurm),
        "--max-workers": max_workers is not None,
    }
    known = {
        Where.here: (),
        Where.ray: ("--ray-address", "--cpus-per-engine", "--max-workers"),
        Where.slurm: ("--slurm", "--max-workers"),
        Where.submitit_local: ("--slurm", "--max-workers"),
    }[where]
    for name, is_given in given.items():
        if is_given and name not in known:
            raise InputError(f"--executor {where.value} knows no {name}")
    if where == Where.here:
        return None
    if where == Where.ray:
        from prefbench.cluster.ray import OnRay

        return OnRay(ray_address, max_workers, cpus_per_engine, patience)
    from prefbench.cluster.slurm import OnSlurm, options

    n_jobs = 4 if max_workers is None else max_workers
    return OnSlurm(options(slurm), n_jobs, "slurm" if where == Where.slurm else "local")


def _judging(**values: Any) -> Judging:
    from prefbench.comparisons import Judging

    return Judging(**values)


def _run(directories: list[Path], **arguments: Any) -> Outcome:
    from prefbench.report.progress import showing
    from prefbench.runner import run as run_cells

    with showing() as listener:
        return run_cells(directories, listener=listener, **arguments)


def _print_table(results: Path, plan: str, baseline: str | None, interval: Any, style: str) -> None:
    from prefbench.report.collect import collect
    from prefbench.report.tables import render, terminal_width

    board = collect(results, plan=plan, baseline=baseline, interval=interval)
    print(render(board, style, width=terminal_width()), end="")


def _report(outcome: Outcome, results: Path) -> None:
    """What was done, on stderr; exit code 1 if anything was not."""
    from prefbench.report.layout import plain

    said = f"{len(outcome.measured)} cells measured, {len(outcome.done)} were done already"
    print(f"\n{said}; results: {told(results)}", file=sys.stderr)
    if outcome.spent.get("calls"):
        lost = outcome.spent["reserved"]
        more = f", and up to ${lost:.2f} for calls without an answer" if lost else ""
        asked = f"{outcome.spent['calls']} calls, ${outcome.spent['spent']:.2f}{more}"
        print(f"judges: {asked}", file=sys.stderr)
    for name, reason in {**outcome.broken, **outcome.failed}.items():
        print(plain(f"not measured: {name}: {reason}"), file=sys.stderr)
    if outcome.left:
        print(plain(f"not uploaded: {outcome.left}"), file=sys.stderr)
    if outcome.broken or outcome.failed or outcome.left:
        raise typer.Exit(1)


def main() -> None:
    """The `prefbench` command."""
    # No bars and advice of libraries between our lines.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Most of a short run is imports, a sixth of which went into looking for garbage.
    gc.set_threshold(50_000)
    try:
        app()
    except PrefbenchError as error:
        from prefbench.report.layout import plain

        # It may quote names and texts that came with a checkpoint.
        print("error:", "\n".join(map(plain, str(error).splitlines())), file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except SystemExit as end:
        if end.code == STOPPED:  # by Ctrl-C, as typer tells it
            print("stopped; the same command goes on from here", file=sys.stderr)
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
