"""Log-probs per token before, at and after the first difference, a row for each checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator

from markupsafe import Markup

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Gathered, Group
from prefbench.metrics import Metric
from prefbench.report.effects.positions import PLACES, TEXTS, profiles
from prefbench.report.page.intervals import Line, interval_rows
from prefbench.report.page.looks import method_of
from prefbench.report.tables import figure, label

_NATS = Metric("log-prob", (), lambda sums: sums, None, "nats")


def position_drawings(
    gathered: Gathered, shown: Shown
) -> Iterator[tuple[Group, tuple[tuple[str, Markup], ...]]]:
    """Per task, a drawing for each text and place."""
    for group, some in profiles(gathered, shown.board):
        drawings = []
        for text in TEXTS:
            for place, words in PLACES.items():
                lines = []
                for one in some:
                    value, low, high = one.own[text, place][:3]
                    beside = one.reference[text, place]
                    name = label(one.row, shown.board)
                    about = f"{name}\n{figure(value, _NATS)} nats per token"
                    if math.isfinite(low) and math.isfinite(high):
                        about += f", interval {figure(low, _NATS)} to {figure(high, _NATS)}"
                    if math.isfinite(beside):
                        about += f"\nits reference: {figure(beside, _NATS)}"
                    line = Line(name, method_of(one.row), value, low, high, about, beside=beside)
                    lines.append((line, one.row))
                drawing = interval_rows(lines, _NATS, math.nan)
                if drawing:
                    drawings.append((f"{text}, {words} (nats per token)", drawing))
        yield group, tuple(drawings)
