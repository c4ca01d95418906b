"""A working copy and its object store, brought into step: the union of what both have.

On the store are objects under the names that files have in a results directory, so that a copy of
them, however made, is a results directory. What is sealed never changes, so most is a union; of two
that differ the one that the store had first counts. Nothing but leases is ever deleted there.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from prefbench.buckets.leases import ObjectLeases
from prefbench.buckets.names import cell_of, files_of, is_lazy, kind_of
from prefbench.buckets.objects import NotThereError, Objects
from prefbench.buckets.places import WorkingCopy, working_copy
from prefbench.buckets.seen import Seen
from prefbench.buckets.segments import read_segments, write_segments
from prefbench.errors import InputError, StoreError
from prefbench.lease_files import FileLeases

LOOKS = 5.0
"""Seconds for which a listing of everything will do: verbs open their results several times."""
EVERY = 60.0
"""Seconds between two uploads of what is in flight: about what the loss of a machine costs."""
PAUSES = 5.0, 300.0
"""Seconds until a store that is away is asked again, at first and at most."""
LAST_TRIES = 0.5, 1.0, 2.0, 4.0
"""Seconds between the tries to upload what is left at the end."""


def bucket_of(results: Path) -> Bucket | None:
    """The object store that a directory is a working copy for; None for a directory of its own.

    Raises:
        InputError: the store's library is not installed, or PREFBENCH_UPLOAD_EVERY is no number of
            seconds.
    """
    copy = working_copy(results)
    return _bucket(copy, os.getpid()) if copy else None


@cache
def _bucket(copy: WorkingCopy, process: int) -> Bucket:
    """One for each working copy and process: threads and connections do not survive a fork."""
    told = os.environ.get("PREFBENCH_UPLOAD_EVERY") or str(EVERY)
    try:
        every = float(told)
    except ValueError:
        every = math.nan
    if not 0 <= every < math.inf:
        raise InputError(f"PREFBENCH_UPLOAD_EVERY={told}: say seconds, such as {EVERY:.0f}")
    return Bucket(copy, every=every)


class Bucket:
    """What is done about the object store of one working copy."""

    def __init__(
        self,
        copy: WorkingCopy,
        *,
        every: float = EVERY,
        leases: ObjectLeases | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Asks nobody yet.

        Args:
            copy: the folder and the address.
            every: seconds between two uploads of what is in flight.
            leases: of the object store, where not the usual ones.
            clock: of this process.
            sleep: waits.
        """
        self.url = copy.url
        self.folder = copy.folder
        self.objects = Objects(copy.url)
        self.leases = leases or ObjectLeases(
            self.objects, copy.name, term=FileLeases.from_environment().term
        )
        self.tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)
        """Told when the store goes away and when it is back."""
        self._seen = Seen(copy.folder)
        self._every = every
        self._clock = clock
        self._sleep = sleep
        self._looked: float | None = None
        self._sent: dict[str, float] = {}
        self._away: str | None = None
        self._pause = PAUSES[0]
        self._again = 0.0
        self._listed: dict[str, str] = {}

    # --- from the store

    def pull(self, *, anew: bool = False) -> None:
        """Fetches what is new there; answers and prompts when they are read.

        Args:
            anew: also where everything was listed a moment ago.

        Raises:
            StoreError: the store cannot be asked, or the working copy not written.
        """
        if not anew and self._looked is not None and self._clock() < self._looked + LOOKS:
            return
        self._take(self.objects.list())
        read_segments(self.folder)
        self._looked = self._clock()

    def open(self) -> None:
        """Fetches what is new there; the first time in a process the store must be there.

        Later, a run that went on without it can show what it has.

        Raises:
            StoreError: the store cannot be asked at first.
        """
        if self._looked is None:
            self.pull()
        else:
            self.look_again()

    def look_again(self, *, anew: bool = False) -> None:
        """Fetches what is new there, unless the store is away."""
        if self._clock() >= self._again:
            with self._reaching():
                self.pull(anew=anew)
            self.push_sometimes("status.json")

    def refresh(self, cell: str) -> None:
        """Fetches what is new of one cell, with its journal: the caller has claimed it.

        Raises:
            StoreError: as `pull`.
        """
        self._take(self.objects.list(f"cells/{cell}/"), journals=True)

    def fetch(self, name: str) -> None:
        """Fetches one file where it is not here yet; that there is none is the reader's matter.

        Raises:
            StoreError: the store cannot be asked, or the working copy not written.
        """
        if (self.folder / name).exists() or not kind_of(name):
            return
        with contextlib.suppress(NotThereError):
            self._get([name])

    def _take(self, there: Mapping[str, str], *, journals: bool = False) -> None:
        """Brings files into step with versions of objects, manifests last."""
        self._listed |= there
        known = self._seen.stamps()
        sealed = {cell_of(name) for name in there if kind_of(name) == "manifest"}
        wanted = [
            name
            for name, stamp in there.items()
            if known.get(name) != stamp and self._is_wanted(name, sealed, journals)
        ]
        dirty = set(self._seen.dirty(wanted))
        last = [name for name in wanted if kind_of(name) == "manifest"]
        self._get([name for name in wanted if kind_of(name) != "manifest"], dirty)
        self._get(last, dirty)

    def _is_wanted(self, name: str, sealed: Collection[str], journals: bool) -> bool:
        """Whether a version that is new to us is worth fetching.

        Args:
            name: of the object.
            sealed: cells that are sealed there.
            journals: whether those of cells in flight are.
        """
        kind, is_here = kind_of(name), (self.folder / name).exists()
        if kind in ("failure", "journal"):
            is_open = cell_of(name) not in sealed and not self._is_sealed(cell_of(name))
            return is_open and (kind == "failure" or journals)
        if kind == "cell":  # without a manifest, of an upload that did not come to its end
            return cell_of(name) in sealed and (is_here or not is_lazy(name))
        return kind is not None and kind != "items"

    def _is_sealed(self, cell: str) -> bool:
        return (self.folder / "cells" / cell / "manifest.json").exists()

    def _get(self, names: Sequence[str], dirty: Collection[str] = ()) -> None:
        """Fetches objects beside their files, and puts each in place unless ours counts."""
        parts = {name: self._part(name) for name in names}
        try:
            for part in parts.values():
                part.parent.mkdir(parents=True, exist_ok=True)
            self.objects.get(parts)
            for name, part in parts.items():
                ours = self.folder / name
                differs = name in dirty or (kind_of(name) == "journal" and ours.exists())
                if not differs or theirs_counts(name, part, ours):
                    part.replace(ours)
                    self._seen.add([(name, self._listed.get(name, ""))])
        except OSError as error:
            raise StoreError(
                f"{self.folder}: cannot be written: {error.strerror or error}; make room or name "
                "another place by PREFBENCH_CACHE"
            ) from error
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)

    def _part(self, name: str) -> Path:
        path = self.folder / name
        return path.with_name(f".{path.name}.{os.getpid()}.part")

    # --- to the store

    def push(self, *names: str) -> None:
        """Uploads files that have changed; what cannot be now is tried again later."""
        if self._clock() < self._again:
            return
        with self._reaching():
            self._push(files_of(self.folder) if self._away is not None else names)

    def push_cell(self, cell: str) -> None:
        """Uploads what is new of one cell: the rows first, what makes them count last."""
        files = ("answers.parquet", "records.parquet", "manifest.json", "failure.json")
        self.push(*(f"cells/{cell}/{file}" for file in (*files, "journal.jsonl")))

    def push_sometimes(self, *names: str) -> None:
        """Uploads what is in flight if that was long ago, counted from the first call."""
        for name in names:
            due = self._sent.setdefault(name, self._clock()) + self._every
            if self._clock() >= due:
                self._sent[name] = self._clock()
                self.push(name)

    def share_verdicts(self, *, sometimes: bool = False) -> None:
        """Uploads the verdicts that the store does not have.

        Args:
            sometimes: only if that was long ago.
        """
        now = self._clock()
        if not sometimes or now >= self._sent.setdefault("verdicts", now) + self._every:
            self._sent["verdicts"] = now
            write_segments(self.folder)
            self.push(*(name for name in files_of(self.folder) if name.startswith("verdicts/")))

    def push_all(self) -> None:
        """Uploads everything that the store does not have yet; tries once."""
        write_segments(self.folder)
        self._again = 0.0
        self.push(*files_of(self.folder))

    def close(self) -> str | None:
        """Uploads what is left, trying several times; says why something is left all the same."""
        for pause in (*LAST_TRIES, None):
            self.push_all()
            if pause is None or self._away is None:
                break
            self._sleep(pause)
        left = self._seen.dirty(files_of(self.folder)) if self._away is not None else []
        if not left:
            return None
        some = "1 file is" if len(left) == 1 else f"{len(left)} files are"
        return (
            f"{self._away}; {some} in {self.folder} alone, and the same command uploads what is "
            "there when the store is back"
        )

    def _push(self, names: Iterable[str]) -> None:
        dirty = self._seen.dirty(names)
        cells = {cell_of(name) for name in dirty if name.startswith("cells/")}
        others = [name for name in dirty if not name.startswith("cells/")]
        self.objects.put({name: self.folder / name for name in others})
        self._seen.add(self.objects.stamps(others).items())
        for cell in sorted(cells):
            self._push_cell(f"cells/{cell}/", [n for n in dirty if n.startswith(f"cells/{cell}/")])

    def _push_cell(self, below: str, dirty: Sequence[str]) -> None:
        """One cell's files, unless the store has it sealed already: then that counts."""
        there, known = self.objects.list(below), self._seen.stamps()
        manifest = f"{below}manifest.json"
        if manifest in there and there[manifest] != known.get(manifest):
            self._take(there)
            return
        names = [name for name in dirty if name != manifest]
        self.objects.put({name: self.folder / name for name in names})
        if manifest in dirty:
            data = (self.folder / manifest).read_bytes()
            if manifest in there:
                stamp = self.objects.replace(manifest, data, there[manifest])
            else:
                stamp = self.objects.create(manifest, data)
            if stamp is None:  # another was faster by a moment
                self._take(self.objects.list(below))
                return
        there = self.objects.list(below)
        self._seen.add((name, there[name]) for name in dirty if name in there)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self.gone(str(error))
        else:
            self.back()

    def gone(self, why: str) -> None:
        """Notes that the store cannot be had: it is asked again after a pause that grows."""
        if self._away is None:
            self.tell(f"{why}; going on here in {self.folder}, and trying again")
        self._away = why
        self._again = self._clock() + self._pause
        self._pause = min(4 * self._pause, PAUSES[1])

    def back(self) -> None:
        """Notes that the store was reached."""
        if self._away is not None:
            self.tell(f"{self.url}: reached again")
        self._away, self._pause, self._again = None, PAUSES[0], 0.0

    @property
    def away(self) -> str | None:
        """Why the store could not be reached last, while it cannot be."""
        return self._away if self._clock() < self._again else None


def theirs_counts(name: str, theirs: Path, ours: Path) -> bool:
    """Which of two files counts that were written apart from each other."""
    match kind_of(name):
        case "failure" | "latest":
            return False  # ours has just been written
        case "plan":
            return _when(theirs) > _when(ours)
        case "journal":
            return _is_longer(theirs, ours)
        case _:
            return True  # the same cell, or the same name of the same contents: the first one


def _when(plan: Path) -> str:
    try:
        return str(json.loads(plan.read_bytes()).get("when", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _is_longer(theirs: Path, ours: Path) -> bool:
    """Whether a journal holds more of the same batches: its first line says how they are made."""
    if not ours.exists():
        return True
    with theirs.open("rb") as one, ours.open("rb") as other:
        if one.readline() != other.readline():
            return False
    return theirs.stat().st_size > ours.stat().st_size
