"""Rows of JSON files that others wrote, read strictly: every message names the file and the row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefbench.errors import DataError

LFS_POINTER = "version https://git-lfs"


@dataclass(frozen=True)
class Row:
    """One object of a file and where it stands."""

    where: str
    fields: Mapping[str, Any]

    def wrong(self, key: str, problem: str) -> DataError:
        """What to raise about one of the keys."""
        return DataError(f"{self.where}, key {key!r}: {problem}")

    def has(self, key: str) -> bool:
        """Whether the key is there and holds something."""
        return self.fields.get(key) is not None

    def text(self, key: str) -> str:
        """A text that must be there."""
        found = self.text_or_none(key)
        if found is None:
            there = ", ".join(sorted(self.fields)[:12]) or "nothing"
            raise self.wrong(key, f"a text is needed and there is none; the row has {there}")
        return found

    def text_or_none(self, key: str) -> str | None:
        """A text; None where the key is absent or null."""
        value = self.fields.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, f"holds {shown(value)} where a text is needed")
        return value

    def id(self, key: str) -> str:
        """A text or whole number that names something, as text."""
        value = self.fields.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(key)

    def number_or_none(self, key: str) -> float | None:
        """A number, maybe NaN; None where it is null. The key must be there."""
        if key not in self.fields:
            there = ", ".join(sorted(self.fields)[:12]) or "nothing"
            raise self.wrong(key, f"is absent; the row has {there}")
        value = self.fields[key]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, f"holds {shown(value)} where a number is needed")
        return float(value) if isinstance(value, float) or abs(value) < 2**53 else math.inf


def read_rows(path: Path) -> list[Row]:
    """The objects of a JSON list, or of JSON lines.

    Raises:
        DataError: the file cannot be read, is no JSON, or holds something else than objects.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        ) from error
    if text.startswith(LFS_POINTER):
        raise DataError(
            f"{path}: only Git LFS's pointer to the file; fetch the file itself with: git lfs pull"
        )
    if text.lstrip()[:1] == "[":
        values = _parsed(text, str(path))
        rows = [Row(f"{path}, row {i}", value) for i, value in enumerate(values, 1)]
    else:
        # Not splitlines: a text may hold a line separator that JSON need not escape.
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [Row(f"{path}, line {i}", _parsed(line, f"{path}, line {i}")) for i, line in lines]
    for row in rows:
        if not isinstance(row.fields, dict):
            raise DataError(
                f"{row.where}: holds {shown(row.fields)} where an object is needed; "
                "a file is a JSON list of objects, or one object a line"
            )
    if not rows:
        raise DataError(f"{path}: holds no rows; is it the right file?")
    return rows


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path, *, lines: bool) -> None:
    """Rows as JSON lines or as a JSON list; ASCII, so that any text survives.

    Raises:
        DataError: a row holds what JSON cannot, such as NaN in a raw reply, or the file cannot be
            written.
    """
    try:
        if lines:
            text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        else:
            text = json.dumps(list(rows), indent=2, allow_nan=False) + "\n"
        path.write_text(text, encoding="utf-8")
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: not written: a row holds what JSON cannot: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def shown(value: object) -> str:
    """A value for a message: short whatever it is."""
    said = ascii(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return said if len(said) <= 40 else f"{said[:37]}..."


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise DataError(f"{where}: nested too deeply to be read") from error
    except ValueError as error:
        raise DataError(
            f"{where}: not JSON ({error}); a file is a JSON list of objects, or one object a line"
        ) from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {shown(twice)} twice")
    return found
