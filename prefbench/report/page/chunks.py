"""Rows packed so that a page with very many opens at once: each pack is opened when it is read."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

SIZE = 192 * 1024
"""Characters of JSON in a chunk, about; a row that is longer has one of its own."""
MOST = 256
"""Rows in a chunk."""


class Chunk(NamedTuple):
    """Rows as gzipped JSON in base64."""

    n_rows: int
    text: str


def packed(value: Any) -> str:
    """A value as gzipped JSON in base64: letters, digits, + / and = only.

    JSON in ASCII carries also what is no UTF-8, such as half a surrogate pair.
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def chunked(rows: Iterable[Any]) -> Iterator[Chunk]:
    """Rows in chunks of about one size."""
    held: list[str] = []
    size = 0
    for row in rows:
        text = json.dumps(row, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
        if held and (size + len(text) > SIZE or len(held) == MOST):
            yield _chunk(held)
            held, size = [], 0
        held.append(text)
        size += len(text)
    if held:
        yield _chunk(held)


def _chunk(texts: list[str]) -> Chunk:
    raw = f"[{','.join(texts)}]".encode()
    return Chunk(len(texts), base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode())
