"""What a reader must know before any number: what is refused, missing, limited, or not alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefbench.boards.shown import Shown
from prefbench.report.page.table import against
from prefbench.report.tables import FEW, label
from prefbench.stats.winrate import FEWEST


@dataclass(frozen=True)
class Remark:
    """One thing to know. `kind` is a word of KINDS."""

    kind: str
    text: str


KINDS = ("refused", "incomplete", "missing", "limited", "few items", "note")
"""In the order in which they are told."""


def remarks_of(shown: Shown, more: Sequence[str] = ()) -> list[Remark]:
    """Everything that speaks against reading the table as it stands, the worst first.

    Args:
        shown: what the table shows.
        more: what else there is to say, of samples.
    """
    found = [
        Remark("refused" if row.state == "refused" else "incomplete", f"{row.name}: {row.reason}")
        for row in shown.board.rows
        if row.state != "ready"
    ]
    found += _missing(shown)
    found += _without_values(shown)
    found += _limited(shown)
    found += [Remark("note", f"{note}.") for note in dict.fromkeys(shown.board.notes)]
    found += [Remark("note", f"{note}.") for note in more]
    return sorted(found, key=lambda remark: KINDS.index(remark.kind))


def _missing(shown: Shown) -> list[Remark]:
    """What was not measured, each reason once with all that it holds for."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for column in shown.columns:
        for row in shown.board.rows:
            if row.state == "ready" and shown.entry(row, column) is None:
                told = reasons.setdefault(shown.board.reason(row, column), {})
                who = told.setdefault(column.group.name, [])
                if (name := label(row, shown.board)) not in who:
                    who.append(name)
    n_ready = sum(row.state == "ready" for row in shown.board.rows)
    if not shown.columns:
        return [Remark("missing", "nothing was measured")]
    return [
        Remark(
            "missing",
            "; ".join(
                f"{group}: {'all' if len(who) == n_ready else ', '.join(who)}"
                for group, who in told.items()
            )
            + f" — {reason}",
        )
        for reason, told in reasons.items()
    ]


def _without_values(shown: Shown) -> list[Remark]:
    """Where rows lack the values of some items."""
    lacking: dict[str, dict[str, None]] = {}
    for column in shown.columns:
        for row in shown.board.rows:
            entry = shown.entry(row, column)
            if entry and entry.score.estimate.n_missing:
                who = lacking.setdefault(column.group.name, {})
                who[label(row, shown.board)] = None
    told = "; ".join(f"{group}: {', '.join(who)}" for group, who in lacking.items())
    return [Remark("missing", f"some items have no value — {told}")] if told else []


def _limited(shown: Shown) -> list[Remark]:
    """Columns that are not the whole standard task, and those with few items."""
    found = []
    limited: dict[str, list[str]] = {}
    for group in {column.group.name: column.group for column in shown.columns}.values():
        if group.conditions:
            limited.setdefault(group.conditions, []).append(
                " ".join(part for part in (group.task, against(group)) if part)
            )
    for conditions, tasks in limited.items():
        found.append(
            Remark("limited", f"not the whole standard task ({conditions}): {', '.join(tasks)}")
        )
    few = {
        column.group.name: None
        for column in shown.columns
        for row in shown.board.rows
        if (entry := shown.entry(row, column)) and 0 < entry.score.estimate.n < FEW
    }
    if few:
        said = f"intervals over fewer than {FEW} items tend to be too narrow: {', '.join(few)}"
        found.append(Remark("few items", said))
    if any(
        entry.score.metric.startswith("lc_win_rate") and entry.score.estimate.method == "none"
        for entry in shown.board.entries.values()
    ):
        said = (
            f"a length-controlled win rate has an interval from {FEWEST} wins and {FEWEST} losses "
            "on; without one it may be far off"
        )
        found.append(Remark("few items", said))
    return found
