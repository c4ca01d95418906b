"""What a leaderboard holds, checkpoint by checkpoint and group by group, as exporters need it."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prefbench.errors import InputError
from prefbench.leaderboard import Board, Column, Entry, Group
from prefbench.metrics import Metric
from prefbench.records import Checkpoint
from prefbench.stats.estimates import Estimate
from prefbench.store import Store

Notice = Callable[[str], None]
"""Told, in a sentence, what an export had to leave out."""

LONGEST = 120
"""Bytes of a file's name that come from a name of a user's; what follows it has room to 255."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


class Value(NamedTuple):
    """One metric of a checkpoint."""

    column: Column
    entry: Entry

    @property
    def metric(self) -> Metric:
        return self.column.metric

    @property
    def estimate(self) -> Estimate:
        return self.entry.score.estimate


@dataclass(frozen=True)
class Result:
    """All that one checkpoint gave on one column group; values that are no finite number left out.

    `manifest` is the sealed cell's, `cell` its name in the store.
    """

    row: Checkpoint
    group: Group
    cell: str
    manifest: Mapping[str, Any]
    values: tuple[Value, ...]

    @property
    def config(self) -> Mapping[str, Any]:
        """The task's lm-eval settings."""
        return dict(self.manifest["task"]["config"])

    @property
    def n_scored(self) -> int:
        """Items that have a value."""
        return int(self.manifest["n_items"]) - int(self.manifest["n_missing"])

    @property
    def split(self) -> str | None:
        """The split that was scored."""
        return self.config.get("test_split") or self.config.get("validation_split")

    @property
    def finished(self) -> datetime.datetime:
        """When the cell was sealed, in UTC."""
        when = datetime.datetime.fromisoformat(self.manifest["finished"])
        return when.astimezone(datetime.UTC)


def results_of(
    board: Board, cells: Mapping[tuple[str, str], str], store: Store, notice: Notice
) -> list[Result]:
    """What a board holds, in its order of rows and columns.

    Args:
        board: the leaderboard.
        cells: the store's cell by checkpoint and group.
        store: where these cells are.
        notice: told of column groups that no cell of one checkpoint stands behind.

    Raises:
        InputError: nothing is measured.
    """
    groups = {column.group.name: column.group for column in board.columns}
    found: list[Result] = []
    without: dict[str, None] = {}
    for row in board.rows:
        for group in groups.values():
            values = tuple(
                Value(column, entry)
                for column in board.columns
                if column.group.name == group.name and (entry := board.entry(row, column))
                if math.isfinite(entry.score.estimate.value)
            )
            if not values:
                continue
            cell = cells.get((row.name, group.name))
            manifest = store.manifest(cell) if cell else None
            if cell is None or manifest is None:
                without[group.name] = None
            else:
                found.append(Result(row, group, cell, manifest, values))
    for name in without:
        notice(f"{name}: left out: a ranking of checkpoints against each other is no one's result")
    if not found:
        raise InputError(f"{store.name}: nothing is measured here that could be exported")
    return found


def by_checkpoint(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by their checkpoint's name, in their order."""
    several: dict[str, list[Result]] = {}
    for result in results:
        several.setdefault(result.row.name, []).append(result)
    return several


def file_name(text: str, taken: Collection[str] = ()) -> str:
    """A text as the name of one file or folder: as lm-eval writes it where that is safe.

    Nothing in it names another place, steers a terminal, or is more than a file system takes.

    Args:
        text: anything.
        taken: names that others have; a further one gets a hash of its text.
    """
    name = re.sub(r'["<>:/|\\?*\[\]]+', "__", text)  # lm-eval's own rule
    name = re.sub(r"[^\w.,=@+() -]", "_", name).lstrip(". -").rstrip(". ")
    cut = name.encode()[:LONGEST].decode(errors="ignore").rstrip(". ")
    if _RESERVED.match(cut):
        cut = f"_{cut}"
    used = {other.casefold() for other in taken}
    if not cut or len(cut) < len(name) or cut.casefold() in used:
        cut = f"{cut or 'unnamed'}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"
    return cut


def file_names(texts: Iterable[str]) -> dict[str, str]:
    """A file name for each of several texts, all different."""
    names: dict[str, str] = {}
    for text in texts:
        if text not in names:
            names[text] = file_name(text, names.values())
    return names


def write_text(path: Path, lines: Iterable[str]) -> Path:
    """Writes a file beside its place and moves it there, line by line.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(lines)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON in ASCII, with a line's end; any text survives, and NaN is refused."""
    return json.dumps(value, indent=indent, allow_nan=False, default=str) + "\n"


def sha256(text: str) -> str:
    """The hash of a text, as lm-eval writes hashes."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def common(values: Sequence[Any]) -> Any:
    """What all of several values are; None where they differ."""
    first = values[0] if values else None
    return first if all(value == first for value in values) else None


class HubDataset(NamedTuple):
    """A data set of the Hugging Face hub."""

    dataset: str
    configuration: str | None
    revision: str | None


def hub_dataset(one: Result) -> HubDataset | None:
    """The data set behind a result, if the hub has it: one that a mirror alone knows it has not."""
    facts, config = one.manifest.get("data") or {}, one.config
    dataset = config.get("dataset_path")
    if not isinstance(dataset, str) or "/" not in dataset:
        return None
    if facts.get("from") != "hub" and not facts.get("revision"):
        return None
    options = config.get("dataset_kwargs") or {}
    configuration = config.get("dataset_name") or options.get("data_dir")
    return HubDataset(dataset, configuration, facts.get("revision") or options.get("revision"))
