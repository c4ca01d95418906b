"""A data set by its hub id: from a local mirror directory, or from the hub at a pinned revision."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from prefbench import plain_yaml
from prefbench.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

INDEX = "mirror.yaml"
LOCAL_FORMATS = ("parquet", "json", "csv")

LAYOUT: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "openai/gsm8k": {"main": {"train": "gsm8k/train.parquet", "test": "gsm8k/test.parquet"}},
    "allenai/ai2_arc": {
        name: {
            split: f"arc/{name.lower().replace('-', '_')}_{split}.parquet"
            for split in ("train", "validation", "test")
        }
        for name in ("ARC-Easy", "ARC-Challenge")
    },
    "Rowan/hellaswag": {
        "default": {
            "train": "hellaswag/train.parquet",
            "validation": "hellaswag/validation.parquet",
        }
    },
    "Anthropic/hh-rlhf": {
        f"{kind}-base": {"test": f"hh_rlhf/{kind}_base_test.parquet"}
        for kind in ("helpful", "harmless")
    },
    "Salesforce/wikitext": {"wikitext-2-raw-v1": {"test": "perplexity/wikitext2_raw_test.parquet"}},
    "tatsu-lab/alpaca_eval": {"default": {"test": "alpaca_eval/eval.json"}},
    "Pascalson/CausalDialogue": {"default": {"test": "causal_dialogue/test_dag.json"}},
}
"""Where a mirror keeps each set unless its own `mirror.yaml` says otherwise."""


@dataclass(frozen=True)
class Source:
    """Where one configuration of a data set comes from.

    `files` maps each split that a mirror (or the task's own data_files) has to its file; it is
    empty for a set that comes from the hub at `revision`. A source of several configurations has
    them as `parts`: their rows one after the other, with the configuration as `domain`.
    """

    dataset: str
    configuration: str = "default"
    revision: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Source, ...] = ()

    @property
    def title(self) -> str:
        """The set as a person would name it."""
        return self.dataset + ("" if self.configuration == "default" else f"/{self.configuration}")

    def has(self, split: str) -> bool:
        """Whether the split can be expected there: the hub is taken to have every split."""
        if self.parts:
            return all(part.has(split) for part in self.parts)
        return not self.files or split in self.files


def find_source(config: Mapping[str, Any], mirrors: Sequence[Path], folder: Path) -> Source:
    """Where the data of a task come from; looks at directories only, loads nothing.

    Args:
        config: the task's lm-eval settings (`dataset_path`, `dataset_name`, `dataset_kwargs`).
        mirrors: mirror directories, the first that has the set wins.
        folder: what the task's own relative `data_files` are relative to.

    Raises:
        DataError: a mirror's index cannot be read, or a file that the task names is not there.
    """
    options = dict(config.get("dataset_kwargs") or {})
    revision = options.pop("revision", None)
    dataset = str(config["dataset_path"])
    if dataset in LOCAL_FORMATS:
        named = options.pop("data_files", None)
        if not isinstance(named, Mapping) or not all(isinstance(n, str) for n in named.values()):
            raise DataError(f"{folder}: dataset_kwargs.data_files must name one file per split")
        files = {split: folder / name for split, name in named.items()}
        for split, file in files.items():
            if not file.is_file():
                raise DataError(f"{file}: the {split} split that the task names is not there")
        return Source(dataset, files=files, options=options)
    if isinstance(options.get("data_dir"), list):
        return _joined(config, mirrors, folder)
    configuration = str(config.get("dataset_name") or options.get("data_dir") or "default")
    for mirror in mirrors:
        if files := _mirrored(mirror, dataset, configuration):
            return Source(dataset, configuration, revision, files, options)
    if config.get("dataset_name"):
        options["name"] = config["dataset_name"]
    return Source(dataset, configuration, revision, {}, options)


def _joined(config: Mapping[str, Any], mirrors: Sequence[Path], folder: Path) -> Source:
    """Several configurations of one set, each from wherever it is."""
    options = dict(config["dataset_kwargs"])
    names = [str(name) for name in options.pop("data_dir")]
    parts = tuple(
        find_source({**config, "dataset_kwargs": {**options, "data_dir": name}}, mirrors, folder)
        for name in names
    )
    # From files only where all are: `load` asks the parts.
    files = parts[0].files if all(part.files for part in parts) else {}
    title = "+".join(names)
    return Source(parts[0].dataset, title, parts[0].revision, files, {}, parts)


def _mirrored(mirror: Path, dataset: str, configuration: str) -> dict[str, Path]:
    """The splits of a set that a mirror has, by file."""
    if not mirror.is_dir():
        raise DataError(f"{mirror}: no such mirror directory (--mirror or PREFBENCH_MIRROR)")
    splits = _index(mirror).get(dataset, {}).get(configuration, {})
    found = {split: mirror / name for split, name in splits.items() if (mirror / name).is_file()}
    if len(found) < len(splits) and (mirror / INDEX).is_file():
        lost = next(name for split, name in splits.items() if split not in found)
        raise DataError(f"{mirror / INDEX}: names {lost} for {dataset}, which is not there")
    return found


def _index(mirror: Path) -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """A mirror's own index, else the usual layout."""
    file = mirror / INDEX
    if not file.is_file():
        return LAYOUT
    try:
        index = plain_yaml.load(file.read_text(encoding="utf-8")) or {}
        return {
            dataset: {
                name: {split: os.fspath(path) for split, path in splits.items()}
                for name, splits in configurations.items()
            }
            for dataset, configurations in index.items()
        }
    except (yaml.YAMLError, OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}: cannot be read as data set → configuration → split → file: {error}"
        ) from error


def identity(source: Source, splits: Iterable[str]) -> str:
    """What the data are: the hash of the files of a mirror, or the hub's pinned revision.

    Raises:
        DataError: neither is known (a hub set without a pinned revision).
    """
    if source.parts:
        return " + ".join(dict.fromkeys(identity(part, splits) for part in source.parts))
    if source.files:
        digest = hashlib.sha256()
        for split in sorted(set(splits)):
            if split in source.files:
                with source.files[split].open("rb") as file:
                    hashed = hashlib.file_digest(file, "sha256").hexdigest()
                digest.update(f"{split}:{hashed};".encode())
        return f"sha256:{digest.hexdigest()}"
    if not source.revision:
        raise DataError(
            f"{source.title}: the task pins no revision (dataset_kwargs: {{revision: …}}), "
            "so its data could change under its results; pin one or use a mirror"
        )
    return f"{source.dataset}@{source.revision}"


def load(source: Source, splits: Iterable[str]) -> dict[str, Dataset]:
    """The asked splits of a set, as data sets in memory.

    Raises:
        DataError: a file is unreadable, or the hub (or its cache, when offline) has no such set.
    """
    wanted = list(dict.fromkeys(splits))
    if source.parts:
        return _load_parts(source.parts, wanted)
    if source.files:
        return {split: _read(source.files[split]) for split in wanted if split in source.files}
    import datasets

    # Its retries are told by the error at their end.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return {
            split: datasets.load_dataset(
                source.dataset, split=split, revision=source.revision, **source.options
            )
            for split in wanted
        }
    except (OSError, ValueError, RuntimeError) as error:  # what hub, cache and builders raise
        offline = " (offline)" if is_offline() else ""
        raise DataError(
            f"{source.title}: not in a mirror and not to be had from the hub{offline}: "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from error


def _load_parts(parts: Sequence[Source], splits: Sequence[str]) -> dict[str, Dataset]:
    import datasets

    loaded = [load(part, splits) for part in parts]
    return {
        split: datasets.concatenate_datasets(
            [
                one[split].add_column("domain", [part.configuration] * len(one[split]))
                for part, one in zip(parts, loaded, strict=True)
            ]
        )
        for split in splits
        if all(split in one for one in loaded)
    }


def _read(path: Path) -> Dataset:
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return datasets.Dataset(InMemoryTable(pyarrow.parquet.read_table(path)))
        if path.suffix == ".csv":
            import pyarrow.csv

            return datasets.Dataset(InMemoryTable(pyarrow.csv.read_csv(path)))
        return datasets.Dataset.from_list(list(_json_rows(path)))
    except (OSError, ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as data: {_first_line(error)}") from error


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON list or of JSON lines."""
    import json

    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        yield from json.loads(text)
    else:
        # Not splitlines: a text may hold a line separator that JSON need not escape.
        yield from (json.loads(line) for line in text.split("\n") if line.strip())


def write_mirror(
    sources: Iterable[tuple[Source, Sequence[str]]], folder: Path
) -> Iterator[tuple[str, Path]]:
    """Copies splits into a mirror directory, one parquet file each, and writes its index.

    Yields:
        The title of each set and split, and the file that now holds it.

    Raises:
        DataError: a set cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, dict[str, dict[str, str]]] = {}
    for dataset, configurations in _index(folder).items():  # what is there stays
        for name in configurations:
            if files := _mirrored(folder, dataset, name):
                index.setdefault(dataset, {})[name] = {
                    split: file.relative_to(folder).as_posix() for split, file in files.items()
                }
    from datasets import disable_progress_bars

    disable_progress_bars()  # each file has a line of ours
    wanted: dict[tuple[str | None, ...], tuple[Source, dict[str, None]]] = {}
    for one, splits in sources:  # several tasks may be of one set
        for part in one.parts or (one,):
            key = (part.dataset, part.configuration, part.revision, repr(part.options))
            wanted.setdefault(key, (part, {}))[1].update(dict.fromkeys(splits))
    for source, needed in wanted.values():
        loaded = load(source, list(needed))
        for split, dataset in loaded.items():
            usual = LAYOUT.get(source.dataset, {}).get(source.configuration, {}).get(split, "")
            name = usual if usual.endswith(".parquet") else _spare_name(source, split)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            dataset.to_parquet(folder / name)
            index.setdefault(source.dataset, {}).setdefault(source.configuration, {})[split] = name
            yield f"{source.title} {split}", folder / name
    (folder / INDEX).write_text(yaml.safe_dump(index, sort_keys=True), encoding="utf-8")


def _spare_name(source: Source, split: str) -> str:
    return f"{source.dataset.replace('/', '__')}/{source.configuration}/{split}.parquet"


def is_offline() -> bool:
    """Whether the environment forbids the hub, as huggingface_hub or datasets read it."""
    hub = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    sets = os.environ.get("HF_DATASETS_OFFLINE", "")
    return any(flag.upper() in {"1", "TRUE", "YES", "ON"} for flag in (hub, sets))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
