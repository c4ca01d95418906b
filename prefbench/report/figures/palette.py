"""How a method looks wherever it is drawn: colour, shape and line; imports nothing that draws.

A look hangs on the method's name alone, not on what else is shown. Ten methods that are often seen
together have ten colours that differ also for people who see no red or no green; the others share
these colours. No two known methods have the same shape, so that a grey print tells them apart as
well.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

Outline = tuple[tuple[float, float], ...]
"""Corners of a closed shape around (0, 0), y upwards."""


class Colour(NamedTuple):
    """One colour twice: as it stands out from white, and from a dark page."""

    light: str
    dark: str


class Look(NamedTuple):
    """How a method is drawn."""

    colour: Colour
    marker: str
    """One of MARKERS."""
    dash: tuple[float, ...]
    """Lengths of strokes and gaps in widths of the line; empty is a whole line."""


# Hues after Okabe and Ito 2008, jfly.uni-koeln.de/color. Lightness and chroma were searched for the
# largest distances in OKLab, seen with and without a deficiency of colour vision (Machado 2009),
# among colours with a contrast of 3 to white, and again of 3.5 to a dark page.
COLOURS: Mapping[str, Colour] = {
    "black": Colour("#222222", "#f2f2f2"),
    "purple": Colour("#74397d", "#9e5794"),
    "green": Colour("#07775b", "#92d4a9"),
    "blue": Colour("#201ed1", "#475ff6"),
    "orange": Colour("#a04d02", "#f18201"),
    "sky": Colour("#3d7ec9", "#439ef4"),
    "gold": Colour("#af9106", "#f9d92f"),
    "red": Colour("#852005", "#d62a35"),
    "pink": Colour("#d23b97", "#b080a0"),
    "violet": Colour("#793dff", "#c8b0e8"),
    "grey": Colour("#8a8a8a", "#9a9a9a"),
}

DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1, 1.2), (5, 1.5, 1, 1.5), (8, 2))


def _ring(n: int, *, turned: float = 0.25, inner: float = 1.0) -> Outline:
    """A regular shape with n corners, a star where `inner` is below 1; turned in whole turns."""
    radii = (1.0,) if inner == 1 else (1.0, inner)
    total = n * len(radii)
    return tuple(
        (
            radii[i % len(radii)] * math.cos(2 * math.pi * (i / total + turned)),
            radii[i % len(radii)] * math.sin(2 * math.pi * (i / total + turned)),
        )
        for i in range(total)
    )


def _turned(outline: Outline, turn: float) -> Outline:
    c, s = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    return tuple((c * x - s * y, s * x + c * y) for x, y in outline)


def _sized(outline: Outline) -> Outline:
    """The shape with the area of a disc of radius 1, so that none looks heavier than another."""
    following = [*outline[1:], outline[0]]
    twice = sum(x * v - u * y for (x, y), (u, v) in zip(outline, following, strict=True))
    scale = math.sqrt(math.pi / (abs(twice) / 2))
    return tuple((round(scale * x, 4), round(scale * y, 4)) for x, y in outline)


_PLUS: Outline = (
    (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1),
    (-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1),
)  # fmt: skip
_HOURGLASS: Outline = ((1, 1), (-1, 1), (-0.2, 0), (-1, -1), (1, -1), (0.2, 0))
_BAR: Outline = ((1, 3), (-1, 3), (-1, -3), (1, -3))

MARKERS: Mapping[str, Outline] = {
    name: _sized(outline)
    for name, outline in {
        "circle": _ring(32),
        "square": _ring(4, turned=0.125),
        "triangle": _ring(3),
        "triangle down": _ring(3, turned=0.75),
        "diamond": _ring(4),
        "plus": _PLUS,
        "star": _ring(5, inner=0.42),
        "cross": _turned(_PLUS, 0.125),
        "triangle left": _ring(3, turned=0.5),
        "triangle right": _ring(3, turned=0.0),
        "pentagon": _ring(5),
        "hexagon": _ring(6),
        "bar": _BAR,
        "flat bar": _turned(_BAR, 0.25),
        "hourglass": _HOURGLASS,
        "bow tie": _turned(_HOURGLASS, 0.25),
        "four-point star": _ring(4, inner=0.38),
        "half disc": tuple((x, y - 0.4) for x, y in _ring(32, turned=0.0)[:17]),
    }.items()
}
"""Corners of each shape; all have the area of a disc of radius 1."""

LOOKS: Mapping[str, Look] = {
    method: Look(COLOURS[colour], marker, DASHES[dash])
    for method, (colour, marker, dash) in {
        "base": ("grey", "half disc", 2),
        "sft": ("black", "circle", 0),
        "unlikelihood": ("purple", "triangle down", 1),
        "exmate": ("green", "square", 2),
        "exmate_token": ("green", "bar", 4),
        "dpo": ("blue", "triangle", 0),
        "dpop": ("sky", "diamond", 3),
        "ipo": ("orange", "plus", 4),
        "slic": ("gold", "star", 0),
        "hinge": ("gold", "flat bar", 1),
        "rrhf": ("pink", "pentagon", 3),
        "spin": ("violet", "hexagon", 2),
        "dpo_exmate": ("red", "cross", 1),
        "dpo_nll": ("sky", "triangle right", 0),
        "simpo": ("red", "triangle left", 4),
        "orpo": ("blue", "bow tie", 3),
        "sppo": ("grey", "four-point star", 4),
        "kto": ("green", "hourglass", 0),
    }.items()
}
"""Of the methods that `records.METHODS` names."""

# Black stays with what the others are measured against; pink and violet came later, and a method
# that nobody knows has its look for good.
_OTHERS = [
    Look(colour, marker, dash)
    for (name, colour), marker, dash in product(COLOURS.items(), MARKERS, DASHES)
    if name not in ("black", "pink", "violet")
]


def look_of(method: str) -> Look:
    """The look of a method, also of one that nobody knows: its name decides."""
    if method in LOOKS:
        return LOOKS[method]
    digest = hashlib.sha256(method.encode("utf-8", "surrogatepass")).digest()
    at = int.from_bytes(digest[:8]) % len(_OTHERS)
    while _OTHERS[at] in LOOKS.values():  # the next one then, so that other names keep theirs
        at = (at + 1) % len(_OTHERS)
    return _OTHERS[at]


def colour_of(method: str, *, dark: bool = False) -> str:
    """The method's colour as #rrggbb, for a white page or a dark one."""
    colour = look_of(method).colour
    return colour.dark if dark else colour.light


def marker_of(method: str) -> str:
    """The name of the method's shape; MARKERS has its corners."""
    return look_of(method).marker


def dash_of(method: str) -> tuple[float, ...]:
    """Strokes and gaps of the method's line, in its width."""
    return look_of(method).dash
