"""What a claim is: a sentence, where it stands, and the questions that decide it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prefbench.claims.numbers import Number
from prefbench.stats.estimates import Estimate

Side: TypeAlias = Literal["above", "below"]
Verdict: TypeAlias = Literal["holds", "does not hold", "not shown", "cannot be checked"]
VERDICTS: Mapping[Verdict, str] = {
    "holds": "the numbers show it",
    "does not hold": "they show the contrary",
    "not shown": "they leave it open",
    "cannot be checked": "something was not measured",
}
"""What each means; in the order in which lines are told."""


@dataclass(frozen=True)
class Beyond:
    """Whether a number of one row on one task lies on one side of a value."""

    number: Number
    side: Side
    neutral: float = 0.0


@dataclass(frozen=True)
class Change:
    """Whether a row's number lies on one side of another row's, paired on the same items.

    `to` is `reference` (what the row was tuned from, else the baseline), `previous` (what it was
    tuned from, if that is of the same method), `baseline`, or a method that one row has.
    """

    number: Number
    side: Side
    to: str


@dataclass(frozen=True)
class Between:
    """Whether a row's number on tasks of one kind lies on one side of that on another kind.

    `kinds` says how tasks are told apart: by the pairs' mean edit distance (low against high), or
    by whether chosen and rejected answers have different prompts (against the same).
    """

    number: Number
    side: Side
    kinds: Literal["edit distance", "prompts"]


@dataclass(frozen=True)
class Alike:
    """Whether what is predicted of some pairs lies within a margin of what was seen on them."""

    predicted: Number
    seen: Number
    within: float


@dataclass(frozen=True)
class Zero:
    """Whether a quantity is 0 on all items of a kind, as it must be whatever the model is."""

    quantity: str
    where: str
    """Indicator of these items."""
    alike: str
    """A quantity that is 0 on all items of a task that the statement is about."""


Question: TypeAlias = Beyond | Change | Between | Alike | Zero


@dataclass(frozen=True)
class Claim:
    """Something that a paper says of a method, or of all.

    Attributes:
        id: its name.
        sentence: what is claimed.
        source: which paper, and where.
        remark: what of it is ours, or could not be verified.
        methods: of the rows that it is about; empty: all rows.
        questions: it holds of a row and task if the answer to each is yes.
        shown: numbers told beside, which decide nothing.
    """

    id: str
    sentence: str
    source: str
    methods: tuple[str, ...]
    questions: tuple[Question, ...]
    shown: tuple[Number, ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        question: what was asked.
        estimate: what is held against `neutral`: a value, or a difference; with its p-value.
        neutral: the value that favours neither side.
        p: corrected for all findings of the family; NaN where there is no test.
        verdict: by `p` and the side.
        other: name of the row or task that it is compared with.
        values: of a difference, the two that it is between.
    """

    question: Question
    estimate: Estimate
    neutral: float
    p: float
    verdict: Verdict
    other: str = ""
    values: tuple[Estimate, ...] = ()

    @property
    def beyond(self) -> Side | None:
        """On which side of the neutral value the interval lies, uncorrected."""
        if self.estimate.low > self.neutral:
            return "above"
        return "below" if self.estimate.high < self.neutral else None


@dataclass(frozen=True)
class Line:
    """What came of a claim for one row on one task; `why` says what is missing."""

    claim: Claim
    row: str
    task: str
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    shown: tuple[tuple[Number, Estimate], ...] = ()
    why: str = ""
    about: str = ""
    """What a reader must know of the items, if anything."""
