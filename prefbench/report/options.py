"""Options that verbs share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from prefbench.buckets.places import place
from prefbench.errors import InputError


class Form(StrEnum):
    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"


class IntervalMethod(StrEnum):
    percentile = "percentile"
    bca = "bca"


class Corrections(StrEnum):
    holm = "holm"
    bh = "bh"
    none = "none"


class Fewshot(StrEnum):
    fixed = "fixed"
    parity = "parity"


class Chat(StrEnum):
    auto = "auto"
    on = "on"
    off = "off"


class ServerApi(StrEnum):
    completions = "completions"
    chat = "chat"


def results_place(text: str | Path) -> Path:
    """The directory that `--results` names, of an address its working copy."""
    try:
        return place(text)
    except InputError as error:  # as any other option that makes no sense
        raise typer.BadParameter(str(error)) from None


PLACE = "PLACE"
ResultsFolder = Annotated[
    Path,
    typer.Argument(
        help="A results directory, or its address on an object store.",
        parser=results_place,
        metavar=PLACE,
    ),
]
Results = Annotated[
    Path,
    typer.Option(
        "--results",
        "-r",
        help="Where results are kept: a directory, or s3://bucket/prefix.",
        parser=results_place,
        metavar=PLACE,
    ),
]
OnlyTasks = Annotated[
    list[str], typer.Option("--task", help="Only this task; several may be given.")
]
Baseline = Annotated[
    str | None,
    typer.Option(help="Row or method that differences are taken to. Default: the one SFT."),
]
Confidence = Annotated[float, typer.Option(help="Of the intervals.")]
Interval = Annotated[IntervalMethod, typer.Option(help="Bootstrap interval.")]
Correction = Annotated[
    Corrections,
    typer.Option(help="For the number of comparisons: Holm, Benjamini and Hochberg, none."),
]
Everything = Annotated[bool, typer.Option("--all", help="All metrics, not the main ones.")]
TableForm = Annotated[Form, typer.Option("--format", help="Of the table.")]
Width = Annotated[int | None, typer.Option(help="Of a text table, in characters.")]
Mirrors = Annotated[
    list[Path],
    typer.Option("--mirror", help="Local directory with data sets; may be given several times."),
]
Folders = Annotated[
    list[Path], typer.Option("--task-folder", help="Folder with task YAML files of your own.")
]
JudgeFolders = Annotated[
    list[Path], typer.Option("--judge-folder", help="Folder with judge YAML files of your own.")
]
AllowPickle = Annotated[
    bool,
    typer.Option("--allow-pickle", help="Load pickled weights: they can run code when opened."),
]
RemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that a checkpoint brings.")
]

# What is measured, and how: as `run` takes it.
Limit = Annotated[int | None, typer.Option(help="Only the first N items of each task; stamped.")]
FewshotKind = Annotated[
    Fewshot,
    typer.Option(help="fixed: the same examples for every item; parity: lm-eval's own draws."),
]
ChatTemplate = Annotated[Chat, typer.Option(help="auto: where the tokenizer has a chat template.")]
EngineName = Annotated[
    str,
    typer.Option(
        help="hf, vllm or server; auto: vllm for what is generated, if installed, else hf."
    ),
]
Dtype = Annotated[str, typer.Option(help="auto: as stored; or float32, bfloat16, float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
MaxLength = Annotated[int | None, typer.Option(help="Context length; default: the model's.")]
BatchSize = Annotated[
    int | None, typer.Option(help="Items answered, and kept, at once [up to the engine].")
]
TensorParallel = Annotated[int, typer.Option(help="GPUs that vLLM spreads one checkpoint over.")]
GpuMemory = Annotated[float, typer.Option(help="Share of a GPU's memory that vLLM may take.")]
EngineTimeout = Annotated[
    float, typer.Option(help="Seconds without progress after which vLLM counts as hung.")
]
BaseUrl = Annotated[
    str | None, typer.Option(help="For --engine server: an OpenAI-compatible endpoint.")
]
ServedModel = Annotated[str | None, typer.Option(help="The name it serves the checkpoint under.")]
Api = Annotated[ServerApi, typer.Option(help="chat: the server applies its own chat template.")]
ApiKeyEnv = Annotated[str | None, typer.Option(help="Environment variable that holds its key.")]
Concurrency = Annotated[int, typer.Option(help="Requests to it at once.")]
Reference = Annotated[
    str | None,
    typer.Option(
        help="What all others count as tuned from: a row, a method or a directory. Else what "
        "each was tuned from, as far as that is known."
    ),
]
Judges = Annotated[
    list[str], typer.Option("--judge", help="Judge, instead of those that the tasks name.")
]
Opponents = Annotated[
    list[str],
    typer.Option(
        "--opponent",
        help="Whom answers are judged against: a row, a method, reference or round_robin.",
    ),
]
JudgeModels = Annotated[
    list[str],
    typer.Option(help="Asked instead of the judges' own: MODEL, or JUDGE=MODEL for one."),
]
JudgeBaseUrl = Annotated[
    str | None, typer.Option(help="Asked instead of the judges' own endpoints.")
]
JudgeApiKeyEnv = Annotated[
    str | None, typer.Option(help="Environment variable that holds its key, if it needs one.")
]
JudgeConcurrency = Annotated[
    int | None, typer.Option(help="Requests to a judge at once [its own, 32].")
]
MaxCost = Annotated[
    float | None, typer.Option(help="US dollars that judges may cost; never passed.")
]
MaxCalls = Annotated[
    int | None, typer.Option(help="Calls to judges that may be made; never passed.")
]
StopWhenSure = Annotated[
    bool,
    typer.Option("--stop-when-sure", help="Ask no more about a win rate that is surely not ½."),
]
