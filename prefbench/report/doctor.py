"""What the doctor found, as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

from prefbench.doctor.engines import ENGINES
from prefbench.doctor.findings import Finding, State
from prefbench.report.layout import plain

COLOURS: dict[State, int] = {"ok": 32, "missing": 33, "broken": 31, "unused": 36, "unknown": 36}


def as_text(
    findings: Sequence[Finding],
    *,
    width: int = 100,
    colours: bool = False,
    closing: str | None = None,
) -> str:
    """Groups of findings, each fix on lines of its own that are never broken.

    `closing` is what is said of all at the end; None says which engines are ready.
    """
    lines: list[str] = []
    for group, members in groupby(findings, key=lambda one: one.group):
        lines += [*([""] if lines else []), group, *_group(list(members), width, colours)]
    closing = summary(findings) if closing is None else closing
    lines += ["", *textwrap.wrap(plain(closing), width)]
    return "\n".join(lines) + "\n"


def _group(members: Sequence[Finding], width: int, colours: bool) -> list[str]:
    names = [plain(one.name) for one in members]
    column = max((len(name) for name in names if len(name) <= width // 3), default=0)
    lines = []
    for i, one in enumerate(members):
        lines += _finding(one, names[i], column, width, colours)
        # The same fix for several is said once, after the last.
        if one.fix and (i + 1 == len(members) or members[i + 1].fix != one.fix):
            lines += _fix(one.fix)
    return lines


def _finding(one: Finding, name: str, column: int, width: int, colours: bool) -> list[str]:
    state = one.state.ljust(7)
    if colours:
        state = f"\x1b[{COLOURS[one.state]}m{state}\x1b[0m"
    head = f"  {state}  {name.ljust(column)}  "
    indent = " " * (11 + column + 2)
    room = max(20, width - len(indent))
    detail = textwrap.wrap(plain(one.detail), room, break_on_hyphens=False) or [""]
    if len(name) > column:
        return [head.rstrip(), *(indent + line for line in detail)]
    return [(head + detail[0]).rstrip(), *(indent + line for line in detail[1:])]


def _fix(fix: str) -> list[str]:
    first, *more = map(plain, fix.splitlines())
    return [f"           fix: {first}", *(f"                {line}" for line in more)]


def summary(findings: Sequence[Finding]) -> str:
    """What works of what matters, in a line."""
    failing = [one.name for one in findings if one.fails]
    if failing:
        return f"Needed, and not working: {', '.join(failing)}."
    ready = [one.name for one in findings if one.name in ENGINES and one.state == "ok"]
    said = f"Ready: {', '.join(ready)}." if ready else "No engine was tried."
    lacking = [one.name for one in findings if one.state in ("missing", "broken")]
    return said + (f" Not ready: {', '.join(lacking)}." if lacking else "")


def as_json(findings: Sequence[Finding]) -> str:
    """Everything that was found."""
    whole = {
        "ok": not any(one.fails for one in findings),
        "findings": [{**dataclasses.asdict(one), "fails": one.fails} for one in findings],
    }
    return json.dumps(whole, indent=1, default=str) + "\n"


@contextmanager
def waiting() -> Iterator[Callable[[str], None]]:
    """A function that says on stderr what is being waited for; on a terminal it vanishes again."""
    if not sys.stderr.isatty():
        yield lambda what: print(f"{what} …", file=sys.stderr, flush=True)
        return
    from rich.console import Console

    with Console(stderr=True).status("looking around …") as status:
        yield lambda what: status.update(f"{what} …")
