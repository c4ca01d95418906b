"""Locks of the operating system's, on a file: they go with their process, however that ends."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system says that has none."""


class Lock:
    """A lock of the operating system's, until it is given back."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self.name = f"{found.st_dev}:{found.st_ino}"
        """One for all processes of this node."""

    def is_ours(self) -> bool:
        """Always: it cannot be lost."""
        return True

    def release(self) -> None:
        """Unlocks; the file stays, since another may be about to lock it."""
        os.close(self._descriptor)


def lock(file: Path, *, create: bool = True) -> Lock | None:
    """The lock that a file stands for, or None while another process has it.

    Args:
        file: made where it is not there, and left.
        create: whether to make it.

    Raises:
        OSError: the file cannot be opened for writing, or its file system has no locks.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    while True:
        descriptor = os.open(file, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return Lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        os.close(descriptor)  # deleted since it was opened
