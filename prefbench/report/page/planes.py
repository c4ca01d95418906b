"""A checkpoint's pairs as points of a plane, with the share of each quarter in its corner."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from markupsafe import Markup

from prefbench.report.effects.planes import BANDS, Corner, Plane, Planes
from prefbench.report.effects.scales import Scale
from prefbench.report.page.looks import class_of, mark, method_of
from prefbench.report.page.sheets import stroke
from prefbench.report.page.svg import element, joined
from prefbench.stats.estimates import Estimate

DRAWN = 300
"""Points of a checkpoint: a page has many planes."""
_SIZE, _LEFT, _BELOW, _TOP = 176.0, 36.0, 34.0, 4.0
_SAID: Mapping[bool, Mapping[Corner, str]] = {
    True: {
        (1, -1): "chosen rose, rejected fell",
        (-1, -1): "both fell",
        (1, 1): "both rose",
        (-1, 1): "chosen fell, rejected rose",
    },
    False: {
        (-1, -1): "chosen rises, rejected falls",
        (1, -1): "both fall",
        (-1, 1): "both rise",
    },
}


def plane_drawing(found: Planes, plane: Plane, *, moved: bool) -> Markup:
    """One plane.

    Args:
        found: all planes of the task.
        plane: one of them.
        moved: whether points are what tuning moved; else what a step will move.
    """
    right, bottom = _LEFT + _SIZE, _TOP + _SIZE

    def x(value: float) -> float:
        return _place(found.across, value, _LEFT, right)

    def y(value: float) -> float:
        return _place(found.up, value, bottom, _TOP)

    x0, y0 = x(found.line), y(found.line)
    left = x0 if moved else _LEFT
    parts = [
        element("title", "\n".join(_words(plane, _SAID[moved]))),
        element(
            "rect", x=left, y=y0, width=(right if moved else x0) - left, height=bottom - y0,
            class_="shade",
        ),
        stroke(f"M{x0:.1f} {_TOP:g}V{bottom:g}M{_LEFT:g} {y0:.1f}H{right:g}", "cross"),
        stroke(f"M{_LEFT:g} {_TOP:g}V{bottom:g}H{right:g}", "frame"),
        *(_tick_below(tick, x(tick), bottom) for tick in found.across.ticks(4)),
        *(_tick_left(tick, y(tick), bottom) for tick in found.up.ticks(4)),
    ]  # fmt: skip
    at = plane.drawn(DRAWN)
    for band in sorted(set(plane.bands[at].tolist()), reverse=True):
        these = plane.points[at][plane.bands[at] == band]
        dots = "".join(f"M{x(float(a)):.1f} {y(float(b)):.1f}h0" for a, b in these)
        parts.append(stroke(dots, "dots" if band < 0 else f"dots band-{band}"))
    spot = mark(method_of(plane.row), x(plane.middle[0]), y(plane.middle[1]), 5, "mark middle")
    parts.append(spot)
    for (to_right, above), estimate in plane.shares.items():
        if math.isfinite(estimate.value):
            across = right - 3 if to_right > 0 else _LEFT + 4
            kind = "label figure" if to_right > 0 else "label"
            top = _TOP + 11 if above > 0 else bottom - 18
            for line, text in enumerate(_share(estimate)):
                parts.append(element("text", text, x=across, y=top + 13 * line, class_=kind))
    names = ("chosen →", "↑ rejected") if moved else ("÷ ‖g₊‖² →", "↑ ÷ ‖g₋‖²")
    parts.append(element("text", names[0], x=right, y=bottom + 30, class_="figure axis"))
    parts.append(element("text", names[1], x=2, y=bottom + 30, class_="axis"))
    box = f"0 0 {right + 4:g} {bottom + _BELOW:g}"
    look = f"drawing plane {class_of(method_of(plane.row))}"
    return element("svg", *parts, viewBox=box, class_=look, role="img")


def key_of_bands(found: Planes) -> Markup:
    """What the shades of points mean."""
    parts = [element("span", "edit distance in tokens, as a share:")]
    for band in found.banded:
        dot = element("path", d="M5 5h0", class_=f"dots band-{band}")
        swatch = element("svg", dot, viewBox="0 0 10 10", class_="swatch", aria_hidden="true")
        parts.append(element("span", swatch, list(BANDS.values())[band]))
    return joined(parts)


def _place(scale: Scale, value: float, start: float, end: float) -> float:
    share = (float(scale.place(value)) - scale.low) / (scale.high - scale.low)
    return start + share * (end - start)


def _tick_below(tick: float, x: float, bottom: float) -> Markup:
    if not _LEFT + 8 <= x <= _LEFT + _SIZE - 8:
        return Markup("")
    return element("text", _number(tick), x=x, y=bottom + 14, class_="tick")


def _tick_left(tick: float, y: float, bottom: float) -> Markup:
    if not _TOP + 6 <= y <= bottom - 2:
        return Markup("")
    return element("text", _number(tick), x=_LEFT - 4, y=y + 4, class_="figure tick-left")


def _number(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _share(estimate: Estimate) -> tuple[str, ...]:
    value, low, high = (f"{100 * part:.0f}" for part in estimate[:3])
    bounded = math.isfinite(estimate.low) and math.isfinite(estimate.high)
    return (f"{value}%", f"[{low}, {high}]") if bounded else (f"{value}%",)


def _words(plane: Plane, said: Mapping[Corner, str]) -> Iterator[str]:
    yield f"{len(plane.points)} pairs"
    for corner, words in said.items():
        if corner in plane.shares and math.isfinite(plane.shares[corner].value):
            yield f"{words}: {' '.join(_share(plane.shares[corner]))}"
