"""An axis for values that are small and large on both sides of a line."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from prefbench.stats.bootstrap import Array

WILD = 20.0
"""From this ratio of the largest to the middle distance on, an even axis would show one blot."""
SIDE = 0.3
"""The least share of an axis on either side of a line, so that there is room to write."""


@dataclass(frozen=True)
class Scale:
    """From values to places: even, or even near 0 and logarithmic far from it."""

    low: float
    high: float
    """Ends of the axis, as places."""
    unit: float = 0.0
    """Values of this size are where logarithms begin; 0 for an even axis."""

    def place(self, values: Array | float) -> Array:
        """Where values stand; an even axis has them where they are."""
        found = np.asarray(values, dtype=np.float64)
        return np.asarray(np.arcsinh(found / self.unit) if self.unit else found)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values between the ends, 0 among them where it is, none close to another."""
        if not self.unit:
            return _even(self.low, self.high, most)
        reach = self.unit * math.sinh(min(max(abs(self.low), abs(self.high)), 700))
        powers = range(math.floor(math.log10(self.unit)), math.ceil(math.log10(reach)) + 1)
        apart = (self.high - self.low) / (most + 1)
        found = [0.0]
        sizes = (lead * 10.0**power for lead in (1, 5, 2) for power in powers)
        for value in (sign * size for size in sizes for sign in (1, -1)):
            at = float(self.place(value))
            if all(abs(at - float(self.place(other))) >= apart for other in found):
                found.append(value)
        there = sorted(v for v in found if self.low <= float(self.place(v)) <= self.high)
        if len(there) >= 2:
            return there
        low, high = (self.unit * math.sinh(end) for end in (self.low, self.high))
        return _even(low, high, most)


def unit_of(values: Array, line: float) -> float:
    """Where logarithms should begin for values around a line: a power of ten, 0 for nowhere."""
    distances = np.abs(values - line)
    apart = distances[distances > 0]
    middle = float(np.median(apart)) if len(apart) else 0.0
    wild = middle > 0 and float(distances.max()) > WILD * middle
    return float(10.0 ** round(math.log10(middle))) if wild else 0.0


def scale_around(
    values: Array, line: float, *, unit: float, side: float = SIDE, below_0: float = 0.0
) -> Scale:
    """The scale on which all values have room, and both sides of a line.

    Args:
        values: finite, at least one.
        line: a value that has to be on the axis.
        unit: as `unit_of` has it.
        side: the least share of the axis on either side of the line.
        below_0: the least share of the axis below 0, where that is to be on it.
    """
    bare = Scale(0, 0, unit)
    at, places = float(bare.place(line)), bare.place(values)
    down, up = max(at - float(places.min()), 0.0), max(float(places.max()) - at, 0.0)
    reach = max(down, up) or 1.0
    least = side / (1 - side) * reach
    low, high = at - 1.06 * max(down, least), at + 1.06 * max(up, least)
    if below_0:
        low = min(low, -below_0 / (1 - below_0) * high)
    return Scale(low, high, unit)


def _even(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(lead * power for lead in (1, 2, 5, 10) if lead * power >= rough)
    digits = max(0, -math.floor(math.log10(step)))
    return [
        round(i * step, digits) for i in range(math.ceil(low / step), math.floor(high / step) + 1)
    ]
