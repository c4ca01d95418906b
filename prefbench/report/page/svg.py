"""SVG as text: elements, and axes that give values their places."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from prefbench.report.page.visible import visible


def element(name: str, *inside: str, **attributes: object) -> Markup:
    """An element; what is inside is escaped unless it is Markup.

    `class_` is written class, `stroke_width` stroke-width; None is left out. No element has a style
    attribute: the page's security policy refuses them.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    body = "".join(part if isinstance(part, Markup) else escape(visible(part)) for part in inside)
    return Markup(f"<{name}{said}>{body}</{name}>")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return visible(str(value))


def joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


@dataclass(frozen=True)
class Axis:
    """From values to places, in pixels; those beyond its ends are put at its ends."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high = math.log(low), math.log(high)
            at = math.log(max(value, self.low))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values along the axis, not more than `most`."""
        if self.log:
            found = _log_ticks(self.low, self.high)
            if len(found) >= 2:
                return found[:: math.ceil(len(found) / most)]
        step = _round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        return [
            round(i * step, 12)
            for i in range(first, first + most + 2)
            if i * step <= self.high + step * 1e-9
        ]


def axis(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    log: bool = False,
    around: float = 0.05,
) -> Axis | None:
    """An axis on which all values have room; None without a finite one.

    Args:
        values: what is to be placed; NaN and infinities are left out.
        start: place of its low end.
        end: place of its high end.
        log: logarithmic, where all values are above 0.
        around: room at both ends, as a share of the range.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    if log and low > 0:
        room = max((high / low) ** around, 1.01)
        return Axis(low / room, high * room, start, end, log=True)
    room = around * (high - low) if high > low else abs(high) * 0.05 or 0.05
    return Axis(low - room, high + room, start, end)


def _round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    powers = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(np.arange(1, 10, 0.2))):
        found = [float(p * s) for p in powers for s in steps if low <= p * s <= high]
        if len(found) >= 3:
            return [round(value, 10) for value in found]
    return []
