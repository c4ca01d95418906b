"""lm-eval's `results_*.json` and the `samples_*.jsonl` beside it, read strictly.

Every message names the file and the key. Read from what 0.4.13 writes; older files lack some keys.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefbench.errors import InputError
from prefbench.interchange.exported import sha256
from prefbench.interchange.rows import shown
from prefbench.interchange.unsecret import unsecret, unsecret_arguments

NO_METRICS = ("alias", "name", "samples", "sample_len", "sample_count", "bypass", "")
HASHES = ("doc_hash", "prompt_hash", "target_hash")


@dataclass(frozen=True)
class Aggregate:
    """A value over all documents, as lm-eval printed it; `se` and `n` where it says them."""

    value: float
    se: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Sample:
    """One document under one filter pipeline.

    `sent` holds the arguments of each request, `replies` the model's answers to each, `values` a
    number per metric, or a pair of a sum and its weight.
    """

    doc_id: int
    document: Mapping[str, Any]
    pipeline: str
    sent: Sequence[Sequence[Any]]
    replies: Sequence[Any]
    values: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class TaskRun:
    """What one task gave: aggregates by metric (`acc`, `exact_match,strict-match`), and samples."""

    name: str
    config: Mapping[str, Any]
    version: Any
    n_shots: int
    metrics: Mapping[str, Aggregate]
    higher_is_better: Mapping[str, bool]
    samples: tuple[Sample, ...] = ()
    samples_sha256: str | None = None


@dataclass(frozen=True)
class ModelRun:
    """One results file: a model on some tasks."""

    path: Path
    sha256: str
    lm_eval: str
    model: str
    """The kind of model, e.g. hf."""
    model_name: str
    config: Mapping[str, Any]
    """How it ran."""
    chat: bool
    when: float | None
    tasks: Mapping[str, TaskRun]

    @property
    def limit(self) -> int | None:
        """How many documents from the head; a share of them is no number, and is left to n."""
        limit = self.config.get("limit")
        if not isinstance(limit, int | float) or not 1 <= limit < math.inf:
            return None
        return int(limit)


def results_files(paths: Sequence[Path]) -> list[Path]:
    """The results files among paths and below them, the oldest run of a folder first.

    Raises:
        InputError: a path has none.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.rglob("results_*.json"), key=lambda p: (p.parent, p.name))
            if not inside:
                raise InputError(f"{path}: no results_*.json in it or below it")
            found += inside
        elif path.suffix == ".jsonl":
            raise InputError(f"{path}: give the results_*.json beside it; samples are found by it")
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def read_run(path: Path) -> ModelRun:
    """A results file with the samples of the same run that lie beside it.

    Raises:
        InputError: a file cannot be read, is cut off, holds no results, holds a value that is no
            finite number, or the samples are not those of these results.
    """
    try:
        return _run(path)
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not as lm-eval writes it, nor its samples: {error}") from error


def _run(path: Path) -> ModelRun:
    raw = _bytes(path)
    whole = _parsed(raw, str(path))
    results = _mapping(whole, "results", path)
    if not results:
        raise InputError(f"{path}, key 'results': is empty; the run has no results to import")
    config = unsecret(dict(_mapping(whole, "config", path, there=False)))
    if "model_args" in config:
        config["model_args"] = unsecret_arguments(config["model_args"])
    tasks = {str(name): _task(path, whole, str(name)) for name in results}
    tasks = {name: task for name, task in tasks.items() if task.metrics}
    if not tasks:
        raise InputError(f"{path}, key 'results': no task in it has a metric")
    return ModelRun(
        path,
        hashlib.sha256(raw).hexdigest(),
        str(whole.get("lm_eval_version") or "of an unsaid version"),
        str(config.get("model") or whole.get("model_source") or "unknown"),
        _model_name(whole, config) or path.parent.name or path.stem,
        config,
        bool(whole.get("chat_template")) or bool(whole.get("chat_template_sha")),
        _date(whole.get("date")),
        tasks,
    )


def _date(value: Any) -> float | None:
    """Seconds since 1970, up to the year 3000."""
    return float(value) if isinstance(value, int | float) and 0 <= value < 32_503_680_000 else None


def _task(path: Path, whole: Mapping[str, Any], name: str) -> TaskRun:
    def told(key: str) -> Any:
        found = whole.get(key)
        return found.get(name) if isinstance(found, dict) else None

    config = unsecret(told("configs")) if isinstance(told("configs"), dict) else {}
    better = told("higher_is_better") or {}
    metrics = _metrics(path, whole["results"][name], f"results.{name}", told("n-samples"))
    stamp = path.stem.rpartition("_")[2]
    samples: tuple[Sample, ...] = ()
    code = None
    for beside in path.parent.iterdir():  # no path is made of the file's own words
        if beside.name != f"samples_{name}_{stamp}.jsonl":
            continue
        raw = _bytes(beside)
        code = hashlib.sha256(raw).hexdigest()
        samples = _samples(beside, raw, metrics, told("task_hashes"), path)
    shots = told("n-shot")
    return TaskRun(
        name,
        config,
        told("versions"),
        shots if isinstance(shots, int) else int(config.get("num_fewshot") or 0),
        metrics,
        {str(key): value for key, value in better.items() if isinstance(value, bool)},
        samples,
        code,
    )


def _metrics(path: Path, entry: Any, where: str, counts: Any) -> dict[str, Aggregate]:
    """The metrics of a task with their standard errors."""
    if not isinstance(entry, dict):
        raise InputError(f"{path}, key {where!r}: holds {shown(entry)} where metrics are needed")
    n = (counts or {}).get("effective") if isinstance(counts, dict) else None
    n = n if isinstance(n, int) else entry.get("sample_len")
    found = {}
    for key, value in entry.items():
        name, _, pipeline = key.partition(",")
        if name.strip() in NO_METRICS or name.endswith("_stderr"):
            continue
        suffix = f",{pipeline}" if pipeline else ""
        se = entry.get(f"{name}_stderr{suffix}")
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not numeric or not math.isfinite(value):
            raise InputError(
                f"{path}, key '{where}.{key}': holds {shown(value)} where a finite number is "
                "needed; take the metric out of the file to import the others"
            )
        if not isinstance(se, int | float) or not math.isfinite(se):
            se = None  # lm-eval writes N/A where it knows none
        ours = name if pipeline in ("", "none") else f"{name},{pipeline}"
        found[ours] = Aggregate(float(value), se, n if isinstance(n, int) else None)
    return found


def _samples(
    path: Path, raw: bytes, metrics: Mapping[str, Aggregate], hashed: Any, results: Path
) -> tuple[Sample, ...]:
    """The rows of a samples file, held against the results that they should be those of."""
    rows = list(_rows(path, raw))
    found: list[Sample] = []
    seen: dict[tuple[int, str], str] = {}
    for where, row in rows:
        sample = _sample(where, row, metrics)
        key = sample.doc_id, sample.pipeline
        if key in seen:
            raise InputError(
                f"{where}, key 'doc_id': {sample.doc_id} is there twice under the filter "
                f"{sample.pipeline!r}, first in {seen[key]}"
            )
        seen[key] = where
        found.append(sample)
    if isinstance(hashed, str) and all(isinstance(r.get(k), str) for _, r in rows for k in HASHES):
        text = "".join(row[key] for _, row in rows for key in HASHES)
        if sha256(text) != hashed:
            raise InputError(
                f"{path}: not the samples of {results.name}, whose task_hashes name others; keep "
                "each results file with the samples that its own run wrote"
            )
    return tuple(found)


def _sample(where: str, row: Mapping[str, Any], metrics: Mapping[str, Aggregate]) -> Sample:
    doc_id = row.get("doc_id")
    if not isinstance(doc_id, int) or isinstance(doc_id, bool) or not 0 <= doc_id < 2**31:
        raise InputError(f"{where}, key 'doc_id': holds {shown(doc_id)} where a number is needed")
    document = row.get("doc")
    if not isinstance(document, dict):
        raise InputError(f"{where}, key 'doc': holds {shown(document)} where a document is needed")
    pipeline = str(row.get("filter") or "none")
    listed = row.get("metrics")
    if not isinstance(listed, list):  # before 0.4.9 rows did not list them
        listed = [name for key in metrics if (name := key.partition(",")[0]) in row]
    sent = row.get("arguments") or {}
    requests = sent.values() if isinstance(sent, dict) else sent
    replies = row.get("resps")
    return Sample(
        doc_id,
        document,
        pipeline,
        [list(one.values()) if isinstance(one, dict) else list(one) for one in requests],
        replies if isinstance(replies, list) else [],
        {
            name: numbers
            for name in listed
            if name not in NO_METRICS and (numbers := _numbers(where, name, row.get(name)))
        },
    )


def _numbers(where: str, name: str, value: Any) -> tuple[float, ...]:
    """A metric's number or pair of numbers; empty where it is something else."""
    several = value if isinstance(value, list) else [value]
    if len(several) > 2 or not all(isinstance(one, int | float) for one in several):
        return ()
    if not all(math.isfinite(one) for one in several):
        raise InputError(
            f"{where}, key {name!r}: holds {shown(value)} where a finite number is needed"
        )
    return tuple(map(float, several))


def _rows(path: Path, raw: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    # Not splitlines: a text may hold a line separator that JSON need not escape.
    for number, line in enumerate(raw.split(b"\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _parsed(line, where)


def _model_name(whole: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The model's name as lm-eval tells it, else the weights that it was pointed at."""
    if isinstance(whole.get("model_name"), str):
        return str(whole["model_name"])
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        pairs = (part.partition("=") for part in arguments.split(","))
        arguments = {key.strip(): value for key, _, value in pairs}
    found = arguments if isinstance(arguments, dict) else {}
    return str(found.get("peft") or found.get("pretrained") or found.get("model") or "")


def _mapping(whole: Mapping[str, Any], key: str, path: Path, *, there: bool = True) -> Any:
    value = whole.get(key)
    if value is None and not there:
        return {}
    if not isinstance(value, dict):
        what = "is absent" if value is None else f"holds {shown(value)}"
        raise InputError(f"{path}, key {key!r}: {what}; is it a results file of lm-eval?")
    return value


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parsed(raw: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except RecursionError as error:
        raise InputError(f"{where}: nested too deeply to be read") from error
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); was it cut off?") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: holds {shown(value)} where an object is needed")
    found: dict[str, Any] = _writable(value) if b"\\u" in raw else value
    return found


def _writable(value: Any) -> Any:
    """With replacement signs for halves of characters, which JSON can hold and no file can."""
    if isinstance(value, dict):
        return {_writable(name): _writable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_writable(each) for each in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value
