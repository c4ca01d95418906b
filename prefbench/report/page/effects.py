"""The page's part on what preference tuning did: a reading of each checkpoint, and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered
from prefbench.report.effects.heat import MOST, heats
from prefbench.report.effects.planes import Planes, displacement, entanglement
from prefbench.report.figures.rows import finals
from prefbench.report.page.curves import by_step, by_temperature
from prefbench.report.page.frontier import frontier_drawings
from prefbench.report.page.heat import heat_drawing, key_of_heat
from prefbench.report.page.planes import DRAWN, key_of_bands, plane_drawing
from prefbench.report.page.positions import position_drawings
from prefbench.report.page.sheets import title_of
from prefbench.report.tables import label
from prefbench.store import Store

NOTHING = Markup("")


@dataclass(frozen=True)
class Sheet:
    """Drawings that belong together, each with what stands above it."""

    kind: str
    caption: str
    title: str
    """Of the task."""
    drawings: tuple[tuple[str, Markup], ...]
    small: bool = False
    """Whether several fit side by side on a narrow page."""
    key: Markup = NOTHING


@dataclass(frozen=True)
class Effects:
    """All of the part; nothing of it where nothing of the kind was measured."""

    readings: tuple[tuple[str, str], ...]
    """Names of rows, the last of each run, and what is to be said of them."""
    kinds: tuple[tuple[str, tuple[Sheet, ...]], ...]


def effects_of(
    gathered: Gathered, shown: Shown, store: Store | None, readings: Mapping[str, str]
) -> tuple[Effects, list[str]]:
    """The part and what a reader must know of it.

    Args:
        gathered: what was measured.
        shown: the leaderboard of it.
        store: where it came from; without it no answers can be drawn.
        readings: a paragraph for each row, by its name.
    """
    maps, notes = _maps(gathered, shown, store)
    sheets = [
        *_planes(shown, displacement(gathered, shown.board), "likelihood displacement"),
        *_positions(gathered, shown),
        *_planes(shown, entanglement(gathered, shown.board), "gradient entanglement"),
        *maps,
        *_curves(gathered, shown),
        *_frontiers(gathered, shown, store),
    ]
    told = tuple((row.name, readings.get(row.name, "")) for row in finals(shown.board))
    kinds = tuple((kind, tuple(some)) for kind, some in groupby(sheets, lambda one: one.kind))
    return Effects(tuple((name, text) for name, text in told if text), kinds), notes


def _planes(shown: Shown, tasks: list[Planes], kind: str) -> Iterator[Sheet]:
    moved = kind == "likelihood displacement"
    for found in tasks:
        caption = (
            "Each point is a pair: to the right the log-ratio of its chosen text to the reference, "
            "upwards that of its rejected text, in nats; the large mark is their mean. In the "
            "corners the share of pairs in percent, with its interval. Shaded: chosen rose and "
            "rejected fell."
            if moved
            else "Each point is a pair: the inner product of the gradients of its two texts' "
            "log-probs, divided by the squared norm of the chosen text's (to the right) and of the "
            "rejected text's (upwards); the large mark is their median. A small step on DPO's loss "
            "raises the chosen text left of 1 and lowers the rejected text below 1 (shaded: both)."
        )
        if found.thinned(DRAWN):
            caption += f" Of each checkpoint {DRAWN} pairs are drawn; shares are of all."
        if found.stretched:
            caption += " Axes are even near 0 and logarithmic beyond."
        drawings = tuple(
            (label(plane.row, shown.board), plane_drawing(found, plane, moved=moved))
            for plane in found.planes
        )
        key = key_of_bands(found) if found.banded else NOTHING
        yield Sheet(kind, caption, title_of(found.group), drawings, small=True, key=key)


def _positions(gathered: Gathered, shown: Shown) -> Iterator[Sheet]:
    caption = (
        "Mean log-prob per token: over what both texts of a pair share at the beginning, over the "
        "first token in which they differ, and over all after it. The stroke in a row is the "
        "checkpoint's reference on the same tokens."
    )
    for group, drawings in position_drawings(gathered, shown):
        yield Sheet("log-prob by position", caption, title_of(group), drawings)


def _maps(gathered: Gathered, shown: Shown, store: Store | None) -> tuple[list[Sheet], list[str]]:
    found, notes = heats(gathered, shown.board, store)
    caption = (
        "Cosines between the gradients of single tokens' log-probs, of one pair: tokens of the "
        "chosen text downwards, of the rejected text to the right; a dot is a space. Warm: raising "
        "one token's log-prob raises the other's."
    )
    sheets = []
    for one in found:
        cut = any(any(heat.n_left_out) for heat in one.heats)
        more = f" The first {MOST} tokens of each text are shown." if cut else ""
        drawings = tuple((label(h.row, shown.board), heat_drawing(h)) for h in one.heats)
        title = f"{title_of(one.group)}, item {one.item}"
        sheets.append(
            Sheet("token gradients", caption + more, title, drawings, True, key_of_heat())
        )
    return sheets, notes


def _curves(gathered: Gathered, shown: Shown) -> Iterator[Sheet]:
    caption = (
        "How the two texts of a pair differ at aligned steps, the t-th token of one against the "
        "t-th of the other: norms of the differences of both gradients with respect to the logits, "
        "of both distributions, and of both hidden states, squared, per dimension (our "
        "definition). Logarithmic; hollow points on the lower edge are exactly 0. Grey: a model "
        "with random weights."
    )
    for group, drawings in by_step(gathered, shown):
        yield Sheet("differences by step", caption, title_of(group), drawings)
    caption = "Win rates in percent over the temperature that texts were sampled at; 0 is greedy."
    for title, drawing in by_temperature(gathered, shown):
        yield Sheet("win rate by temperature", caption, title, (("win rate", drawing),))


def _frontiers(gathered: Gathered, shown: Shown, store: Store | None) -> Iterator[Sheet]:
    drawn = frontier_drawings(gathered, shown, store)
    for (_, same), some in groupby(drawn, lambda one: (one[0].judged.name, one[0].same_answers)):
        there = list(some)
        caption = (
            "To the right the KL divergence to the checkpoint's reference, in nats, estimated from "
            "its own samples; upwards what its answers are worth. Checkpoints of one run are "
            "joined. "
        )
        caption += (
            "Both are of the same answers."
            if same
            else "Both are of answers to the same prompts, matched by the tasks' names."
        )
        drawings = tuple(
            ("reward" if found.is_reward else "win rate", drawing) for found, drawing in there
        )
        yield Sheet("reward and divergence", caption, title_of(there[0][0].judged), drawings)
