"""Pairs as points of a plane that two lines part into quarters, one plane for each checkpoint.

Of the log-ratios to the reference, the quarters say what tuning moved: chosen up and rejected
down, both down, both up, or the wrong way round. Of the inner product of a pair's two gradients,
divided by the square of either norm, they say what a step of DPO will move.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from prefbench.leaderboard import Board, Gathered, Group, Measured
from prefbench.records import Checkpoint
from prefbench.report.effects.estimated import Ratio, estimated, members_with
from prefbench.report.effects.scales import Scale, scale_around, unit_of
from prefbench.report.figures.rows import finals
from prefbench.stats.bootstrap import Array
from prefbench.stats.estimates import Estimate

BANDS: Mapping[str, str] = {"low": "below 0.1", "mid": "0.1 to 0.5", "high": "from 0.5 on"}
"""Of the edit distance of a pair: what quantities call them, and what they hold."""
MOST_DRAWN = 600
"""Points of a checkpoint: more would be one blot, and a heavy file."""

Corner: TypeAlias = tuple[int, int]
"""Which quarter: 1 is right or above, -1 left or below."""
_QUADRANTS: Mapping[Corner, str] = {
    (1, -1): "ideal",
    (-1, -1): "both_down",
    (1, 1): "both_up",
    (-1, 1): "inverted",
}
_POSSIBLE: Mapping[Corner, str] = {
    (-1, -1): "both conditions",
    (1, -1): "chosen falls",
    (-1, 1): "rejected rises",
}


@dataclass(frozen=True)
class Plane:
    """A checkpoint's pairs as points, and what share of them lies in each quarter."""

    row: Checkpoint
    points: Array
    """(n_pairs, 2), rightwards and upwards; all finite."""
    bands: NDArray[np.int8]
    """Which of BANDS each pair's edit distance falls into, (n_pairs,); -1 where it is unknown."""
    middle: tuple[float, float]
    """A point that stands for all."""
    shares: Mapping[Corner, Estimate]
    """Of all pairs; one on a line is in no quarter."""

    def drawn(self, most: int = MOST_DRAWN) -> NDArray[np.intp]:
        """Which points to draw: all, or so many of them, evenly spread over the items."""
        n = len(self.points)
        return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.intp))


@dataclass(frozen=True)
class Planes:
    """The planes of one task, on one scale."""

    group: Group
    planes: tuple[Plane, ...]
    line: float
    """Where on both axes the quarters meet."""
    across: Scale
    up: Scale

    def thinned(self, most: int = MOST_DRAWN) -> bool:
        return any(len(plane.points) > most for plane in self.planes)

    @property
    def stretched(self) -> bool:
        return bool(self.across.unit or self.up.unit)

    @property
    def banded(self) -> list[int]:
        """Which bands there are."""
        return sorted({int(b) for plane in self.planes for b in plane.bands if b >= 0})


def displacement(gathered: Gathered, board: Board) -> list[Planes]:
    """Per task: how far each pair's two texts moved from the reference, in nats."""
    found = []
    for group in gathered.groups:
        members = members_with(gathered, group, ("delta_chosen", "delta_rejected"))
        points = {
            one.checkpoint: np.stack(
                [one.quantities["delta_chosen"], one.quantities["delta_rejected"]], axis=-1
            )
            for one in members
        }
        for planes in _planes(board, group, members, points, _QUADRANTS, np.mean, banded=False):
            # One unit for both axes: an even axis beside a stretched one would bend the cloud.
            unit = max(unit_of(at, 0.0) for at in _everything(planes).T)
            across, up = (scale_around(at, 0.0, unit=unit) for at in _everything(planes).T)
            found.append(Planes(group, planes, 0.0, across, up))
    return found


def entanglement(gathered: Gathered, board: Board) -> list[Planes]:
    """Per task: the inner product of a pair's gradients by the square of each one's norm.

    Left of 1 a small step of DPO raises the chosen text, below 1 it lowers the rejected one. No
    pair can lie beyond both lines: the product of the two ratios is the squared cosine.

    Source: Yuan et al. 2024, condition 1, arxiv.org/abs/2410.13828.
    """
    found = []
    for group in gathered.groups:
        members, points = [], {}
        for one in members_with(gathered, group, ("norm_chosen", "norm_rejected", "inner")):
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = [
                    one.quantities["inner"] / one.quantities[f"norm_{kind}"] ** 2
                    for kind in ("chosen", "rejected")
                ]
            at = np.stack(ratios, axis=-1)
            corners = {
                name: np.where(
                    np.isfinite(at).all(axis=-1),
                    (np.sign(at - 1) == corner).all(axis=-1),
                    np.nan,
                )
                for corner, name in _POSSIBLE.items()
            }
            points[one.checkpoint] = at
            members.append(dataclasses.replace(one, quantities={**one.quantities, **corners}))
        for planes in _planes(board, group, members, points, _POSSIBLE, np.median, banded=True):
            # What matters lies between 0 and 1; below there is room to write.
            across, up = (
                scale_around(at, 1.0, unit=1.0, side=0.5, below_0=below_0)
                for at, below_0 in zip(_everything(planes).T, (0.0, 0.2), strict=True)
            )
            found.append(Planes(group, planes, 1.0, across, up))
    return found


def _planes(
    board: Board,
    group: Group,
    members: Sequence[Measured],
    points: Mapping[str, Array],
    corners: Mapping[Corner, str],
    middle: Callable[..., Array],
    *,
    banded: bool,
) -> list[tuple[Plane, ...]]:
    """The planes of a task's last checkpoints, as one tuple; none where no pair has both values."""
    known = {name for one in members for name in one.quantities}
    ratios = {name: Ratio(name, proportion=True) for name in corners.values() if name in known}
    shares = estimated(members, group, ratios, confidence=board.confidence)
    of = {one.checkpoint: one for one in members}
    planes = []
    for row in finals(board):
        there = np.isfinite(points.get(row.name, np.empty((0, 2)))).all(axis=-1)
        if there.any():
            at = points[row.name][there]
            x, y = map(float, middle(at, axis=0))
            told = {c: shares[row.name][n] for c, n in corners.items() if n in ratios}
            bands = _bands(of[row.name], known=banded)[there]
            planes.append(Plane(row, at, bands, (x, y), told))
    return [tuple(planes)] if planes else []


def _everything(planes: Sequence[Plane]) -> Array:
    return np.concatenate([plane.points for plane in planes])


def _bands(one: Measured, *, known: bool) -> NDArray[np.int8]:
    """The band that most of an item's combinations fall into, where it is to be known."""
    names = [f"in@{band}_edit" for band in BANDS]
    if not known or not all(name in one.quantities for name in names):
        return np.full(len(one.items), -1, dtype=np.int8)
    table = np.stack([one.quantities[name] for name in names], axis=-1)
    unknown = np.isnan(table).any(axis=-1)
    return np.where(unknown, -1, np.nan_to_num(table).argmax(axis=-1)).astype(np.int8)
