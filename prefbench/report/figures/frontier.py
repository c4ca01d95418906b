"""Reward against KL divergence: what each checkpoint paid for what it gained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered
from prefbench.report.effects.frontier import Frontier, Point, frontiers
from prefbench.report.figures.dots import numbered, pages
from prefbench.report.figures.naming import name_points
from prefbench.report.figures.palette import colour_of, dash_of
from prefbench.report.figures.rows import finals, labels_of, method_of
from prefbench.report.figures.sheet import (
    COLUMN,
    FAINT,
    SPREAD,
    TALLEST,
    Drawn,
    blank,
    even_ticks,
    level,
    mark,
    panel,
)
from prefbench.report.figures.wording import fitted, said
from prefbench.stats.bootstrap import Array
from prefbench.stats.estimates import Estimate
from prefbench.store import Store

_LEFT, _RIGHT, _TOP, _BELOW = 0.48, 0.08, 0.34, 0.36
_HEIGHT = 2.1


def reward_and_divergence(gathered: Gathered, shown: Shown, store: Store | None = None) -> Drawn:
    """A panel for each comparison whose answers' divergence is known."""
    board = shown.board
    found = frontiers(gathered, board, store)
    if not found:
        return Drawn()
    names = labels_of(finals(board), board)
    across = 1 if len(found) == 1 else 2
    width = COLUMN if across == 1 else SPREAD
    wide, tall = width / across, _TOP + _HEIGHT + _BELOW
    notices, figures = [], []
    for page in pages([tall] * math.ceil(len(found) / across), TALLEST):
        figure = blank(width, tall * len(page))
        for i, one in enumerate(found[page[0] * across : (page[-1] + 1) * across]):
            down, place = divmod(i, across)
            axes = panel(
                figure, wide * place + _LEFT, tall * down + _TOP, wide - _LEFT - _RIGHT, _HEIGHT
            )
            missed = _draw(axes, one, names)
            if missed:
                notices.append(
                    f"reward and KL divergence on {said(one.judged.name)}: no room for "
                    f"{len(missed)} names: {', '.join(missed[:5])}"
                )
        figures.append(figure)
    caption = _caption(found, board.confidence)
    return Drawn(numbered("reward_and_divergence", figures, caption), tuple(notices))


def _draw(axes: Axes, one: Frontier, names: dict[str, str]) -> list[str]:
    scale = 1.0 if one.is_reward else 100.0
    points = [point for _, some in one.runs for point in some]
    _frame(axes, points, scale, half=not one.is_reward)
    width = axes.bbox.width / 72
    group = one.judged
    title = [
        ", ".join(part for part in (said(group.task), said(group.conditions)) if part),
        f"vs {said(group.opponent)}, {said(group.judge)}",
    ]
    axes.set_title("\n".join(fitted(line, width) for line in title), loc="left", pad=3)
    for run, some in one.runs:
        colour, dash = colour_of(run.method), dash_of(run.method)
        if len(some) > 1:
            axes.plot(
                [p.divergence.value for p in some], [scale * p.worth.value for p in some],
                color=colour, linewidth=0.9, linestyle=(0, dash) if dash else "-", zorder=2,
            )  # fmt: skip
        for point in some:
            last = point is some[-1]
            for x, y in _bars(point, scale):
                axes.plot(x, y, color=colour, linewidth=0.9, alpha=1 if last else 0.4, zorder=2)
            mark(
                axes, point.divergence.value, scale * point.worth.value, method_of(point.row),
                size=4.4 if last else 2.8, zorder=3,
            )  # fmt: skip
    axes.set_xlabel("KL divergence to the reference (nats)")
    axes.set_ylabel("reward ↑" if one.is_reward else "win rate ↑ (%)")
    named = [some[-1] for _, some in one.runs if some[-1].row.name in names]
    at = np.array([(p.divergence.value, scale * p.worth.value) for p in named])
    outlines = [np.array(list(_along(p, scale))) for p in points]
    return name_points(
        axes, at, [names[p.row.name] for p in named], outlines=[o for o in outlines if len(o)]
    )


def _bars(point: Point, scale: float) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """The intervals of a point, as lines: both ends to the right, both upwards."""
    x, y = point.divergence, point.worth
    if math.isfinite(x.low) and math.isfinite(x.high):
        yield (x.low, x.high), (scale * y.value, scale * y.value)
    if math.isfinite(y.low) and math.isfinite(y.high):
        yield (x.value, x.value), (scale * y.low, scale * y.high)


def _along(point: Point, scale: float) -> Iterator[tuple[float, float]]:
    """Places on the intervals of a point."""
    for xs, ys in _bars(point, scale):
        for part in np.linspace(0, 1, 9):
            yield xs[0] + part * (xs[1] - xs[0]), ys[0] + part * (ys[1] - ys[0])


def _frame(axes: Axes, points: Sequence[Point], scale: float, *, half: bool) -> None:
    """Axes that hold 0 divergence and all intervals, with room for names."""

    def ends(estimates: Sequence[Estimate], factor: float) -> Array:
        values = np.array([v for e in estimates for v in e[:3] if math.isfinite(v)])
        return factor * values

    x = np.append(ends([p.divergence for p in points], 1.0), 0.0)
    y = ends([p.worth for p in points], scale)
    if half:
        y = np.append(y, 50.0)
        axes.axhline(50, color=FAINT, linewidth=0.8, zorder=1)
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    for values, limit, air in ((x, axes.set_xlim, 0.12), (y, axes.set_ylim, 0.12)):
        low, high = float(values.min()), float(values.max())
        room = air * (high - low) or 1.0
        limit(low - (0.04 * (high - low) or 1.0 if limit == axes.set_xlim else room), high + room)
    even_ticks(axes.xaxis)
    even_ticks(axes.yaxis)


def _caption(found: Sequence[Frontier], confidence: float) -> str:
    text = (
        "What answers are worth against how far the checkpoint went from its reference: "
        "sequence-level KL divergence estimated from the checkpoint's own samples (their summed "
        "log-prob less the reference's), in nats, with "
        f"{level(confidence)} bootstrap intervals over prompts both ways. Checkpoints of one run "
        "are joined by a line, the last one is the largest. Each has its own reference."
    )
    if all(one.same_answers for one in found):
        return text + " Both values are of the same answers."
    if any(one.same_answers for one in found):
        return (
            text + " Of some panels both values are of the same answers, of others only of "
            "answers to the same prompts."
        )
    return text + " Both values are of answers to the same prompts, matched by the tasks' names."
