"""Words in figures: hostile text made plain, and cut to the room there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font, LoadFlags

from prefbench.report.layout import plain

SIZE = 7.0
"""Of all text, in points."""
LONGEST = 24
"""Characters of a name."""
_LONGEST_LINE = 160
"""Characters of anything: more than that no figure holds, and measuring it would take long."""


def said(text: str) -> str:
    """Text on one line, without control characters and signs that the font cannot draw."""
    known = _glyphs()
    line = shortened(" ".join(plain(text).split()), _LONGEST_LINE)
    return "".join(c if ord(c) in known else "\ufffd" for c in line)


def shortened(text: str, longest: int = LONGEST) -> str:
    """A text with its middle left out where it is too long: both ends of a name tell it apart."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def names_told_apart(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """Names made plain and short, numbered where that makes different ones alike."""
    short = [shortened(said(name), longest) for name in names]
    told: list[str] = []
    for name, full in zip(short, names, strict=True):
        alike = [other for other, same in zip(names, short, strict=True) if same == name]
        told.append(f"{name} #{alike.index(full) + 1}" if len(set(alike)) > 1 else name)
    return told


def width_of(text: str, size: float = SIZE) -> float:
    """How wide a text is set, in inches."""
    font = _font()
    font.set_size(size, 72)
    font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)
    return font.get_width_height()[0] / 64 / 72  # it counts in 64ths of a point


def fitted(text: str, width: float, size: float = SIZE) -> str:
    """The text, shortened until it fits a width in inches."""
    # No letter is narrower than a tenth of its height.
    longest = min(len(text), max(3, int(720 * width / size)))
    while longest > 3 and width_of(shortened(text, longest), size) > width:
        longest -= 1
    return shortened(text, longest)


def lines_of(text: str, width: float, *, most: int = 2, size: float = SIZE) -> list[str]:
    """The text in at most so many lines of a width, broken after signs that part words."""
    return _broken(text, lambda line: width_of(line, size) <= width, most, width, size)


def _broken(
    text: str, fits: Callable[[str], bool], most: int, width: float, size: float
) -> list[str]:
    if fits(text) or most == 1:
        return [fitted(text, width, size)]
    fitting = [i + 1 for i in range(len(text) - 1) if fits(text[: i + 1].rstrip())]
    breaks = [i for i in fitting if text[i - 1] == " "]
    breaks = breaks or [i for i in fitting if text[i - 1] in ",_-/:"]
    if not breaks:
        return [fitted(text, width, size)]
    rest = text[breaks[-1] :].lstrip()
    return [text[: breaks[-1]].rstrip(), *_broken(rest, fits, most - 1, width, size)]


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(_font().get_charmap())


@cache
def _font() -> FT2Font:
    return FT2Font(fontManager.findfont("DejaVu Sans"))
