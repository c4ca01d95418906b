"""Results in a file system of a few MB that is full, or read-only, from some step of writing on.

In a mount namespace of its own, which root may make, and others where the system lets them.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.reliability.commands import Commands, Done
from tests.reliability.killing import Job

SIZE = "4m"
FAILED = 1


class Way(NamedTuple):
    """How a results directory stops taking anything, how it is mended, and what the system says."""

    name: str
    begin: str
    end: str
    said: str


# A block at a time, so that nothing is left; dd ends with an error when it is full.
FULL = Way(
    "full",
    "dd if=/dev/zero of={}/filler bs=1k 2>/dev/null; true",
    "rm -f {}/filler",
    # SQLite's words for memory that it shares through a file which cannot grow are the last.
    "No space left on device|database or disk is full|disk I/O error",
)
READ_ONLY = Way(
    "read-only",
    "mount --bind {0} {0} && mount -o remount,bind,ro {0}",
    "mountpoint -q {0}/. && (umount {0} 2>/dev/null || umount -l {0}); true",
    "Read-only file system|readonly database|unable to open database file",
)


@dataclass
class Starved:
    """What came of it.

    Attributes:
        n: results directories that stopped taking anything while a command worked.
        n_failed: commands that could not go on.
        named: the files that their messages name, by kind.
        n_rows: files of rows that were there then, byte for byte as they must be.
    """

    n: int = 0
    n_failed: int = 0
    named: Counter[str] = field(default_factory=Counter)
    n_rows: int = 0


def starve_often(
    commands: Commands, job: Job, way: Way, folder: Path, *, n: int, rng: random.Random
) -> Starved:
    """Results directories that stop taking anything at n drawn steps, and are mended then.

    Fails where the command neither ends with all rows nor says what and why in one message, exit
    code 1 and no traceback; where rows that were there are not as they must be; where what is
    there cannot be read; where the same command, once it can write, does not come to the same
    rows and the same table.

    Args:
        commands: in a mount namespace of their own.
        job: what writes.
        way: how writing comes to an end.
        folder: for results; each is a file system of its own.
        n: how often.
        rng: of the steps.
    """
    results = _mounted(commands, job, folder / "whole")
    alone = commands.run(*job.argv(results), under=results)
    assert alone.code == 0, alone.err
    expected, shown = rows(commands, results), _table(commands, results)
    _unmount(commands, results)
    starved = Starved()
    for i in range(n):
        results = _mounted(commands, job, folder / f"{way.name}-{i}")
        # One in each part of the work, from its first step on.
        at = 1 + int((i + rng.random()) * alone.n_steps / n)
        begin = way.begin.format(results)
        done = commands.run(*job.argv(results), under=results, at=at, do=begin)
        starved.n += 1
        found = rows(commands, results)
        if done.code:
            starved.n_failed += 1
            starved.named[_named(done, way, results)] += 1
        else:
            assert found == expected
            assert _table(commands, results) == shown
        starved.n_rows += len(found)
        assert {name: digest for name, digest in expected.items() if name in found} == found
        read = commands.run("table", results, "--format", "csv")
        assert read.code == 0 or "no run is recorded" in read.err or "no results" in read.err
        commands.shell(way.end.format(results))
        again = commands.run(*job.argv(results))
        assert again.code == 0, again.err
        assert rows(commands, results) == expected
        assert _table(commands, results) == shown
        _unmount(commands, results)
    return starved


def _mounted(commands: Commands, job: Job, results: Path) -> Path:
    results.mkdir(parents=True)
    commands.shell(f"mount -t tmpfs -o size={SIZE} tmpfs {results}")
    before = results.with_name("before")
    if not before.exists():
        job.prepare(before)
    if before.exists():
        commands.shell(f"cp -a {before}/. {results}")
    return results


def _unmount(commands: Commands, results: Path) -> None:
    commands.shell(f"umount -l {results}")


def rows(commands: Commands, results: Path) -> dict[str, str]:
    """The hash of each file of rows of sealed cells, where the commands see it."""
    said = commands.shell(
        f"cd {results}; for cell in cells/*; do if [ -e $cell/manifest.json ]; then "
        "sha256sum $cell/*.parquet; fi; done"
    )
    return {name: digest for digest, name in (line.split() for line in said.splitlines())}


def _table(commands: Commands, results: Path) -> str:
    done = commands.run("table", results, "--format", "csv")
    assert done.code == 0, done.err
    return done.out


def _named(done: Done, way: Way, results: Path) -> str:
    """The kind of the file that a message names, which must be the only one and say why."""
    assert done.code == FAILED
    assert "Traceback" not in done.err, done.err
    (message,) = (line for line in done.err.splitlines() if line.startswith("error: "))
    assert re.search(way.said, message), message
    found = re.match(rf"error: {re.escape(str(results))}/?(\S*?):? ", message)
    assert found, message
    name = found[1].split("/")
    kind = {"cells": name[-1], "items": "items", "plans": "plans"}.get(name[0], name[0])
    return re.sub("[0-9a-f]{16,}", "…", kind) or "the folder itself"
