"""What holds when a machine does not: kills, full disks, broken inputs and a long watch, counted.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.reliability [kills] [room] [broken] [soak] \\
        [--seed 0] [--kills 100] [--starved 24] [--checkpoints 240] [--zoo DIR]

Trains a small zoo (or takes one), does all four or those that are named, and prints a Markdown
table. Whatever does not hold ends it with the assertion that says so. Commands run in processes
that are forked from one which has imported everything; the judge is a real server.
"""

from __future__ import annotations

import argparse
import platform
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefbench.demo.training import train_zoo
from tests.reliability.breaking import measure_broken
from tests.reliability.broken import BROKEN, HARMLESS
from tests.reliability.commands import Commands
from tests.reliability.jobs import CONCURRENCY, judge_job, run_job, watch_job, watched
from tests.reliability.killing import Job, kill_often
from tests.reliability.soaking import STILL, soak
from tests.reliability.starving import FULL, READ_ONLY, SIZE, starve_often

PARTS = ("kills", "room", "broken", "soak")


@contextmanager
def jobs(zoo: Path, folder: Path, *, limit: int) -> Iterator[list[Job]]:
    """The three commands that are disturbed."""
    runs = watched(zoo, folder / "runs", ("sft", "dpo", "ipo"))
    with judge_job(zoo, folder / "place") as judging:
        yield [run_job(zoo, limit=limit), judging, watch_job(zoo, runs, limit=limit // 2)]


def kills(zoo: Path, folder: Path, *, n: int, seed: int) -> Iterator[tuple[str, str]]:
    with Commands() as commands, jobs(zoo, folder, limit=24) as all_jobs:
        for job in all_jobs:
            rng = random.Random(f"{seed} {job.name}")
            killed = kill_often(commands, job, folder / job.name, n_kills=n, rng=rng)
            left = ", ".join(f"{kind} {n}" for kind, n in killed.left.most_common())
            said = (
                f"{killed.n_kills} kills over {killed.n_rounds} results directories; all end with "
                f"the rows and the table of an undisturbed one, to the byte. Left behind: {left}"
            )
            if killed.n_verdicts:
                said += (
                    f". Of {killed.n_verdicts} verdicts none is lost or there twice; "
                    f"{killed.n_again} requests were made again, at most {killed.most_again} a "
                    f"kill: in flight ({CONCURRENCY} at once), or answered and not yet written"
                )
            yield f"`kill -9` of a {job.name}", said


def room(zoo: Path, folder: Path, *, n: int, seed: int) -> Iterator[tuple[str, str]]:
    with Commands("unshare", "-rm") as commands, jobs(zoo, folder, limit=8) as all_jobs:
        for way in (FULL, READ_ONLY):
            named: Counter[str] = Counter()
            n_all = n_failed = n_rows = 0
            for job in all_jobs:
                rng = random.Random(f"{seed} {way.name} {job.name}")
                where = folder / job.name / way.name
                starved = starve_often(commands, job, way, where, n=n, rng=rng)
                n_all, n_failed = n_all + starved.n, n_failed + starved.n_failed
                n_rows += starved.n_rows
                named += starved.named
            files = ", ".join(f"{name} {n}" for name, n in named.most_common())
            yield (
                f"results {way.name} from a drawn step on (a disk of {SIZE[:-1]} MiB)",
                f"{n_all} of run, judge and watch, {n_failed} stopped with exit code 1 and a line "
                f"that names the file and why ({files}); all {n_rows} files of rows that were "
                "there are as they must be, and once it can write the same command ends with the "
                "same rows and table",
            )


def broken(zoo: Path, folder: Path) -> Iterator[tuple[str, str]]:
    with Commands() as commands:
        found = measure_broken(commands, zoo, folder)
    assert not found.wrong, found.wrong
    yield (
        "broken checkpoints",
        f"{len(BROKEN)} kinds in one directory, each with its reason, exit code 1, no traceback; "
        f"{len(HARMLESS)} that only look so, and the whole one beside them, are measured; nothing "
        f"they bring was run; {found.seconds:.0f} s in all",
    )


def long_watch(zoo: Path, folder: Path, *, n: int) -> Iterator[tuple[str, str]]:
    soaked = soak(zoo, folder, n=n, tasks=["demo_everyday"])
    half, last = soaked.samples[n // 2], soaked.samples[-1]
    resident = [soaked.quarter(i, "resident") for i in (1, 2, 3, 4)]
    busy = [soaked.quarter(i, "busy") for i in (1, 2, 3, 4)]
    yield (
        f"a watch of {n} checkpoints that come and are pruned",
        f"resident memory {', '.join(f'{one:.0f}' for one in resident)} MiB (median of each "
        f"quarter; {soaked.slope:+.1f} MiB per 100 checkpoints in the second half), threads "
        f"{half.n_threads} and {last.n_threads}, open files {half.n_files} and {last.n_files} at "
        f"half time and at the end; {(last.events - half.events) / (last.n - half.n):.0f} bytes of "
        f"events and {(last.status - half.status) / (last.n - half.n):.0f} of status a checkpoint; "
        f"processor time a checkpoint {', '.join(f'{one:.2f}' for one in busy)} s by quarter. "
        f"{' '.join(f'{name}={value}' for name, value in STILL.items())}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=100, help="of each command")
    parser.add_argument("--starved", type=int, default=24, help="of each command and way")
    parser.add_argument("--checkpoints", type=int, default=240)
    parser.add_argument("--zoo", type=Path, help="made by `prefbench demo --only-train`")
    asked = parser.parse_args()
    if wrong := set(asked.parts) - set(PARTS):
        parser.error(f"no {', '.join(sorted(wrong))} here")
    with tempfile.TemporaryDirectory(prefix="reliability-") as made:
        folder = Path(made)
        zoo = asked.zoo or folder / "zoo"
        if not asked.zoo:
            train_zoo(zoo, scale=0.01)
        print(f"Seed {asked.seed}, {platform.machine()}, Python {platform.python_version()}\n")
        print("| what | what came of it |\n|---|---|", flush=True)
        parts = {
            "kills": lambda: kills(zoo, folder / "kills", n=asked.kills, seed=asked.seed),
            "room": lambda: room(zoo, folder / "room", n=asked.starved, seed=asked.seed),
            "broken": lambda: broken(zoo, folder / "broken"),
            "soak": lambda: long_watch(zoo, folder / "soak", n=asked.checkpoints),
        }
        for name in asked.parts or PARTS:
            begun = time.monotonic()
            for what, said in parts[name]():
                print(f"| {what} | {said} |", flush=True)
            print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
