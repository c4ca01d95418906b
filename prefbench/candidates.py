"""The rewards of several candidates of one prompt, from a judge who is shown two at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prefbench.judges.judge import Ask, Turn, Unheard
from prefbench.judges.opening import PlannedJudge
from prefbench.measures.comparison import Heard, canonical, scores_of

ALIKE = "there are no two different candidates"


@dataclass(frozen=True)
class Candidates:
    """One prompt and the texts that are to be rated."""

    conversation: tuple[Turn, ...]
    texts: tuple[str, ...]

    @property
    def different(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.texts))


def rewards_of(
    several: Sequence[Candidates],
    judge: PlannedJudge,
    hear: Callable[[Sequence[Ask]], Mapping[Ask, Heard]],
) -> list[list[float] | str]:
    """The reward of each candidate of each prompt, or why a prompt has none.

    A reward model's scores are read from its verdicts: each candidate is shown beside the first.
    Of a judge who gives preferences alone, a candidate's reward is the share of the others that it
    wins against, over all pairs and both orders (one, where the order is nothing to the judge):
    Copeland's score with ties as halves. It has no unit, and ranks within the prompt only. Equal
    texts are one candidate to a reward model, and halves to the others; nobody is asked about them.

    A prompt that lacks a verdict has no rewards: one candidate less would be another ranking.

    Args:
        several: the prompts.
        judge: who is asked, as it is planned.
        hear: asks it, as `Court.sitting` gives it; called once with all there is to ask.
    """
    asks = {ask: None for one in several for ask in _asks(one, judge)}
    heard = hear(list(asks))
    rewards = _scores if judge.recipe.kind == "reward" else _wins
    return [rewards(one, judge, heard) if len(one.different) > 1 else ALIKE for one in several]


def _asks(one: Candidates, judge: PlannedJudge) -> list[Ask]:
    if judge.recipe.kind == "reward":
        first, *others = one.different
        pairs = [(first, other) for other in others]
    else:
        pairs = list(itertools.combinations(one.different, 2))
    asks = [Ask(one.conversation, *pair) for pair in pairs]
    # In the order in which comparisons ask, so that their verdicts are found.
    if judge.symmetric:
        return [canonical(ask) for ask in asks]
    return [turned for ask in asks for turned in (ask, ask.turned)]


def _scores(one: Candidates, judge: PlannedJudge, heard: Mapping[Ask, Heard]) -> list[float] | str:
    known: dict[str, float] = {}
    for ask in _asks(one, judge):
        verdict = heard[ask]
        if isinstance(verdict, Unheard):
            return verdict.reason
        scores = scores_of(verdict)
        if scores is None:
            return verdict.reason or f"{judge.name} gave no score"
        # The first candidate has a score of every ask: they are the same but for rounding.
        for text, score in zip((ask.first, ask.second), scores, strict=True):
            known.setdefault(text, score)
    return [known[text] for text in one.texts]


def _wins(one: Candidates, judge: PlannedJudge, heard: Mapping[Ask, Heard]) -> list[float] | str:
    wins: dict[tuple[str, str], list[float]] = {}
    for ask in _asks(one, judge):
        verdict = heard[ask]
        if isinstance(verdict, Unheard):
            return verdict.reason
        if verdict.preference is None:
            return f"unreadable verdict: {verdict.reason}"
        wins.setdefault((ask.first, ask.second), []).append(verdict.preference)
        wins.setdefault((ask.second, ask.first), []).append(1 - verdict.preference)
    return [
        math.fsum(
            math.fsum(found) / len(found) if (found := wins.get((text, other))) else 0.5
            for j, other in enumerate(one.texts)
            if j != i
        )
        / (len(one.texts) - 1)
        for i, text in enumerate(one.texts)
    ]
