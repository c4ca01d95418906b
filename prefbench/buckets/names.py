"""Which objects are results, and how each kind is brought into step.

Names come from a server that others can write to. What is not of these forms is never looked at,
so that no name leads out of the working copy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

Kind = Literal["cell", "manifest", "failure", "journal", "items", "plan", "once", "latest"]
"""`cell` and `manifest` make a sealed cell; `once` is written once; of `latest` the last counts."""

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}"
_FORMS: tuple[tuple[Kind, str], ...] = (
    ("cell", rf"cells/{_WORD}/(answers|records)\.parquet"),
    ("manifest", rf"cells/{_WORD}/manifest\.json"),
    ("failure", rf"cells/{_WORD}/failure\.json"),
    ("journal", rf"cells/{_WORD}/journal\.jsonl"),
    ("items", rf"items/{_WORD}\.parquet"),
    ("plan", rf"plans/{_WORD}\.json"),
    ("once", rf"verdicts/{_WORD}\.jsonl"),
    ("once", rf"batches/{_WORD}(\.replies)?\.jsonl"),
    ("latest", r"(store|status|pushed)\.json"),
)


def kind_of(name: str) -> Kind | None:
    """What an object below a results address is; None for what is none of ours."""
    return next((kind for kind, form in _FORMS if re.fullmatch(form, name)), None)


def is_lazy(name: str) -> bool:
    """Whether it is fetched when it is read: answers and prompts are most of all bytes."""
    return name.startswith("items/") or name.endswith("/answers.parquet")


def cell_of(name: str) -> str:
    """The cell of a file of one."""
    return name.split("/")[1]


def files_of(folder: Path) -> list[str]:
    """The names of all files in a working copy that are results."""
    places = ("*.json", "plans/*.json", "items/*.parquet", "verdicts/*.jsonl", "batches/*.jsonl")
    found = [path for pattern in places for path in folder.glob(pattern)]
    found += [path for path in folder.glob("cells/*/*") if path.suffix != ".part"]
    names = (path.relative_to(folder).as_posix() for path in found)
    return sorted(name for name in names if kind_of(name))
