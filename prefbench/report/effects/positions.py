"""Log-probs per token before, at and after the first token in which a pair's texts differ."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from prefbench.leaderboard import Board, Gathered, Group
from prefbench.records import Checkpoint
from prefbench.report.effects.estimated import Ratio, estimated, members_with
from prefbench.report.figures.rows import finals
from prefbench.stats.estimates import Estimate

TEXTS = ("chosen", "rejected")
PLACES: Mapping[str, str] = {
    "before": "before the first difference",
    "at": "at the first difference",
    "after": "after it",
}


@dataclass(frozen=True)
class Profile:
    """A checkpoint's mean log-probs per token, by text and place, beside its reference's."""

    row: Checkpoint
    own: Mapping[tuple[str, str], Estimate]
    reference: Mapping[tuple[str, str], float]
    """On the same tokens; NaN where it is unknown."""


def profiles(gathered: Gathered, board: Board) -> list[tuple[Group, tuple[Profile, ...]]]:
    """Per task that has them, the profiles of its last checkpoints."""
    places = [(text, place) for text in TEXTS for place in PLACES]
    found = []
    for group in gathered.groups:
        members = members_with(
            gathered, group, [f"{part}{t}_{p}" for t, p in places for part in ("", "n_")]
        )
        # The reference's log-prob is the checkpoint's less the log-ratio.
        with_reference = [
            dataclasses.replace(
                one,
                quantities={
                    **one.quantities,
                    **{
                        f"reference_{t}_{p}": one.quantities[f"{t}_{p}"]
                        - one.quantities.get(f"delta_{t}_{p}", math.nan)
                        for t, p in places
                    },
                },
            )
            for one in members
        ]
        ratios = {
            f"{part}{t}_{p}": Ratio(f"{part}{t}_{p}", f"n_{t}_{p}")
            for t, p in places
            for part in ("", "reference_")
        }
        told = estimated(with_reference, group, ratios, confidence=board.confidence)
        rows = [row for row in finals(board) if row.name in told]
        some = [
            Profile(
                row,
                {(t, p): told[row.name][f"{t}_{p}"] for t, p in places},
                {(t, p): told[row.name][f"reference_{t}_{p}"].value for t, p in places},
            )
            for row in rows
        ]
        if any(math.isfinite(e.value) for one in some for e in one.own.values()):
            found.append((group, tuple(some)))
    return found
