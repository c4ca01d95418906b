"""How text is laid out where people read it: widths, blocks, and signs that must not act."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

FORMULAS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def plain(text: str) -> str:
    """Text without what could steer a terminal or reorder a line."""
    return "".join(c if not unicodedata.category(c).startswith("C") else " " for c in text)


def width_of(text: str) -> int:
    """Columns of a terminal that a text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def padded(text: str, width: int) -> str:
    """A text and as many spaces as it lacks."""
    return text + " " * (width - width_of(text))


def blocks_of(
    first: Sequence[str], grid: Sequence[Sequence[str]], width: int
) -> list[list[Sequence[str]]]:
    """The columns of a grid in blocks that fit the width with the first column beside them."""
    blocks: list[list[Sequence[str]]] = []
    room = 0
    for column in grid:
        needed = max(map(width_of, column)) + 2
        if not blocks or needed > room:
            blocks.append([])
            room = width - max(map(width_of, first))
        blocks[-1].append(column)
        room -= needed
    return blocks


def escaped(text: str) -> str:
    """Text that Markdown and the HTML in it leave as it is."""
    for sign in "&<>\\`*_|[]#":  # & first: what stands for another sign begins with it
        text = text.replace(sign, {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(sign, f"\\{sign}"))
    return text


def safe_cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula, as text."""
    if isinstance(value, str):
        value = plain(value)
        # Some spreadsheets leave out space before a sign, or take a wide one for it.
        return f"'{value}" if value.lstrip().startswith(FORMULAS) else value
    return value
