"""What is asked of which rows and tasks to check a claim, and why some of it cannot be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import NamedTuple

import numpy as np

from prefbench.claims.claim import Alike, Between, Beyond, Change, Claim, Question, Zero
from prefbench.claims.drawing import Wanted
from prefbench.claims.numbers import DISTANCE, GRADIENTS, Number
from prefbench.claims.rows import Rows, title_of
from prefbench.leaderboard import Measured
from prefbench.records import METHODS, Checkpoint
from prefbench.stats.bootstrap import Array
from prefbench.stats.edits import BANDS

LOW, HIGH = BANDS["low_edit"], BANDS["mid_edit"]
"""Normalised edit distances below which pairs are low, and from which they are high."""
MANY = 6
"""Methods that a sentence names at most."""
EXACT = 1e-6
"""Of probabilities in float32, what counts as 0."""


class Plan(NamedTuple):
    """What a line will be made of, or why there is nothing."""

    claim: Claim
    row: str = ""
    task: str = ""
    asked: tuple[tuple[Wanted, ...], ...] = ()
    """What each question needs."""
    other: tuple[str, ...] = ()
    """What each question compares with."""
    shown: tuple[Wanted, ...] = ()
    why: str = ""
    about: str = ""

    @property
    def wanted(self) -> Iterator[Wanted]:
        for some in (*self.asked, self.shown):
            yield from some


def plans_of(claim: Claim, rows: Rows) -> list[Plan]:
    """The lines of a claim: of each row and task that it is about, or the one that says why not."""
    members = rows.of_methods(claim.methods)
    if not members:
        titles = ", ".join(METHODS.get(method, method) for method in claim.methods)
        known = 0 < len(claim.methods) <= MANY
        return [Plan(claim, why=f"no {titles} row was measured" if known else "no row to ask of")]
    found: list[Plan] = []
    for row in members:
        own = list(_for_row(claim, row, rows))
        if not own and claim.methods and not _is_about_iterations(claim):
            own = [Plan(claim, row.name, why=_nothing(claim))]
        found += own
    return found or [Plan(claim, why=_nothing(claim))]


def _for_row(claim: Claim, row: Checkpoint, rows: Rows) -> Iterator[Plan]:
    match claim.questions[0]:
        case Between() as question:
            return _between(claim, question, row.name, rows)
        case Alike() as question:
            return _alike(claim, question, row, rows)
        case Zero() as question:
            return _zero(claim, question, row.name, rows)
        case _:
            return _by_task(claim, row, rows)


def _is_about_iterations(claim: Claim) -> bool:
    return any(isinstance(one, Change) and one.to == "previous" for one in claim.questions)


def _nothing(claim: Claim) -> str:
    """Why a claim is about nothing that was measured."""
    if _is_about_iterations(claim):
        return "no row was tuned from a measured row of its own method"
    needs = dict.fromkeys(number.needs for number in _numbers(claim.questions))
    return f"no task with {', '.join(needs) or GRADIENTS} was measured, or not all that it takes"


def _numbers(questions: Iterable[Question]) -> Iterator[Number]:
    for one in questions:
        match one:
            case Beyond() | Change() | Between():
                yield one.number
            case Alike():
                yield one.predicted
                yield one.seen


def _by_task(claim: Claim, row: Checkpoint, rows: Rows) -> Iterator[Plan]:
    """Of a row, each task that has what all questions ask for."""
    others: list[str] = []
    for question in claim.questions:
        other, why = rows.other(row, question.to) if isinstance(question, Change) else ("", "")
        if other is None:
            if why:
                yield Plan(claim, row.name, why=why)
            return
        others.append(other)
    numbers = list(_numbers(claim.questions))
    for one in rows.tasks_with(row.name, numbers):
        lacking = [
            other
            for other, number in zip(others, numbers, strict=True)
            if other and not ((cell := rows.cells.get((other, one.group))) and number.is_in(cell))
        ]
        if lacking:
            why = f"{title_of(lacking[0], rows.rows)} was not measured on it"
            yield Plan(claim, row.name, one.group, why=why)
            continue
        asked = tuple(
            (Wanted(one.group, ((row.name, number), *(((other, number),) if other else ()))),)
            for other, number in zip(others, numbers, strict=True)
        )
        shown = tuple(
            Wanted(one.group, ((row.name, number),)) for number in claim.shown if number.is_in(one)
        )
        yield Plan(claim, row.name, one.group, asked, tuple(others), shown)


def _between(claim: Claim, question: Between, row: str, rows: Rows) -> Iterator[Plan]:
    """Each task of one kind beside each of the other."""
    kinds: dict[bool | None, list[Measured]] = {True: [], False: [], None: []}
    for one in rows.tasks_with(row, [question.number]):
        kinds[_kind(one, question)].append(one)
    for one, other in product(kinds[True], kinds[False]):
        asked = tuple(Wanted(each.group, ((row, question.number),)) for each in (one, other))
        yield Plan(claim, row, one.group, (asked,), (other.group,))
    if bool(kinds[True]) != bool(kinds[False]):
        yield Plan(claim, row, why=f"no task has {_KINDS[question.kinds][bool(kinds[True])]}")


_KINDS: Mapping[str, tuple[str, str]] = {
    "edit distance": (
        f"a mean edit distance below {LOW}",
        f"a mean edit distance of {HIGH} or more",
    ),
    "prompts": (
        "pairs whose answers have different prompts",
        "pairs whose answers have one prompt",
    ),
}
"""What is lacking where a task of the first kind is, or of the second."""


def _kind(one: Measured, question: Between) -> bool | None:
    """Whether a task is of the first kind; None where it is of neither."""
    if question.kinds == "edit distance":
        if not DISTANCE.is_in(one):
            return None
        mean = float(np.nanmean(one.quantities["edit_distance"]))
        return True if mean < LOW else False if mean >= HIGH else None
    name = "probability_difference_l2@1"
    return not _is_zero(one.quantities[name]) if name in one.quantities else None


def _is_zero(values: Array) -> bool:
    """Whether all that is known is 0, and something is known."""
    known = values[np.isfinite(values)]
    return bool(len(known)) and bool((np.abs(known) <= EXACT).all())


def _alike(claim: Claim, question: Alike, row: Checkpoint, rows: Rows) -> Iterator[Plan]:
    """What was seen on each task beside what was predicted of the same pairs."""
    source = rows.source(row)
    from_where = [source.name] if source else []
    for one in rows.tasks_with(row.name, [question.seen]):
        for name in (*from_where, row.name):
            same = [
                other
                for other in rows.tasks_with(name, [question.predicted])
                if _same_pairs(other, one)
            ]
            if same:
                asked = (
                    Wanted(same[0].group, ((name, question.predicted),)),
                    Wanted(one.group, ((row.name, question.seen),)),
                )
                yield Plan(claim, row.name, one.group, (asked,), (name,))
                break
        else:
            why = f"no task with {question.predicted.needs} has its pairs"
            yield Plan(claim, row.name, one.group, why=why)


def _same_pairs(some: Measured, all_: Measured) -> bool:
    """Whether all edit distances of some pairs occur among others, as often as there.

    Items of a sample may be numbered anew.
    """
    if "edit_distance" not in some.quantities or "edit_distance" not in all_.quantities:
        return False
    counts = []
    for one in (some, all_):
        distances = one.quantities["edit_distance"]
        values, n = np.unique(distances[np.isfinite(distances)].round(9), return_counts=True)
        counts.append(dict(zip(values.tolist(), n.tolist(), strict=True)))
    return bool(counts[0]) and all(n <= counts[1].get(value, 0) for value, n in counts[0].items())


def _zero(claim: Claim, question: Zero, row: str, rows: Rows) -> Iterator[Plan]:
    for group in rows.groups:
        one = rows.cells.get((row, group))
        names = (question.quantity, question.where, question.alike)
        known = one and all(name in one.quantities for name in names)
        if one and known and _is_zero(one.quantities[question.alike]):
            yield Plan(claim, row, group)
