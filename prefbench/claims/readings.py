"""A plain reading of each checkpoint: one paragraph from its numbers.

What a sentence says hangs on the interval and never on the value: where the interval holds the
value that favours neither side, nothing is said but that. Intervals stand alone, uncorrected: of
many sentences about nothing, some say something.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from prefbench.claims import numbers as n
from prefbench.claims.drawing import Drawn, Wanted, draw
from prefbench.claims.numbers import Number
from prefbench.claims.rows import Rows, title_of
from prefbench.claims.wording import told
from prefbench.leaderboard import Board, Gathered
from prefbench.metrics import Unit
from prefbench.records import Checkpoint
from prefbench.stats.estimates import Estimate

_OWN = (
    n.DISPLACED_LOW, n.DELTA_LOW, n.DISPLACED, n.DELTA_CHOSEN, n.BOTH_DOWN, n.ACCURACY,
    n.RANKED_RIGHT, n.WIN_RATE, n.COSINE, n.agrees("chosen"), n.agrees("rejected"), n.KENDALL, n.KL,
)  # fmt: skip
_CHANGES = (n.PERPLEXITY, n.AGILITY, n.REPETITION)
_RIGHT = ("exact_match", "acc_norm", "acc")
"""Of right answers, the first of these that a task shows."""


def readings(gathered: Gathered, board: Board) -> dict[str, str]:
    """A paragraph for each row of a board, by its name."""
    return read(gathered, baseline=board.baseline, confidence=board.confidence)


def read(
    gathered: Gathered,
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
) -> dict[str, str]:
    """A paragraph for each row, by its name, in the table's order.

    Args:
        gathered: what was measured.
        baseline: what rows are compared with whose own reference was not measured.
        confidence: of the intervals.
        n_resamples: bootstrap resamples.

    Raises:
        InputError: the baseline is not among the checkpoints.
    """
    rows = Rows(gathered, baseline, all_steps=True)
    others = {row.name: rows.other(row, "reference")[0] for row in rows.rows}
    right = _right(gathered)

    @cache
    def once(row: str, number: Number) -> set[str]:
        """Tasks that have a number; of several with the same pairs, one."""
        return {one.group for one in rows.tasks_with(row, [number])}

    wanted = []
    for row in rows.rows:
        for group in rows.groups:
            one = rows.cells.get((row.name, group))
            if one is None or one.sure is not None:
                continue
            wanted += [Wanted(group, ((row.name, m),)) for m in _OWN if group in once(row.name, m)]
            other = others[row.name]
            against = rows.cells.get((other, group)) if other else None
            if other is None or against is None or against.sure is not None:
                continue
            changes = (*_CHANGES, *([right[group]] if group in right else []))
            wanted += [
                Wanted(group, ((row.name, m), (other, m)))
                for m in changes
                if group in once(row.name, m) and m.is_in(against)
            ]
    drawn = draw(wanted, rows.cells, rows.groups, n_resamples=n_resamples)
    return {
        row.name: _paragraph(_Read(row, others[row.name], rows, drawn, confidence))
        for row in rows.rows
    }


def _right(gathered: Gathered) -> dict[str, Number]:
    """By task, the share of right answers that it shows."""
    found = {}
    for group in gathered.groups:
        for kind in _RIGHT:
            names = [name for name in group.shown if name.partition(",")[0] == kind]
            if names:
                found[group.name] = n.right_answers(names[0])
                break
    return found


class _Read(NamedTuple):
    """One row and all that was drawn of it."""

    row: Checkpoint
    other: str | None
    """What it is compared with."""
    rows: Rows
    drawn: Mapping[Wanted, Drawn | str]
    confidence: float

    def values(self, number: Number) -> dict[str, Estimate]:
        """A number by task."""
        return {
            one.group: drawn.own(0, self.confidence)
            for one, drawn in self.drawn.items()
            if [(row, m.name) for row, m in one.members] == [(self.row.name, number.name)]
            and isinstance(drawn, Drawn)
        }

    def changes(self, name: str) -> dict[str, Estimate]:
        """A number of that name minus that of the row that it is compared with, by task."""
        return {
            one.group: drawn.gap(self.confidence)
            for one, drawn in self.drawn.items()
            if len(one.members) == 2
            and (one.members[0][0], one.members[0][1].name) == (self.row.name, name)
            and isinstance(drawn, Drawn)
        }

    def title(self, name: str) -> str:
        return title_of(name, self.rows.rows)


def _paragraph(one: _Read) -> str:
    source = one.rows.source(one.row)
    opening = one.title(one.row.name)
    if source is not None:
        opening += f", tuned from {one.title(source.name)}"
    said = [
        *_displacement(one),
        *_rewards(one),
        *_against_the_other(one),
        *_win_rate(one),
        *_gradients(one),
        *_candidates(one),
    ]
    if not said and one.row.name == one.rows.baseline:
        return f"{opening} is what others are compared with."
    if not said:
        return f"{opening}: nothing was measured that can be read here."
    return f"{opening}. {' '.join(said)}"


# --- subjects


def _displacement(one: _Read) -> Iterator[str]:
    low, both = one.values(n.DISPLACED_LOW), one.values(n.BOTH_DOWN)
    means = {**one.values(n.DELTA_CHOSEN), **one.values(n.DELTA_LOW)}
    others = {task: share for task, share in one.values(n.DISPLACED).items() if task not in low}
    at_length = low if low or len(others) > 1 else others
    for task, share in at_length.items():
        pairs = "low-edit-distance pairs" if task in low else "pairs"
        number = told(share, "percent", neutral=0.5)
        side, mean = _side(share, 0.5), means.get(task)
        drift = _side(mean) if mean else None
        if side == "above":
            said = f"On {task} the chosen log-prob fell on {number} of the {pairs}"
            said += "" if drift == "above" else ": likelihood displacement"
        elif side == "below":
            said = f"On {task} the chosen log-prob fell on {number} of the {pairs}, less than half"
        else:
            said = (
                f"On {task} the chosen log-prob fell on {number} of the {pairs}: whether on most "
                "of them cannot be told"
            )
        if mean:
            said += f"; its mean change, {told(mean, 'nats', neutral=0.0, signed=True)} nats, "
            said += {"above": "is a rise", "below": "is a fall", None: "may be none"}[drift]
        if task in both and side == "above":
            said += f". Both answers fell on {told(both[task], 'percent')} of all pairs"
        yield f"{said}."
    if others and others is not at_length:
        yield from _summed_up(
            others,
            0.5,
            "percent",
            "The chosen log-prob fell",
            {
                "above": "on most pairs of",
                "below": "on less than half of the pairs of",
                None: "on perhaps half of the pairs of",
            },
            brief=True,
        )


def _rewards(one: _Read) -> Iterator[str]:
    for number, who in ((n.ACCURACY, "implicit reward"), (n.RANKED_RIGHT, "own log-probs")):
        yield from _summed_up(
            one.values(number),
            0.5,
            "percent",
            f"By its {who} it ranks",
            {
                "above": "more than half of the pairs right on",
                "below": "fewer than half right on",
                None: "perhaps half right on",
            },
            brief=True,
        )


def _against_the_other(one: _Read) -> Iterator[str]:
    if one.other is None:
        return
    moved = {
        "above": "is higher on",
        "below": "is lower on",
        None: "may be the same on",
        "same": "shows no difference on",
    }
    perplexity, agility = one.changes(n.PERPLEXITY.name), one.changes(n.AGILITY.name)
    right = {
        task: gap
        for name in dict.fromkeys(m.name for m in _right(one.rows.gathered).values())
        for task, gap in one.changes(name).items()
    }
    subjects: Sequence[tuple[str, dict[str, Estimate], Unit]] = (
        ("perplexity", perplexity, "perplexity"),
        ("agility", agility, "nats"),
        ("the share of right answers", right, "percent"),
        ("the repetition of its texts", _known(one.changes(n.REPETITION.name)), "percent"),
    )
    opening = f"Against {one.title(one.other)}, "
    for what, changes, unit in subjects:
        if changes:
            said = f"{opening}{what}" if opening else what[0].upper() + what[1:]
            brief = what.startswith("the repetition")  # often at many temperatures
            yield from _summed_up(changes, 0.0, unit, said, moved, signed=True, brief=brief)
            opening = ""
    worse = {task for task, gap in perplexity.items() if _side(gap) == "above"}
    gained = {task for task, gap in agility.items() if _side(gap) == "above"}
    if both := [task for task in perplexity if task in worse & gained]:
        yield f"On {_list(both)}, higher agility comes with worse perplexity."


def _win_rate(one: _Read) -> Iterator[str]:
    found = one.values(n.WIN_RATE)
    own = {
        task: value
        for task, value in found.items()
        if not (value.low == value.high == 0.5)  # against itself
    }
    yield from _summed_up(
        own,
        0.5,
        "percent",
        f"{_judged(own)}it",
        {
            "above": "wins more often than it loses on",
            "below": "loses more often than it wins on",
            None: "may win as often as it loses on",
        },
        brief=True,
    )


def _gradients(one: _Read) -> Iterator[str]:
    yield from _summed_up(
        one.values(n.COSINE),
        0.0,
        "number",
        "By mean cosine, gradients of its two answers",
        {
            "above": "point the same way on",
            "below": "point opposite ways on",
            None: "may be unrelated on",
        },
        brief=True,
    )
    moved = [one.values(n.agrees(text)) for text in ("chosen", "rejected")]
    every = [value for some in moved for value in some.values()]
    if all(moved) and all(_side(value, 0.5) == "above" for value in every):
        least = told(min(every, key=lambda value: value.value), "percent", neutral=0.5)
        tasks = _list(_tasks(list(moved[0])))
        yield (
            "A small step moves both answers as predicted on more than half of the pairs of "
            f"{tasks} (at least {least})."
        )
        return
    for text in ("chosen", "rejected"):
        yield from _summed_up(
            one.values(n.agrees(text)),
            0.5,
            "percent",
            f"A small step moves the {text} answer as predicted",
            {
                "above": "more often than not on",
                "below": "less often than not on",
                None: "perhaps as often as not on",
            },
            brief=True,
        )


def _candidates(one: _Read) -> Iterator[str]:
    yield from _summed_up(
        one.values(n.KENDALL),
        0.0,
        "number",
        "By mean Kendall τ, its log-probs rank candidates",
        {
            "above": "as their rewards do on",
            "below": "against their rewards on",
            None: "perhaps without regard to their rewards on",
        },
    )


# --- words


def _side(estimate: Estimate, neutral: float = 0.0) -> str | None:
    """On which side of a neutral value the whole interval lies."""
    if estimate.low > neutral:
        return "above"
    return "below" if estimate.high < neutral else None


def _summed_up(
    found: Mapping[str, Estimate],
    neutral: float,
    unit: Unit,
    what: str,
    words: Mapping[str | None, str],
    *,
    signed: bool = False,
    brief: bool = False,
) -> Iterator[str]:
    """One sentence about a number on several tasks, those alike together.

    `brief` tells of those alike the least and the largest value alone.
    """
    parts = []
    what = what[0].upper() + what[1:]
    for side in ("above", "below", None, "same"):
        alike = {
            task: value
            for task, value in found.items()
            if ("same" if _is_same(value, neutral, words) else _side(value, neutral)) == side
        }
        said = {
            task: told(value, unit, neutral=neutral, signed=signed) for task, value in alike.items()
        }
        if brief and len(said) > 1:
            ends = sorted(alike, key=lambda task: alike[task].value)
            numbers = f"from {said[ends[0]]} to {said[ends[-1]]}"
            parts.append(f"{words[side]} {_list(_tasks(list(said)))} ({numbers})")
        elif said:
            tasks = [f"{_tasks([task])[0]} ({number})" for task, number in said.items()]
            parts.append(f"{words[side]} {_list(tasks)}")
    if parts:
        yield f"{what} {'; '.join(parts)}."


def _is_same(value: Estimate, neutral: float, words: Mapping[str | None, str]) -> bool:
    """Of a difference: whether every resample shows none, which leaves nothing to doubt."""
    return "same" in words and value.low == value.high == neutral


def _known(changes: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Those whose direction is known."""
    return {task: gap for task, gap in changes.items() if _side(gap)}


def _judged(found: Mapping[str, Estimate]) -> str:
    """Against whom and by whom, where it is the same on all tasks."""
    told_of = {task.partition(AGAINST)[2] for task in found}
    (whom,) = told_of if len(told_of) == 1 else ("",)
    return f"against {whom}, " if whom else ""


def _tasks(names: Sequence[str]) -> list[str]:
    """Names of tasks; the temperatures of one sweep together, and judges left out."""
    found: dict[str, list[str]] = {}
    for name in names:
        task = name.partition(AGAINST)[0]
        stem, _, temperature = task.rpartition("_t")
        is_swept = bool(stem) and temperature.replace(".", "", 1).isdigit()
        found.setdefault(stem if is_swept else task, []).append(temperature if is_swept else "")
    return [
        f"{task} at temperature {_list(several)}" if several[0] else task
        for task, several in found.items()
    ]


AGAINST = ", against "
"""Between a judged task's name and its opponent and judge."""


def _list(parts: Sequence[str]) -> str:
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"
