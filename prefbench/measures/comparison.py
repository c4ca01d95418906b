"""From verdicts to one number per item: how far a checkpoint's answer is preferred."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prefbench.judges.judge import Ask, Turn, Unheard, Verdict
from prefbench.records import Record
from prefbench.stats.diversity import diversity

Heard = Verdict | Unheard


@dataclass(frozen=True)
class Pair:
    """An item's answers by a checkpoint and by its opponent, or why they cannot be compared.

    Sample k of the one is compared with sample k of the other; where the opponent has fewer (a
    reference is one text), it begins anew.
    """

    item: int
    cluster: str
    conversation: tuple[Turn, ...] = ()
    answers: tuple[str, ...] = ()
    opponents: tuple[str, ...] = ()
    reference: str | None = None
    reason: str | None = None

    @property
    def samples(self) -> list[tuple[str, str]]:
        """The texts that are compared, the checkpoint's first."""
        n = max(len(self.answers), len(self.opponents))
        ours, theirs = itertools.cycle(self.answers), itertools.cycle(self.opponents)
        return [(next(ours), next(theirs)) for _ in range(n)]

    def asks(self, *, symmetric: bool, equal: bool = False) -> list[Ask]:
        """What a judge must be asked: both orders of every sample, none where the two are equal.

        A judge to whom the order is nothing is asked once, in an order that the texts give, so
        that the opponent's own comparison with this checkpoint asks the same.

        Args:
            symmetric: the order is nothing to the judge.
            equal: ask about equal texts too: the preference is known, a reward model's score of
                the text is not.
        """
        if self.reason:
            return []
        asks = []
        for ours, theirs in self.samples:
            ask = Ask(self.conversation, ours, theirs, self.reference)
            if ours != theirs:
                asks += [canonical(ask)] if symmetric else [ask, ask.turned]
            elif equal:
                asks.append(ask)
        return asks


def canonical(ask: Ask) -> Ask:
    """The two answers in the order in which a judge is asked to whom the order is nothing."""
    return min(ask, ask.turned, key=lambda one: (one.first, one.second))


def scores_of(verdict: Verdict) -> tuple[float, float] | None:
    """A reward model's scores of the first text and of the second; None where it gave none."""
    first, second = (verdict.facts.get(f"score_{name}") for name in ("first", "second"))
    return None if first is None or second is None else (float(first), float(second))


@dataclass(frozen=True)
class _Sample:
    """One comparison of two texts, from the checkpoint's side."""

    win: float
    as_first: float = 0.5
    """How far it is preferred where it is shown first, and second."""
    as_second: float = 0.5
    identical: bool = False
    scores: tuple[float, float] | None = None
    """A reward model's, of the checkpoint's text and of the opponent's."""

    @property
    def tied(self) -> bool:
        return self.as_first == self.as_second == 0.5

    @property
    def split(self) -> bool:
        """The judge's preference changes sides with the order."""
        return (self.as_first - 0.5) * (self.as_second - 0.5) < 0

    @property
    def consistent(self) -> bool:
        return math.copysign(1, self.as_first - 0.5) == math.copysign(1, self.as_second - 0.5) and (
            (self.as_first == 0.5) == (self.as_second == 0.5)
        )


def compare(
    pairs: Sequence[Pair],
    heard: Callable[[Ask], Heard],
    *,
    symmetric: bool,
    equal: bool = False,
) -> Iterator[Record]:
    """Every quantity of every item that has a verdict, and the reason of every one that has none.

    `win` is the mean over an item's samples of the preference for the checkpoint's text, itself
    the mean of both orders: 1 where it wins in both, half where the orders disagree or the texts
    are equal. A sample counts only with both its verdicts, since one order alone carries the
    judge's liking of a place. The others, 0 to 1: `even` (worth exactly a half, however it came
    about), `tied` (a tie in both orders, or equal texts),
    `split` (each order prefers another), `identical`; of judges who see an order also `compared`
    (samples that were judged), `consistent` (of these, both orders say the same) and `first` (the
    preference for the text shown first). `n_chars` is the mean length of the texts, `distinct_1`,
    `distinct_2` and `seq_rep_4` say how the checkpoint's texts repeat themselves
    (`stats.diversity`), all over all its texts, judged or not.

    Of a reward model, `reward` and `reward_opponent` are the mean scores of the checkpoint's texts
    and of the opponent's, over the samples. An item has them only where all its samples that count
    have scores: without those of equal texts, the rest would be a choice by how alike the two are.

    What an item lacks is left out.

    Args:
        pairs: the items.
        heard: the verdict of an ask, or why there is none.
        symmetric: the judge was asked once a sample.
        equal: it was asked about equal texts too; its score of them counts, nothing else.
    """
    for pair in pairs:
        reason = pair.reason
        samples: list[_Sample] = []
        for ours, theirs in pair.samples if reason is None else []:
            ask = Ask(pair.conversation, ours, theirs, pair.reference)
            found = _sample(ask, heard, symmetric=symmetric, equal=equal)
            if isinstance(found, str):
                reason = reason or found
            else:
                samples.append(found)
        if not samples:
            yield Record(pair.item, "answer", None, reason or "there is no text to compare")
            continue
        for name, values in _quantities(pair, samples, symmetric=symmetric).items():
            yield Record(pair.item, name, math.fsum(values) / len(values))
        for name, value in diversity(pair.answers).items():
            yield Record(pair.item, name, value)


def _sample(
    ask: Ask, heard: Callable[[Ask], Heard], *, symmetric: bool, equal: bool
) -> _Sample | str:
    """How one sample was judged, or why it was not."""
    if ask.first == ask.second:
        alone = heard(ask) if equal else None
        scores = scores_of(alone) if isinstance(alone, Verdict) else None
        return _Sample(0.5, identical=True, scores=scores)
    if symmetric:
        shown = canonical(ask)
        verdict = heard(shown)
        preference = _preference(verdict)
        if isinstance(preference, str):
            return preference
        scores = scores_of(verdict) if isinstance(verdict, Verdict) else None
        if shown != ask:
            preference, scores = 1 - preference, scores and (scores[1], scores[0])
        return _Sample(preference, preference, preference, scores=scores)
    first, second = _preference(heard(ask)), _preference(heard(ask.turned))
    if isinstance(first, str):
        return first
    if isinstance(second, str):
        return second
    return _Sample((first + (1 - second)) / 2, first, 1 - second)


def _preference(heard: Heard) -> float | str:
    if isinstance(heard, Unheard):
        return heard.reason
    if heard.preference is None:
        return f"unreadable verdict: {heard.reason}"
    return heard.preference


def _quantities(
    pair: Pair, samples: Sequence[_Sample], *, symmetric: bool
) -> dict[str, list[float]]:
    """What is averaged over an item's samples."""
    found: dict[str, list[float]] = {
        "win": [one.win for one in samples],
        "tied": [float(one.tied) for one in samples],
        "even": [float(one.win == 0.5) for one in samples],
        "identical": [float(one.identical) for one in samples],
        "n_chars": [float(len(text)) for text in pair.answers],
        "n_chars_opponent": [float(len(text)) for text in pair.opponents],
    }
    if not symmetric:
        found["split"] = [float(one.split) for one in samples]
    judged = [not one.identical for one in samples]
    if not symmetric and any(judged):  # where nothing was asked, nothing is known of the judge
        found |= {
            "compared": [float(one) for one in judged],
            "consistent": [
                float(there and one.consistent) for there, one in zip(judged, samples, strict=True)
            ],
            "first": [
                there * (one.as_first + 1 - one.as_second) / 2
                for there, one in zip(judged, samples, strict=True)
            ],
        }
    scores = [one.scores for one in samples if one.scores is not None]
    if len(scores) == len(samples):
        found["reward"], found["reward_opponent"] = map(list, zip(*scores, strict=True))
    return found
