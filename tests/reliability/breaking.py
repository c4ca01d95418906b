"""One run over a directory of all kinds of broken checkpoints, and what it says of each."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.broken import BROKEN, HARMLESS, MARKER, SPEECHLESS, make_broken
from tests.reliability.commands import Commands, Done

TASK = "demo_everyday"
N_ITEMS = 2


@dataclass
class Found:
    """What came of the run.

    Attributes:
        done: the run.
        reasons: why a checkpoint was not measured, by name.
        rows: how many items the table's first metric has, by name.
        missing: why it has none, by name.
        notes: the table as text.
        executed: whether anything hostile was run.
        wrong: kinds of which it does not say what it must, and what it says.
        seconds: it took.
    """

    done: Done
    reasons: dict[str, str]
    rows: dict[str, int]
    missing: dict[str, str]
    notes: str
    executed: bool
    wrong: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def measure_broken(commands: Commands, zoo: Path, folder: Path) -> Found:
    """Makes them, measures them at once, and compares what is said with what must be."""
    make_broken(zoo / "checkpoints" / "sft", folder / "runs")
    results = folder / "results"
    done = commands.run(
        "run", folder / "runs", "--task", TASK, "--limit", N_ITEMS, "--engine", "hf",
        "--mirror", zoo / "data", "--results", results, "--format", "csv",
    )  # fmt: skip
    rows: dict[str, int] = {}
    missing: dict[str, str] = {}
    for row in csv.DictReader(io.StringIO(done.out)):
        rows.setdefault(row["checkpoint"], int(row["n"] or 0))
        missing.setdefault(row["checkpoint"], row["missing"])
    reasons = {}
    for line in done.err.splitlines():
        if line.startswith("not measured: "):
            name, _, reason = line.removeprefix("not measured: ").partition(": ")
            reasons[name.removesuffix(f" × {TASK}")] = reason
    notes = commands.run("table", results).out
    found = Found(
        done, reasons, rows, missing, notes, (folder / MARKER).exists(), seconds=done.seconds
    )
    for one in BROKEN:
        if one.said not in reasons.get(one.name, ""):
            found.wrong[one.name] = reasons.get(one.name, "measured")
    for one in SPEECHLESS:
        if rows.get(one.name) or one.said not in notes:
            found.wrong[one.name] = reasons.get(one.name, "not told")
    for one in HARMLESS:
        if rows.get(shown(one.name)) != N_ITEMS:
            found.wrong[one.name] = reasons.get(one.name, "not measured")
    return found


def shown(name: str) -> str:
    """A name as tables write it."""
    return "".join(letter if letter.isprintable() else " " for letter in name)
