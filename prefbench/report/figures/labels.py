"""Where names stand beside their points without touching anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prefbench.stats.bootstrap import Array

# Where a name may stand: how far from its point, and in which direction. Right and left come first.
_REACHES = (5.0, 8.0, 12.0, 17.0, 23.0, 30.0, 38.0, 48.0, 60.0)
_TURNS = (0.0, 0.5, 0.25, 0.75, *(i / 16 for i in range(1, 16) if i % 4))
_SWEEPS = 4
_GAP = 1.0


class Box(NamedTuple):
    """A rectangle, in points."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> float:
        """The common area, with a little air around."""
        width = min(self.right, other.right) - max(self.left, other.left) + _GAP
        height = min(self.top, other.top) - max(self.bottom, other.bottom) + _GAP
        return max(0.0, width) * max(0.0, height)


def place(
    points: Array,
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    *,
    outlines: Sequence[Array] = (),
) -> list[Box | None]:
    """A box for the name of each point, None where it would touch a name, a point or the frame.

    Args:
        points: (n, 2), in points.
        sizes: width and height of each name, in points.
        frame: what the names must stay within.
        outlines: shapes that names should rather not lie on, each (n_corners, 2).
    """
    marks = [Box(x - 3, y - 3, x + 3, y + 3) for x, y in points]
    corners = np.concatenate([np.asarray(points), *outlines])
    options = [
        sorted(
            (cost + _misread(point, box, points, own), rank, box)
            for rank, (box, reach) in enumerate(_around(point, size))
            if (cost := _alone(box, reach, rank, frame, marks, corners)) < math.inf
        )
        for own, (point, size) in enumerate(zip(points, sizes, strict=True))
    ]
    chosen: list[Box | None] = [None] * len(options)
    # Those with the fewest places choose first; then each looks again at what the others took.
    order = sorted(range(len(options)), key=lambda i: (len(options[i]), i))
    for _ in range(_SWEEPS):
        for i in order:
            others = [box for j, box in enumerate(chosen) if box is not None and j != i]
            free = (
                box for _, _, box in options[i] if not any(box.overlaps(other) for other in others)
            )
            chosen[i] = next(free, None)
    return chosen


def _around(point: Array, size: tuple[float, float]) -> list[tuple[Box, float]]:
    x, y = map(float, point)
    width, height = size
    boxes = []
    for reach in _REACHES:
        for turn in _TURNS:
            dx, dy = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
            # The box touches a circle of that reach: its middle lies half its size beyond.
            cx = x + dx * reach + (width / 2) * (1 if dx > 0.3 else -1 if dx < -0.3 else 0)
            cy = y + dy * reach + (height / 2) * dy
            box = Box(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
            boxes.append((box, reach))
    return boxes


def _alone(
    box: Box, reach: float, rank: int, frame: Box, marks: Sequence[Box], corners: Array
) -> float:
    """What a place costs whatever the other names do; infinite where it is none."""
    inside = (
        frame.left <= box.left and box.right <= frame.right
        and frame.bottom <= box.bottom and box.top <= frame.top
    )  # fmt: skip
    if not inside or any(box.overlaps(mark) for mark in marks):
        return math.inf
    x, y = corners[:, 0], corners[:, 1]
    on = (box.left <= x) & (x <= box.right) & (box.bottom <= y) & (y <= box.top)
    return reach + 0.02 * rank + 0.6 * int(on.sum())


def _misread(point: Array, box: Box, points: Array, own: int) -> float:
    """What it costs that a reader may take a name for that of another point.

    Because that one is nearer, or because the line from the name to its point passes by it.
    """
    end = nearest(point, box)
    line = np.asarray(end) - point
    length = float(np.hypot(*line))
    rest = np.delete(np.asarray(points), own, axis=0)
    nearer = sum(math.dist(other, nearest(other, box)) < length for other in rest)
    others = rest - point
    along = np.clip(others @ line / max(length, 1e-9) ** 2, 0, 1)
    away = np.hypot(*(others - along[:, None] * line).T)
    return 10.0 * nearer + 40.0 * int((away < 4).sum())


def nearest(point: Array, box: Box) -> tuple[float, float]:
    """The place on a box that is closest to a point."""
    x, y = map(float, point)
    return min(max(x, box.left), box.right), min(max(y, box.bottom), box.top)
