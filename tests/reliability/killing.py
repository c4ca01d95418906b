"""Commands that are killed by signal 9 at drawn moments and started again until they end.

Moments are of time, or steps of writing: just before a file is opened, renamed or removed below the
results. A round is one results directory from nothing to the end.
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.reliability.commands import Commands, Done, sealed, table

TEMPORARY = re.compile(r"\..+\.\d+")
SIGKILLED = -9


class Job(NamedTuple):
    """A command that is killed: its arguments, and what its results have before it begins."""

    name: str
    argv: Callable[[Path], Sequence[object]]
    prepare: Callable[[Path], None] = lambda results: None
    n_asked: Callable[[], int] = lambda: 0
    """Requests that judges have had so far."""
    longest: float = 0.25
    """Of the time that it takes undisturbed, the most that its first life has."""
    since: str = ""
    """The event from which that time counts; else from the beginning."""
    by_steps: float = 0.5
    """Share of kills at a step of writing."""


@dataclass
class Killed:
    """What came of killing a job.

    Attributes:
        n_kills: lives that ended by signal 9.
        n_rounds: results directories that were filled so.
        left: what kills had left behind, by kind.
        n_verdicts: that all rounds needed.
        n_again: requests beyond these.
        most_again: the most that one kill cost.
    """

    n_kills: int = 0
    n_rounds: int = 0
    left: Counter[str] = field(default_factory=Counter)
    n_verdicts: int = 0
    n_again: int = 0
    most_again: int = 0


def kill_often(
    commands: Commands, job: Job, folder: Path, *, n_kills: int, rng: random.Random
) -> Killed:
    """Rounds of a job until there were so many kills; each must end as one that nobody disturbs.

    Fails where a round has other rows, or another table, than that; where a life ends by itself
    otherwise than well; where a verdict is lost or there twice.
    """
    whole = folder / "whole"
    job.prepare(whole)
    asked = job.n_asked()
    alone = commands.run(*job.argv(whole), under=whole)
    assert alone.code == 0, alone.err
    n_verdicts = job.n_asked() - asked
    expected, shown = sealed(whole), table(commands, whole)
    n_kept = _kept(whole)
    assert n_verdicts in (0, n_kept)
    killed = Killed()
    while killed.n_kills < n_kills:
        results = folder / f"round-{killed.n_rounds}"
        job.prepare(results)
        asked = job.n_asked()
        _one_round(commands, job, results, alone, killed, n_kills=n_kills, rng=rng)
        killed.n_rounds += 1
        killed.n_verdicts += n_verdicts
        killed.n_again += job.n_asked() - asked - n_verdicts
        found = sealed(results)
        assert found.keys() == expected.keys()
        assert [name for name in found if found[name] != expected[name]] == []
        assert table(commands, results) == shown
        assert _kept(results) == n_kept
        assert not list(results.rglob("failure.json"))
        # Killed after the manifest was written, a cell keeps its journal, which nobody reads.
        assert all((one.parent / "manifest.json").exists() for one in _journals(results))
    return killed


def _one_round(
    commands: Commands,
    job: Job,
    results: Path,
    alone: Done,
    killed: Killed,
    *,
    n_kills: int,
    rng: random.Random,
) -> None:
    n_lives = 0
    while True:
        # Ever longer lives, so that the work ends however slow the machine is.
        share = (1 + n_lives / 10) * job.longest
        after: float | None = None
        at: int | str = 0
        do = "kill"
        if killed.n_kills < n_kills:
            if rng.random() >= job.by_steps:
                after = rng.uniform(0, alone.seconds * share)
                if job.since:
                    at, do = job.since, "begin"
            else:
                at = rng.randint(1, max(4, int(alone.n_steps * share)))
        asked, kept = job.n_asked(), _kept(results)
        there = _temporaries(results)
        done = commands.run(*job.argv(results), under=results, killed_after=after, at=at, do=do)
        n_lives += 1
        if done.code != SIGKILLED:
            assert done.code == 0, done.err
            return
        killed.n_kills += 1
        killed.left.update(_left(results, there))
        if n_asked := job.n_asked() - asked:
            again = n_asked - (_kept(results) - kept)
            killed.most_again = max(killed.most_again, again)


def _left(results: Path, before: set[Path]) -> list[str]:
    """What a kill has left that an undisturbed run never shows."""
    found = []
    journals = _journals(results)
    if any((text := one.read_bytes()) and not text.endswith(b"\n") for one in journals):
        found.append("torn journal")
    cells = [one for one in results.glob("cells/*") if (one / "records.parquet").exists()]
    if any(not (one / "manifest.json").exists() for one in cells):
        found.append("half sealed cell")
    if any((one / "manifest.json").exists() and (one / "journal.jsonl").exists() for one in cells):
        found.append("sealed cell with its journal")
    if _temporaries(results) - before:
        found.append("half written file")
    if not all((one.parent / "manifest.json").exists() for one in journals):
        found.append("open cell")
    if any((results / f"verdicts.sqlite-{end}").exists() for end in ("wal", "journal")):
        found.append("open verdict store")
    return found or ["nothing"]


def _journals(results: Path) -> list[Path]:
    return list(results.glob("cells/*/journal.jsonl"))


def _temporaries(results: Path) -> set[Path]:
    return {path for path in results.rglob(".*") if TEMPORARY.fullmatch(path.name)}


def _kept(results: Path) -> int:
    """Verdicts that are kept; none is kept twice, as the key is the primary one."""
    file = results / "verdicts.sqlite"
    if not file.exists():
        return 0
    with closing(sqlite3.connect(file, timeout=30)) as connection:
        known = connection.execute("SELECT name FROM sqlite_master WHERE name='verdicts'")
        if not known.fetchone():
            return 0
        return int(connection.execute("SELECT COUNT(*) FROM verdicts").fetchone()[0])
