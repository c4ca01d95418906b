"""Judgment: what one judge said of two answers; and what many judgments say of a checkpoint."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array, Refit, Resampling
from prefbench.stats.estimates import Estimate, estimate
from prefbench.stats.winrate import has_both, length_controlled

Orders: TypeAlias = Literal["mean", "both"]

NO_ANSWERS = "no answers in the file: no length control"


@dataclass(frozen=True)
class Judgment:
    """One reply of one judge about a checkpoint's answer and an opponent's.

    Attributes:
        prompt: id of the prompt; all that was judged on one prompt is resampled together.
        checkpoint: whose answer the preference is for.
        opponent: the other.
        preference: how far the checkpoint's answer is preferred: 1 yes, 0 no, 0.5 a tie.
        reason: why there is no preference; "" where there is one.
        turn: of a conversation, from 1.
        copy: tells comparisons apart that are equal in all of this, from 0.
        instruction: the prompt's text, where the file has it.
        answer: the checkpoint's text, where it is known.
        opponent_answer: the opponent's.
        shown_first: whether the judge saw the checkpoint's answer first; None where not recorded.
        strong: the judge called one answer better by far.
        judge: its name.
        judge_prompt: the name of what it was asked.
        category: of the prompt, or the data set it is from.
        raw: the reply as the file has it.
    """

    prompt: str
    checkpoint: str
    opponent: str
    preference: float | None
    reason: str = ""
    turn: int = 1
    copy: int = 0
    instruction: str | None = None
    answer: str | None = None
    opponent_answer: str | None = None
    shown_first: bool | None = None
    strong: bool = False
    judge: str = ""
    judge_prompt: str = ""
    category: str = ""
    raw: Any = None

    def __post_init__(self) -> None:
        if (self.preference is None) != bool(self.reason):
            raise InputError(f"{self.title}: give a preference, or the reason why there is none")
        if self.preference is not None and not 0 <= self.preference <= 1:
            raise InputError(f"{self.title}: a preference lies from 0 to 1, not {self.preference}")

    @property
    def title(self) -> str:
        """What was compared, for messages."""
        turn = f", turn {self.turn}" if self.turn > 1 else ""
        return f"prompt {self.prompt}{turn}, {self.checkpoint} against {self.opponent}"

    @property
    def comparison(self) -> tuple[str, str, str, str, int, int]:
        """What judgments in both orders have in common."""
        return self.checkpoint, self.opponent, self.judge, self.prompt, self.turn, self.copy


@dataclass(frozen=True)
class HeadToHead:
    """What one judge's comparisons of a checkpoint with an opponent come to.

    Attributes:
        win_rate: mean preference, with a bootstrap interval over prompts.
        length_controlled: the win rate if both answers were equally long; None without answers.
        consistency: share of the comparisons judged in both orders that have the same winner in
            both; None without such.
        first_preferred: over the same comparisons, how far the answer shown first is preferred;
            a half without position bias.
        standard_error: of the win rate, as AlpacaEval publishes it: comparisons count as
            independent of each other. NaN with fewer than two.
        n_wins, n_draws, n_losses: comparisons above, at and below a half.
        n_missing: comparisons without a preference in one of their orders.
        reasons: why, and how many.
        mean_length: of the checkpoint's answers, in characters; NaN without answers.
        mean_length_opponent: of the opponent's.
        notes: what must be known to read the numbers.
    """

    checkpoint: str
    opponent: str
    judge: str
    win_rate: Estimate
    length_controlled: Estimate | None
    consistency: Estimate | None
    first_preferred: Estimate | None
    standard_error: float
    n_wins: int
    n_draws: int
    n_losses: int
    n_missing: int
    reasons: tuple[tuple[str, int], ...]
    mean_length: float
    mean_length_opponent: float
    notes: tuple[str, ...]

    @property
    def n_judged(self) -> int:
        """Comparisons that count."""
        return self.n_wins + self.n_draws + self.n_losses

    @property
    def discrete_win_rate(self) -> float:
        """Share of wins, draws counting half; NaN without comparisons."""
        n = self.n_judged
        return (self.n_wins + self.n_draws / 2) / n if n else math.nan


class _Comparison(NamedTuple):
    """All orders of one comparison."""

    prompt: str
    judgments: tuple[Judgment, ...]

    @property
    def reason(self) -> str:
        return next((one.reason for one in self.judgments if one.reason), "")

    def column(self, orders: Orders, strong_weight: float) -> tuple[float, float]:
        """Weighted preference and weight, means over the orders; NaN where one is missing."""
        if self.reason:
            return math.nan, math.nan
        weights = [strong_weight if one.strong else 1.0 for one in self.judgments]
        wins = [one.preference or 0.0 for one in self.judgments]
        if orders == "both" and len({np.sign(win - 0.5) for win in wins}) > 1:
            wins = [0.5] * len(wins)
        sums = math.fsum(w * win for w, win in zip(weights, wins, strict=True))
        return sums / len(wins), math.fsum(weights) / len(wins)

    @property
    def lengths(self) -> tuple[float, float]:
        """Characters of both answers; NaN where unknown."""
        own = [len(one.answer) for one in self.judgments if one.answer is not None]
        others = [len(j.opponent_answer) for j in self.judgments if j.opponent_answer is not None]
        return own[0] if own else math.nan, others[0] if others else math.nan

    @property
    def in_both_orders(self) -> tuple[float, float] | None:
        """The preference where the checkpoint's answer came first, and where it came second."""
        by_order = {one.shown_first: one.preference for one in self.judgments}
        first, second = by_order.get(True), by_order.get(False)
        return None if first is None or second is None else (first, second)


def statistics_of(
    judgments: Iterable[Judgment],
    *,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
    orders: Orders = "mean",
    strong_weight: float = 1,
) -> list[HeadToHead]:
    """What the judgments say of each checkpoint against each opponent, by each judge.

    A comparison counts where all its orders have a preference; the others are missing.

    Args:
        judgments: of any checkpoints, opponents and judges.
        confidence: of the intervals.
        n_resamples: of the bootstrap over prompts.
        seed: of its draws.
        orders: what a comparison in two orders counts: "mean", their mean; "both", a tie unless
            both have the same winner, as MT-Bench counts.
        strong_weight: how often a judgment counts in the win rate and its standard error that calls
            an answer better by far; Arena-Hard takes 3. All else counts it once.

    Raises:
        InputError: there is no judgment, or two of one comparison in the same order.
    """
    if orders not in ("mean", "both"):
        raise InputError(f"orders must be mean or both, not {orders!r}")
    if not (math.isfinite(strong_weight) and strong_weight > 0):
        raise InputError(f"strong_weight must be above 0, not {strong_weight}")
    groups: dict[tuple[str, str, str], list[_Comparison]] = {}
    for comparison in _comparisons(judgments):
        one = comparison.judgments[0]
        groups.setdefault((one.checkpoint, one.opponent, one.judge), []).append(comparison)
    if not groups:
        raise InputError("there are no judgments")
    return [
        _head_to_head(
            *names,
            comparisons,
            np.array([one.column(orders, 1) for one in comparisons])[:, 0],
            np.array([one.column(orders, strong_weight) for one in comparisons]),
            # Whole numbers: the draws do not depend on the file's order, and any text is a name.
            Resampling(
                _codes([one.prompt for one in comparisons]), n_resamples=n_resamples, seed=seed
            ),
            confidence,
        )
        for names, comparisons in groups.items()
    ]


def prompt_id(text: str) -> str:
    """An id for a prompt that has none: from its text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def in_orders(judgments: Iterable[Judgment]) -> list[tuple[Judgment, ...]]:
    """Judgments of the same comparison together, in the order in which comparisons first occur."""
    return [comparison.judgments for comparison in _comparisons(judgments)]


def _comparisons(judgments: Iterable[Judgment]) -> list[_Comparison]:
    found: dict[tuple[str, str, str, str, int, int], dict[bool | None, Judgment]] = {}
    for one in judgments:
        by_order = found.setdefault(one.comparison, {})
        if by_order and (one.shown_first is None or {one.shown_first, None} & set(by_order)):
            raise InputError(
                f"{one.title}: judged twice by {one.judge or 'the same judge'}, not in two orders; "
                "keep one of the judgments"
            )
        by_order[one.shown_first] = one
    return [_Comparison(key[3], tuple(by_order.values())) for key, by_order in found.items()]


def _codes(prompts: Sequence[str]) -> list[int]:
    at = {prompt: i for i, prompt in enumerate(sorted(set(prompts)))}
    return [at[prompt] for prompt in prompts]


def _head_to_head(
    checkpoint: str,
    opponent: str,
    judge: str,
    comparisons: Sequence[_Comparison],
    wins: Array,
    columns: Array,
    resampling: Resampling,
    confidence: float,
) -> HeadToHead:
    """Of preferences (n_comparisons,), and the same weighted, with their weights (…, 2)."""
    lengths = np.array([one.lengths for one in comparisons], dtype=np.float64)
    orders = [one.in_both_orders or (np.nan, np.nan) for one in comparisons]
    both = np.array(orders, dtype=np.float64)
    # A comparison that is missing in one order is missing here too.
    both[np.isnan(wins)] = np.nan
    agree = np.where(np.isnan(both[:, 0]), np.nan, np.equal(*np.sign(both.T - 0.5)))
    first = (both[:, 0] + 1 - both[:, 1]) / 2
    reasons = Counter(one.reason for one in comparisons if one.reason)

    def share(values: Array) -> Estimate | None:
        if np.isnan(values).all():
            return None
        table = np.stack([values, np.ones_like(values)], axis=1)
        return estimate(
            table, _ratio, resampling=resampling, confidence=confidence, proportion=True
        )

    rate = estimate(columns, _ratio, resampling=resampling, confidence=confidence, proportion=True)
    controlled = None
    if not np.isnan(lengths).any(axis=1).all():
        controlled = estimate(
            np.column_stack([wins, lengths]),
            Refit(length_controlled, has_both),
            resampling=resampling,
            confidence=confidence,
        )
    return HeadToHead(
        checkpoint=checkpoint,
        opponent=opponent,
        judge=judge,
        win_rate=rate,
        length_controlled=controlled,
        consistency=share(agree),
        first_preferred=share(first),
        standard_error=_standard_error(columns[~np.isnan(wins)]),
        n_wins=int(np.sum(wins > 0.5)),
        n_draws=int(np.sum(wins == 0.5)),
        n_losses=int(np.sum(wins < 0.5)),
        n_missing=int(np.isnan(wins).sum()),
        reasons=tuple(reasons.most_common()),
        mean_length=_mean(lengths[:, 0]),
        mean_length_opponent=_mean(lengths[:, 1]),
        notes=(
            *_notes(comparisons, lengths[~np.isnan(wins)]),
            *_extreme(rate, controlled, lengths),
        ),
    )


def _ratio(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / sums[..., 1])


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _standard_error(columns: Array) -> float:
    """Of Σwx/Σw; without weights the sample's deviation over √n."""
    n = len(columns)
    if n < 2:
        return math.nan
    wins, weights = columns.T
    rest = wins - wins.sum() / weights.sum() * weights
    return float(math.sqrt(n / (n - 1) * np.sum(rest**2)) / weights.sum())


def _notes(comparisons: Sequence[_Comparison], lengths: Array) -> tuple[str, ...]:
    """What the numbers do not say themselves; lengths are those of judged comparisons."""
    judged = [one.judgments for one in comparisons if not one.reason]
    if not judged:
        return ()
    notes = []
    single = [orders[0].shown_first for orders in judged if len(orders) == 1]
    unknown = sum(order is None for order in single)
    if unknown:
        notes.append(
            f"which answer was shown first is not recorded for {_of(unknown, len(judged))}: "
            "position bias cannot be told"
        )
    if len(single) > unknown:
        first = sum(order is True for order in single)
        notes.append(
            f"one order only for {_of(len(single) - unknown, len(judged))} "
            f"({first} with the checkpoint first): position bias is inside these numbers"
        )
    known = int((~np.isnan(lengths).any(axis=1)).sum())
    if not known:
        notes.append(NO_ANSWERS)
    elif known < len(lengths):
        notes.append(f"answers are known, and lengths controlled for, in {_of(known, len(judged))}")
    return tuple(notes)


def _of(n: int, total: int) -> str:
    return "all comparisons" if n == total else f"{n} of {total} comparisons"


def _extreme(rate: Estimate, controlled: Estimate | None, lengths: Array) -> tuple[str, ...]:
    """Where AlpacaEval warns: control moves the rate by 10 points and a quarter of its room."""
    if controlled is None or not controlled.n:
        return ()
    moved = controlled.value - rate.value
    room = 1 - rate.value if moved > 0 else rate.value
    if abs(moved) <= max(0.1, room / 4):
        return ()
    known = lengths[~np.isnan(lengths).any(axis=1)]
    longer = np.mean(known[:, 0] > known[:, 1])
    return (
        "length control moves the win rate far, beyond what the data may bear: the checkpoint's "
        f"answer is the longer one in {longer:.0%} of the pairs",
    )
