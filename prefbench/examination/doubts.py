"""What speaks against a judge, in words, from what its verdicts show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prefbench.examination.evidence import Finding
from prefbench.stats.estimates import Estimate

FEW = 30
"""Prompts below which a bootstrap interval is known to cover less than it says."""
MANY_UNREADABLE, MANY_SPLIT, MANY_CHANGED, MANY_ATTACKED = 0.05, 0.2, 0.1, 0.1
"""Shares from which on a card warns, or of attacks from which on it is loud."""


class Warned(NamedTuple):
    """Something that speaks against the judge; what is loud makes its win rates worthless."""

    text: str
    loud: bool = False


def warnings(
    findings: Sequence[Finding],
    *,
    n_prompts: int,
    shared: Mapping[str, Sequence[str]],
    opponent: str,
    n_unheard: int = 0,
) -> list[Warned]:
    """What a reader must know before any number, the worst first.

    Args:
        findings: all of them.
        n_prompts: that the cases are from.
        shared: as `kinship.shared` says.
        opponent: of the controls.
        n_unheard: asks of any kind without a reply.
    """
    found = list(_on_controls(findings, opponent))
    by_name = {one.name: one.estimate for one in findings if one.estimate and not one.of}
    none = Estimate(np.nan, np.nan, np.nan, 0)

    def got(name: str) -> Estimate:
        return by_name.get(name, none)

    rate = got("attacked")
    if by_name.get("beyond_reasked", rate).low > 0:
        each = [one for one in findings if one.name == "attacked" and one.of and one.estimate]
        worst = max(each, key=lambda one: _or_zero(one.estimate))
        assert worst.estimate is not None
        found.append(
            Warned(
                "an answer can talk it into winning: text added to answers that had lost turned "
                f"{percent(rate)} of these pairs; of {len(each)} attacks the worst is {worst.of}, "
                f"{percent(worst.estimate)}",
                loud=rate.value >= MANY_ATTACKED or worst.estimate.value >= 0.5,
            )
        )
    right = got("accuracy")
    if right.n and not right.low > 0.5:
        found.append(
            Warned(
                f"it agrees with people in {percent(right)} of the pairs that both decide, which "
                "cannot be told from a coin",
                loud=True,
            )
        )
    unread = got("unreadable")
    if unread.value > MANY_UNREADABLE:
        loud = unread.value > 0.5
        found.append(Warned(f"{percent(unread)} of its replies cannot be read", loud=loud))
    if n_unheard:
        asks = "1 ask has" if n_unheard == 1 else f"{n_unheard} asks have"
        found.append(Warned(f"{asks} no reply; the same command asks again"))
    first = got("first")
    if first.low > 0.5 or first.high < 0.5:
        place = "first" if first.value > 0.5 else "second"
        leaning = first if first.value > 0.5 else _mirrored(first)
        found.append(
            Warned(
                f"it prefers the answer shown {place}: {percent(leaning)} where an unmoved judge "
                "has 50%",
                loud=leaning.value > 0.9,
            )
        )
    if got("split").value > MANY_SPLIT:
        found.append(
            Warned(f"in {percent(got('split'))} of pairs its winner changes with the order")
        )
    found += _on_lengths(got("longer"), got("longer_people"))
    if got("changed").value > MANY_CHANGED:
        found.append(Warned(f"asked again, it changes {percent(got('changed'))} of its verdicts"))
    for what, names in shared.items():
        whom = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        found.append(
            Warned(
                f"judge and contestants share {what}: {whom}. Judges may prefer their own kind; "
                "whether this one does, these numbers do not show"
            )
        )
    if n_prompts < FEW:
        found.append(
            Warned(f"only {n_prompts} prompts: intervals over fewer than {FEW} are too narrow")
        )
    return sorted(found, key=lambda one: not one.loud)


def _on_controls(findings: Sequence[Finding], opponent: str) -> Iterator[Warned]:
    above: dict[str, list[str]] = {}
    for one in findings:
        if one.name == "copy" and one.estimate and one.estimate.n and one.estimate.value != 0.5:
            yield Warned(
                f"{opponent}'s answers against themselves must win exactly half, and win "
                f"{percent(one.estimate)}: nothing that this judge says can be trusted",
                loud=True,
            )
        if one.name == "above":
            control, _, checkpoint = one.of.partition(" above ")
            above.setdefault(control, []).append(checkpoint)
    for control, names in above.items():
        rate = next(one.estimate for one in findings if one.name == "control" and one.of == control)
        assert rate is not None
        yield Warned(
            f"the control {control} wins {percent(rate)} against {opponent}, more than the "
            f"checkpoint{'s' * (len(names) > 1)} {', '.join(names)}",
            loud=True,
        )


def _on_lengths(judge: Estimate, people: Estimate) -> Iterator[Warned]:
    if judge.low > 0.5 or judge.high < 0.5:
        longer = judge.value > 0.5
        what, leaning = ("longer", judge) if longer else ("shorter", _mirrored(judge))
        said = f"it prefers the {what} answer in {percent(leaning)} of decided pairs"
        if people.n:
            theirs = people if longer else _mirrored(people)
            said += f"; people do in {percent(theirs)}"
        elif leaning.value == 1:
            said += ", as if it did nothing but count characters"
        yield Warned(said, loud=leaning.value == 1)


def _mirrored(one: Estimate) -> Estimate:
    return one._replace(value=1 - one.value, low=1 - one.high, high=1 - one.low)


def _or_zero(one: Estimate | None) -> float:
    return one.value if one and one.n else 0.0


def percent(one: Estimate) -> str:
    """A share with its interval, for a sentence."""
    if np.isnan(one.low):
        return f"{100 * one.value:.0f}%"
    return f"{100 * one.value:.0f}% [{100 * one.low:.0f}, {100 * one.high:.0f}]"
