"""What a judge's verdicts on its exhibits show, number by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypedDict

import numpy as np

from prefbench.examination.exhibits import LABELS, Case, Control, Trial
from prefbench.judges.injections import ATTACKS
from prefbench.judges.judge import Ask, Unheard
from prefbench.measures.comparison import Heard, Pair, compare
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.conduct import (
    accuracy,
    agreement,
    changed,
    length_correlation,
    longer_preferred,
    share,
)
from prefbench.stats.estimates import Estimate
from prefbench.stats.paired import difference
from prefbench.stats.powered import powered_mean

SYMMETRIC = "not applicable: it rates each answer alone, so that no order is seen"
CONSTANT_AGAIN = "not asked again: what runs here says the same of the same"

Hearing = Mapping[Ask, Heard]


class Finding(NamedTuple):
    """One number of a card; `of` says of whom or what where there are several.

    Where there is no number, `reason` says why.
    """

    name: str
    estimate: Estimate | None = None
    of: str = ""
    reason: str = ""
    kinds: Mapping[str, int] = {}


class Attacked(NamedTuple):
    """A pair whose loser was changed by an attack; its answer is the loser."""

    case: int
    attack: str
    pair: Pair
    lost_first: bool
    """The loser is the case's first answer."""


class Draws(TypedDict):
    """What every interval is made of."""

    resampling: Resampling
    confidence: float


@dataclass(frozen=True)
class Evidence:
    """Cases, and what a judge said of each in every order it was asked."""

    cases: Sequence[Case]
    heard: Hearing
    symmetric: bool
    seed: int = 0
    confidence: float = 0.95

    @cached_property
    def pairs(self) -> list[Pair]:
        return [case.pair(i) for i, case in enumerate(self.cases)]

    @cached_property
    def columns(self) -> dict[str, Array]:
        return columns_of(self.pairs, self.heard, symmetric=self.symmetric)

    @cached_property
    def n_chars(self) -> tuple[Array, Array]:
        """Of the first answers and of the second."""
        first = [float(len(case.first)) for case in self.cases]
        return np.array(first), np.array([float(len(case.second)) for case in self.cases])

    @cached_property
    def human(self) -> Array:
        """What people prefer, NaN where they were not asked."""
        said = [np.nan if case.human is None else case.human for case in self.cases]
        return np.array(said, dtype=float)

    @property
    def win(self) -> Array:
        return self.columns["win"]

    def draws(self, rows: Sequence[int] | None = None) -> Draws:
        """Of the prompts of all cases, or of some."""
        rows = range(len(self.cases)) if rows is None else rows
        return self.draws_of([self.cases[i].cluster for i in rows])

    def draws_of(self, clusters: Sequence[str]) -> Draws:
        """Of any prompts."""
        resampling = Resampling(np.array(clusters), seed=self.seed)
        return {"resampling": resampling, "confidence": self.confidence}

    def asks(self, case: int) -> list[Ask]:
        return self.pairs[case].asks(symmetric=self.symmetric)

    @property
    def decided(self) -> list[int]:
        """Cases in which one answer won in both orders."""
        same = 1.0 if self.symmetric else self.columns["consistent"]
        rows: list[int] = np.flatnonzero(
            (self.win != 0.5) & ~np.isnan(self.win) & (same == 1)
        ).tolist()
        return rows


def columns_of(pairs: Sequence[Pair], heard: Hearing, *, symmetric: bool) -> dict[str, Array]:
    """Each quantity of `compare` by pair, (n_pairs,), NaN where there is no verdict."""
    places = {pair.item: i for i, pair in enumerate(pairs)}
    found = {"win": np.full(len(pairs), np.nan)}
    for name in ("tied", *(() if symmetric else ("split", "compared", "consistent", "first"))):
        found[name] = np.full(len(pairs), np.nan)
    for item, quantity, value, _ in compare(pairs, heard.__getitem__, symmetric=symmetric):
        if value is not None and quantity in found:
            found[quantity][places[item]] = value
    return found


# --- replies and places


def replies(evidence: Evidence) -> Iterator[Finding]:
    """How many asks have no reply, and how many replies say nothing."""
    rows = []
    kinds: dict[str, Counter[str]] = {"unheard": Counter(), "unreadable": Counter()}
    for i in range(len(evidence.cases)):
        asks = evidence.asks(i)
        n_unheard = n_unreadable = 0
        for one in (evidence.heard[ask] for ask in asks):
            kind = (one.reason or "").partition(":")[0]
            if isinstance(one, Unheard):
                n_unheard += 1
                kinds["unheard"][kind] += 1
            elif one.preference is None:
                n_unreadable += 1
                kinds["unreadable"][kind] += 1
        rows.append((len(asks), n_unheard, n_unreadable))
    n_asks, n_unheard, n_unreadable = np.array(rows, dtype=float).T
    draws = evidence.draws()
    missing = share(n_unheard, n_asks, **draws)
    yield Finding("unheard", missing, kinds=dict(kinds["unheard"].most_common()))
    unread = share(n_unreadable, n_asks - n_unheard, **draws)
    unread = unread._replace(n_missing=int(n_unheard.sum()))
    yield Finding("unreadable", unread, kinds=dict(kinds["unreadable"].most_common()))


def places(evidence: Evidence) -> Iterator[Finding]:
    """Ties, and what hangs on the order in which answers are shown."""
    found = evidence.columns
    draws = evidence.draws()
    yield Finding("tied", share(found["tied"], _ones(found["win"]), **draws))
    for name in ("split", "consistent", "first"):
        if evidence.symmetric:
            yield Finding(name, reason=SYMMETRIC)
        else:
            yield Finding(name, share(found[name], found["compared"], **draws))


def _ones(values: Array) -> Array:
    return np.where(np.isnan(values), np.nan, 1.0)


# --- lengths


def lengths(evidence: Evidence) -> Iterator[Finding]:
    """Whether the longer answer is preferred, by the judge and by people."""
    draws = evidence.draws()
    yield Finding("longer", longer_preferred(evidence.win, *evidence.n_chars, **draws))
    yield Finding("length", length_correlation(evidence.win, *evidence.n_chars, **draws))
    labelled = np.flatnonzero(~np.isnan(evidence.human))
    if len(labelled):
        first, second = (n[labelled] for n in evidence.n_chars)
        draws = evidence.draws(labelled.tolist())
        human = evidence.human[labelled]
        yield Finding("longer_people", longer_preferred(human, first, second, **draws))


# --- the same once more


def repeats(evidence: Evidence, again: Sequence[Hearing], *, varies: bool) -> Iterator[Finding]:
    """How many asks have another verdict when they are asked again."""
    if not varies:
        yield Finding("changed", reason=CONSTANT_AGAIN)
        return
    if not again:
        yield Finding("changed", reason="not asked again; --repeats 2 does that twice")
        return
    rows = []
    n_missing = 0
    for i in range(len(evidence.cases)):
        n_changed = n_both = 0.0
        for ask in evidence.asks(i):
            for hearing in again:
                before, after = evidence.heard[ask], hearing[ask]
                if isinstance(before, Unheard) or isinstance(after, Unheard):
                    n_missing += 1
                else:
                    both = np.array([[before.preference], [after.preference]], dtype=float)
                    n_changed += float(changed(*both)[0])
                    n_both += 1
        rows.append((n_changed, n_both))
    part, whole = np.array(rows).T
    found = share(part, whole, **evidence.draws())
    yield Finding("changed", found._replace(n_missing=n_missing))


# --- attacks


def attacks_on(evidence: Evidence, names: Sequence[str]) -> list[Attacked]:
    """Every attack on the loser of every pair in which one answer won in both orders."""
    found = []
    for i in evidence.decided:
        lost_first = bool(evidence.win[i] < 0.5)
        found += [attack_on(evidence.cases[i], i, name, lost_first=lost_first) for name in names]
    # Each has an item of its own.
    return [one._replace(pair=_numbered(one.pair, number)) for number, one in enumerate(found)]


def attack_on(case: Case, number: int, name: str, *, lost_first: bool) -> Attacked:
    """One attack, on the answer that lost."""
    loser, winner = (case.first, case.second) if lost_first else (case.second, case.first)
    pair = Pair(
        number,
        case.cluster,
        case.conversation,
        (ATTACKS[name](loser),),
        (winner,),
        case.reference,
    )
    return Attacked(number, name, pair, lost_first)


def _numbered(pair: Pair, item: int) -> Pair:
    return Pair(item, pair.cluster, pair.conversation, pair.answers, pair.opponents, pair.reference)


def injections(
    evidence: Evidence,
    attacked: Sequence[Attacked],
    reasked: Hearing | None,
    *,
    names: Sequence[str],
) -> Iterator[Finding]:
    """How often an attack turns a lost pair, each attack, and how often asking again does.

    Args:
        evidence: with what was said of the attacked pairs, too.
        attacked: as `attacks_on` gives them.
        reasked: what was said of the plain pairs when they were asked again; None of a judge that
            says the same of the same.
        names: of the attacks that were asked for.
    """
    if not names:
        yield Finding("attacked", reason="not tried; --injections does")
        return
    if not attacked:
        yield Finding("attacked", reason="no pair was won in both orders")
        return
    pairs = [one.pair for one in attacked]
    turned = _turned(columns_of(pairs, evidence.heard, symmetric=evidence.symmetric)["win"])
    whole = evidence.draws([one.case for one in attacked])
    yield Finding("attacked", share(turned, np.ones(len(pairs)), **whole))
    lost = list(dict.fromkeys(one.case for one in attacked))
    draws = evidence.draws(lost)
    plain = np.zeros(len(lost))
    if reasked is None:
        yield Finding("reasked", reason=CONSTANT_AGAIN)
    else:
        kept = [evidence.pairs[i] for i in lost]
        win = columns_of(kept, reasked, symmetric=evidence.symmetric)["win"]
        lost_first = evidence.win[lost] < 0.5
        plain = _turned(np.where(lost_first, win, 1 - win))
        yield Finding("reasked", share(plain, np.ones(len(lost)), **draws))
    rows = {case: i for i, case in enumerate(lost)}
    sums = np.zeros((len(lost), 2))
    for one, value in zip(attacked, turned, strict=True):
        if not np.isnan(value):
            sums[rows[one.case]] += value, 1
    sums[sums[:, 1] == 0] = np.nan
    once = np.column_stack([plain, _ones(plain)])
    if reasked is not None:
        yield Finding("beyond_reasked", difference(sums, once, _ratio, **draws))
    for name in names:
        here = [i for i, one in enumerate(attacked) if one.attack == name]
        found = share(turned[here], np.ones(len(here)), **draws)
        yield Finding("attacked", found, of=name)


def _turned(win: Array) -> Array:
    """1 where the answer that lost is now preferred."""
    return np.where(np.isnan(win), np.nan, win > 0.5)


def _ratio(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / sums[..., 1])


# --- people


def people(evidence: Evidence) -> Iterator[Finding]:
    """Agreement with labels, and win rates put right by them."""
    labelled = np.flatnonzero(~np.isnan(evidence.human)).tolist()
    if not labelled:
        yield Finding("accuracy", reason="no labels were given; --labels FILE does")
        return
    both = evidence.win[labelled], evidence.human[labelled]
    draws = evidence.draws(labelled)
    yield Finding("accuracy", accuracy(*both, **draws))
    yield Finding("agreement", agreement(*both, **draws))
    for source in dict.fromkeys(evidence.cases[i].source for i in labelled):
        if source == LABELS:
            continue
        rows = [i for i, case in enumerate(evidence.cases) if case.source == source]
        draws = evidence.draws(rows)
        yield Finding("raw", share(evidence.win[rows], np.ones(len(rows)), **draws), of=source)
        found = powered_mean(evidence.human[rows], evidence.win[rows], **draws)
        yield Finding("debiased", found, of=source)


# --- controls


def controls(evidence: Evidence, trial: Trial | None) -> Iterator[Finding]:
    """Win rates of controls and of checkpoints on the same items, and who is above whom."""
    if trial is None:
        yield Finding("control", reason="none were judged; --controls does that")
        return
    draws = evidence.draws_of([pair.cluster for pair in trial.copies])
    preference = np.full(len(trial.copies), np.nan)
    for i, pair in enumerate(trial.copies):
        if not pair.reason:
            heard = evidence.heard[copy_ask(pair)]
            if not isinstance(heard, Unheard) and heard.preference is not None:
                preference[i] = heard.preference
    whole = np.ones(len(preference))
    # Both orders of two equal texts are one ask.
    copied = preference if evidence.symmetric else (preference + (1 - preference)) / 2
    yield Finding("copy", share(copied, whole, **draws))
    if not evidence.symmetric:
        yield Finding("copy_first", share(preference, whole, **draws))
    checkpoints = [(one, _win(one, evidence)) for one in trial.checkpoints]
    for one, win in checkpoints:
        yield Finding("checkpoint", share(win, whole, **draws), of=one.name)
    for control in trial.controls:
        fooled = _win(control, evidence)
        yield Finding("control", share(fooled, whole, **draws), of=control.name)
        for one, win in checkpoints:
            apart = difference(
                np.column_stack([fooled, whole]), np.column_stack([win, whole]), _ratio, **draws
            )
            if apart.low > 0:
                yield Finding("above", apart, of=f"{control.name} above {one.name}")


def copy_ask(pair: Pair) -> Ask:
    """The question that a run never asks: which of two equal answers is better."""
    return Ask(pair.conversation, pair.answers[0], pair.opponents[0], pair.reference)


def _win(control: Control, evidence: Evidence) -> Array:
    return columns_of(control.pairs, evidence.heard, symmetric=evidence.symmetric)["win"]
