"""A system's files in /proc and /sys, as a test wants them."""

from __future__ import annotations

from pathlib import Path


def write(root: Path, **files: str) -> Path:
    """Files of a system, a slash in a name written as two underscores."""
    for name, text in files.items():
        file = root / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root
