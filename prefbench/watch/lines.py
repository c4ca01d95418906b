"""Lines of JSON that several watchers append to one file; what a kill tears spoils only itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefbench.errors import StoreError
from prefbench.files import explained


class Lines:
    """One such file, and how far it has been read."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._read = 0

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds a line and waits until it is on the disk.

        Raises:
            StoreError: the file cannot be written.
        """
        content = json.dumps(line).encode() + b"\n"
        with explained(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a+b") as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                    if file.read(1) != b"\n":  # torn by a killed watcher
                        content = b"\n" + content
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

    def new(self) -> Iterator[Any]:
        """What was appended since the last time, without lines that are torn.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            with self.file.open("rb") as file:
                file.seek(self._read)
                whole, end, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self.file}: cannot be read: {error}") from error
        self._read += len(whole) + len(end)
        for line in whole.splitlines():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                continue
