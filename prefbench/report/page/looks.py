"""How methods look on the page: the palette's colours and shapes, by class, for light and dark."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from markupsafe import Markup

from prefbench.records import Checkpoint
from prefbench.report.figures.palette import MARKERS, colour_of, marker_of
from prefbench.report.page.svg import element


def method_of(row: Checkpoint) -> str:
    """What decides a checkpoint's look: its method, or its name where that is unknown."""
    return row.method or row.name


def class_of(method: str) -> str:
    """A class that sets `--look` to the method's colour; a name that no text can break out of."""
    return f"look-{hashlib.sha256(method.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


def style_of(methods: Iterable[str]) -> str:
    """The rules of all classes."""
    names = sorted(set(methods))
    light = "".join(f".{class_of(name)}{{--look:{colour_of(name)}}}\n" for name in names)
    dark = "".join(f".{class_of(name)}{{--look:{colour_of(name, dark=True)}}}\n" for name in names)
    return f"{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def mark(method: str, x: float, y: float, size: float = 4.0, kind: str = "mark") -> Markup:
    """The method's shape around a point, with the area of a disc of radius `size`."""
    corners = [f"{x + size * a:.1f} {y - size * b:.1f}" for a, b in MARKERS[marker_of(method)]]
    return element("path", d=f"M{'L'.join(corners)}Z", class_=kind)
