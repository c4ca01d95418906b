"""Files that are there whole or not at all, and what goes wrong with them as our error."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prefbench.errors import StoreError


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What the operating system says of a path, as our error."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}; what was appended before is "
            "safe, make room or fix the permissions and run the same command again"
        ) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON for people and machines, its keys sorted."""
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, default=str)
    replace(path, lambda temporary: temporary.write_bytes(encoded(text + "\n")))


def write_table(path: Path, table: pa.Table) -> None:
    """Writes Parquet."""
    replace(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes beside a file and renames, so that a reader sees the old one or the new one."""
    # Two nodes may write the same file, each in a process of the same number.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file of JSON; None where there is no file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read: {error}; delete it to measure again") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path}: cannot be read: no JSON object; delete it to measure again")
    return value


def read_table(path: Path) -> pa.Table:
    """A whole file of Parquet, every value of it checked."""
    try:
        table = pq.read_table(path)
        table.validate(full=True)  # text that is no UTF-8 would fail much later
    except (OSError, pa.ArrowException, LookupError, ValueError) as error:
        raise unreadable_table(path, error) from error
    return table


def unreadable_table(path: Path, error: Exception) -> StoreError:
    """That a file of Parquet makes no sense."""
    return StoreError(f"{path}: cannot be read: {error}; delete {path.parent} to measure again")


def encoded(text: str) -> bytes:
    """JSON in UTF-8; half a character, as in the name of a folder, becomes JSON's escape of it."""
    return text.encode("utf-8", errors="backslashreplace")
