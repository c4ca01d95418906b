"""Names beside the points of a panel, with a line where they stand off."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from prefbench.report.figures.labels import Box, nearest, place
from prefbench.report.figures.sheet import FAINT, INK
from prefbench.report.figures.wording import SIZE, width_of
from prefbench.stats.bootstrap import Array


def name_points(
    axes: Axes, points: Array, texts: Sequence[str], *, outlines: Sequence[Array] = ()
) -> list[str]:
    """Writes the names; the axes' limits must be final.

    Args:
        axes: the panel.
        points: (n, 2), in data coordinates.
        texts: of the points.
        outlines: what names should rather not lie on, each (n_corners, 2).

    Returns:
        The names for which there is no room.
    """
    at = np.asarray(axes.transData.transform(points))
    boxes = place(
        at,
        [(72 * width_of(text), SIZE + 1) for text in texts],
        Box(*map(float, axes.bbox.extents)),
        outlines=[np.asarray(axes.transData.transform(outline)) for outline in outlines],
    )
    back = axes.transData.inverted()
    for text, point, box in zip(texts, at, boxes, strict=True):
        if box is None:
            continue
        middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
        end = nearest(point, box)
        if math.dist(point, end) > 7:
            ends = back.transform(np.asarray([point, end]))
            axes.plot(*ends.T, color=FAINT, linewidth=0.5, zorder=2)
        x, y = back.transform(np.asarray(middle))
        axes.text(x, y, text, ha="center", va="center", color=INK, zorder=4)
    return [text for text, box in zip(texts, boxes, strict=True) if box is None]
