"""Judging by files: OpenAI's batch format, which `vllm run-batch` takes too."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefbench.errors import JudgeError
from prefbench.judges.chat import body_of, verdict_of
from prefbench.judges.judge import Ask, Unheard, Verdict
from prefbench.judges.prompts import draw_delimiter
from prefbench.judges.recipe import JudgeRecipe

URL = "/v1/chat/completions"
QUOTED = 300


@dataclass(frozen=True)
class BatchAnswers:
    """What a batch's output file holds; iterates over keys and verdicts.

    Attributes:
        found: by the key of the verdict.
        n_others: rows of keys that were not asked for.
        n_repeated: rows of keys that have a verdict already; the first one counts.
        n_torn: lines that are no row, as the last one of a file that is still being written.
    """

    found: Mapping[str, Verdict | Unheard] = field(default_factory=dict)
    n_others: int = 0
    n_repeated: int = 0
    n_torn: int = 0

    def __iter__(self) -> Iterator[tuple[str, Verdict | Unheard]]:
        return iter(self.found.items())


def write_batch(recipe: JudgeRecipe, asks: Mapping[str, Ask], file: Path) -> None:
    """Writes a request for each ask, by the key of its verdict; all of the file or none of it.

    Raises:
        JudgeError: a prompt cannot be filled, or the file cannot be written.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("w", encoding="utf-8") as out:
            for key, ask in asks.items():
                body = body_of(recipe, ask, draw_delimiter())
                row = {"custom_id": key, "method": "POST", "url": URL, "body": body}
                out.write(json.dumps(row) + "\n")
        part.replace(file)
    except OSError as error:
        raise JudgeError(f"{file}: cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def read_batch(
    recipe: JudgeRecipe, file: Path, keys: Collection[str] | None = None
) -> BatchAnswers:
    """The verdicts in an output file, and in the error file if that is appended to it.

    Their cost is that of single calls; some services charge half for batches.

    Args:
        recipe: the judge that was asked.
        file: what the server wrote, one row a line.
        keys: those that were asked; one without a row is unheard, and other rows are counted alone.

    Raises:
        JudgeError: the file cannot be read, or is a batch's input.
    """
    found: dict[str, Verdict | Unheard] = {}
    n_others = n_repeated = n_torn = 0
    wanted = frozenset(keys or ())
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise JudgeError(f"{file}: cannot be read: {error}") from error
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            n_torn += 1
        elif "response" not in row and "body" in row:
            raise JudgeError(f"{file}: line {n}: is what was asked; name the file of the answers")
        elif not isinstance(key := row.get("custom_id"), str) or (
            keys is not None and key not in wanted
        ):
            n_others += 1
        elif isinstance(found.get(key), Verdict):
            n_repeated += 1
        else:
            found[key] = _verdict(recipe, row)
    for key in wanted:
        found.setdefault(key, Unheard(f"{file.name} has no answer to it"))
    return BatchAnswers(found, n_others, n_repeated, n_torn)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _verdict(recipe: JudgeRecipe, row: Mapping[str, Any]) -> Verdict | Unheard:
    response = row.get("response")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code", 200), response.get("body")
    if status == 200 and not row.get("error") and isinstance(body, dict):
        return verdict_of(recipe, body)
    said = row.get("error") or body or "no reply"
    while isinstance(said, dict):  # {"error": {"message": ...}}, by itself or as a body
        said = said.get("error") or said.get("message") or json.dumps(said)
    prefix = f"HTTP {status}: " if response and status != 200 else ""
    return Unheard(f"{prefix}{str(said)[:QUOTED]}")
