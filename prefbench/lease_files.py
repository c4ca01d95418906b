"""Claims by files: a lock of the operating system's, and a lease that is a file beside it.

The lock goes with its process at once, however that ends, but on some shared file systems it holds
on one node only (Lustre with `localflock`, NFS with `local_lock`) or cannot be had at all. The
lease holds across nodes, and costs a term's wait where a node is gone. Both are taken.

filelock's own leases would not do: to take one over they swap two names, which NFS cannot.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import secrets
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from prefbench.beats import TERM, Beats, Stamp
from prefbench.errors import InputError
from prefbench.holders import LONGEST, this_node
from prefbench.leases import Claim
from prefbench.locks import NO_LOCKS, Lock, lock

BEATING = Beats()
"""Of all lease files of this process."""
MOST = 4096
"""Bytes of a lease that are read."""
NODE, LOCKS, SECONDS = "PREFBENCH_NODE", "PREFBENCH_LOCKS", "PREFBENCH_LEASE_SECONDS"


class _Content(NamedTuple):
    """What tells a file from any other that was or will be there under its name."""

    inode: int
    written: int
    content: bytes


@dataclass(frozen=True)
class FilePlace:
    """A file of a directory that several nodes may share.

    Whether a file can be made, and renamed, is decided by the server. It is opened each time it is
    read: that is when NFS looks whether what it knows is the newest.
    """

    file: Path

    def create(self, content: bytes) -> Stamp | None:
        """Writes it where nothing lies; None where something does."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(self.file, flags, 0o666)
        except FileExistsError:
            return None
        try:
            try:
                os.write(descriptor, content)
                found = os.fstat(descriptor)
            finally:
                os.close(descriptor)  # where NFS says that a disk is full
        except OSError:
            with suppress(OSError):
                self.file.unlink()
            raise
        return _Content(found.st_ino, found.st_mtime_ns, content)

    def read(self) -> tuple[bytes, Stamp] | None:
        """What lies there, no bytes of it where it is no file; None where nothing does."""
        found = _read(self.file)
        return None if found is None else (found.content, found)

    def replace(self, content: bytes, stamp: Stamp) -> Stamp | None:
        """Writes over what has this stamp; None where that is not there any more.

        It is the file itself that is written, wherever it lies by then: never another's.
        """
        assert isinstance(stamp, _Content)
        try:
            descriptor = os.open(self.file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if os.pread(descriptor, MOST, 0) != stamp.content:
                return None
            os.pwrite(descriptor, content, 0)
        finally:
            os.close(descriptor)
        found = _read(self.file)  # was it renamed meanwhile?
        return found if found and found.content == content else None

    def delete(self, stamp: Stamp) -> bool:
        """Removes what has this stamp; whether it was there and we were the one."""
        aside = self.file.with_name(f"{self.file.name}.{secrets.token_hex(8)}")
        try:
            self.file.rename(aside)
        except FileNotFoundError:
            return False
        found = _read(aside)
        if found is not None and found != stamp:
            # Its holder lives after all. Where another has come meanwhile, or links are unknown,
            # it finds out that it has lost it.
            with suppress(OSError):
                os.link(aside, self.file, follow_symlinks=False)
        with suppress(OSError):  # what is no file stays aside
            aside.unlink(missing_ok=True)
        return found == stamp

    def drop(self) -> None:
        """Removes what we have written and nobody else may touch yet."""
        self.file.unlink(missing_ok=True)


def _read(file: Path) -> _Content | None:
    """What lies there; no bytes of what is a folder, a link or a pipe."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # removed by another node
            return None
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        found = file.lstat()
        return _Content(found.st_ino, found.st_mtime_ns, b"")
    try:
        found = os.fstat(descriptor)
        try:
            content = os.read(descriptor, MOST)
        except (IsADirectoryError, BlockingIOError):
            content = b""
        return _Content(found.st_ino, found.st_mtime_ns, content)
    finally:
        os.close(descriptor)


class FileLeases:
    """Claims by the files `lock` and `lease` in a cell's folder.

    They lie beside what they are about: having made one there, NFS looks anew what else is in the
    folder, such as the manifest of a cell that another node has sealed.
    """

    def __init__(
        self,
        *,
        node: str | None = None,
        locks: Path | None = None,
        term: float = TERM,
        beats: Beats = BEATING,
    ) -> None:
        """Claims nothing yet.

        Args:
            node: this machine; by default the kernel says it.
            locks: a folder of this machine for all locks, where the shared file system has none.
            term: seconds after which a lease that was not renewed is over.
            beats: what renews leases.
        """
        self.node = node or this_node()
        self.locks = locks
        self.term = term
        self._beats = beats

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> FileLeases:
        """As PREFBENCH_NODE, PREFBENCH_LOCKS and PREFBENCH_LEASE_SECONDS say, if they do.

        Raises:
            InputError: the last is no number of seconds.
        """
        told = environment.get(SECONDS) or str(TERM)
        try:
            term = float(told)
        except ValueError:
            term = math.nan
        if not 0 < term <= LONGEST:
            raise InputError(f"{SECONDS}={told}: say seconds, up to {LONGEST:.0f}")
        locks = environment.get(LOCKS)
        node = environment.get(NODE)
        return cls(node=node, locks=Path(locks) if locks else None, term=term)

    def take(self, name: str, folder: Path) -> Claim | None:
        """The claim of a folder, or None while another process has it, here or on another node."""
        return self.take_files(folder / "lock", folder / "lease")

    def take_files(self, lock_file: Path, lease_file: Path) -> Claim | None:
        """The claim that two files stand for, or None while another process has it.

        Raises:
            OSError: they cannot be written.
        """
        with ExitStack() as stack:
            held: list[Lock] = []
            try:
                mine = lock(self._place_of(lock_file))
                if mine is None:
                    return None
                stack.callback(mine.release)
                held.append(mine)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            lease = self._beats.take(
                str(lease_file),
                FilePlace(lease_file),
                node=self.node,
                term=self.term,
                lock=held[0].name if held else "",
            )
            if lease is None:
                return None
            stack.callback(lease.release)
            return Claim([*held, lease], stack.pop_all())
        raise AssertionError("nothing above is suppressed")

    def is_held(self, lock_file: Path, lease_file: Path) -> bool:
        """Whether a process has the claim that two files stand for; makes neither.

        Of a process of another node this can be told only by asking again: until its lease was
        seen to stand still for a term, it lives.

        Raises:
            OSError: they cannot be read, or what is over cannot be removed.
        """
        with ExitStack() as stack:
            name = ""
            with suppress(OSError):  # not there, not ours to write, or without locks
                mine = lock(self._place_of(lock_file), create=False)
                if mine is None:
                    return True
                stack.callback(mine.release)
                name = mine.name
            place = FilePlace(lease_file)
            return self._beats.is_held(str(lease_file), place, node=self.node, lock=name)
        raise AssertionError("nothing above is suppressed")

    def _place_of(self, lock_file: Path) -> Path:
        if self.locks is None:
            return lock_file
        self.locks.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(os.fsencode(lock_file.resolve())).hexdigest()
        return self.locks / f"{digest[:32]}.lock"
