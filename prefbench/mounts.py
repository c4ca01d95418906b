"""What kind of file system a path lies on."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path("/")
LOCAL = frozenset(
    ("apfs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs")
)
"""Those whose files no other machine has open, as far as we know them."""


def journal_mode(file: Path, root: Path = ROOT) -> str:
    """How SQLite can keep a database that several processes use, for `PRAGMA journal_mode`.

    The write-ahead log, which is fast, needs memory that all of them share. Processes of two nodes
    share none, and would spoil the file without noticing; its locks they do share.
    """
    kind = file_system(file, root)
    return "WAL" if kind is None or kind in LOCAL else "DELETE"


def file_system(path: Path, root: Path = ROOT) -> str | None:
    """The kind of file system of a path, as `mount` calls it; None where no system tells."""
    try:
        text = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    place = path.resolve()
    found: tuple[int, str] | None = None
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        words, kinds = fields.split(" "), rest.split(" ")
        if len(words) < 5 or not kinds[0]:
            continue
        mounted = Path(_unescaped(words[4]))
        # What was mounted last over the same place hides what was there.
        if place.is_relative_to(mounted) and (not found or len(mounted.parts) >= found[0]):
            found = len(mounted.parts), kinds[0]
    return found[1] if found else None


def _unescaped(text: str) -> str:
    """A path with the spaces that it has."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
