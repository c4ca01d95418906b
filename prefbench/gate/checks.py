"""What a policy asks of what was measured: checks, each one metric of one checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from prefbench.boards.aligned import metrics_in
from prefbench.errors import InputError
from prefbench.gate.policies import Amount, Policy, Rule, is_pattern, matches
from prefbench.leaderboard import Gathered, Group, row_order
from prefbench.metrics import Metric
from prefbench.records import Checkpoint


@dataclass(frozen=True)
class Check:
    """One thing asked of one checkpoint."""

    checkpoint: str
    group: Group
    metric: Metric
    higher_is_better: bool
    allowed: Amount
    """The most that may be lost; or, where `better` is required, the least to be gained."""
    require: Literal["no_worse", "better"]
    rule: int
    """Its number in the policy, from 1."""

    @property
    def threshold(self) -> float:
        """Least improvement, as a fraction for shares and relative differences."""
        percent = self.metric.unit == "percent" and not self.allowed.relative
        size = self.allowed.size / 100 if percent else self.allowed.size
        return size if self.require == "better" else -size

    @property
    def asked(self) -> str:
        """In words."""
        amount = f"{self.allowed}{self._unit}"
        if self.require == "better":
            verb = "rise" if self.higher_is_better else "fall"
            return f"must {verb} by more than {amount}" if self.allowed.size else f"must {verb}"
        return f"may {'fall' if self.higher_is_better else 'rise'} by at most {amount}"

    @property
    def _unit(self) -> str:
        if self.allowed.relative:
            return " of the baseline"
        name = {"percent": "point", "nats": "nat", "bits": "bit"}.get(self.metric.unit)
        return f" {name}{'' if self.allowed.size == 1 else 's'}" if name else ""


def checks_of(policy: Policy, gathered: Gathered, base: str) -> tuple[list[Check], list[str]]:
    """All that a policy asks, and what is to be said of what it does not ask.

    Args:
        policy: what is asked.
        gathered: what was measured.
        base: the baseline's row.

    Raises:
        InputError: there is nothing beside the baseline, or a rule fits nothing.
    """
    rows, notes = _checkpoints(policy, gathered, base)
    columns = list(_columns(policy, gathered, notes))
    checks = [
        Check(row.name, column.group, column.metric, better, amount, rule.require, number)
        for row in rows
        for number, rule, column in columns
        for better, amount in _limits(rule, column.metric)
    ]
    if not checks:
        raise InputError(f"the policy asks nothing of anything measured here: {'; '.join(notes)}")
    return checks, notes


def _checkpoints(
    policy: Policy, gathered: Gathered, base: str
) -> tuple[list[Checkpoint], list[str]]:
    """The rows that are gated, and what is to be said of others."""
    others = sorted((row for row in gathered.checkpoints if row.name != base), key=row_order)
    if not policy.checkpoints:
        rows = [row for row in others if row.state == "ready"]
        notes = [
            f"not gated: {row.name} is {row.state}" + (f": {row.reason}" if row.reason else "")
            for row in others
            if row.state != "ready"
        ]
        if not rows:
            raise InputError(f"there is no checkpoint to gate beside the baseline {base}")
        return rows, notes
    chosen: list[Checkpoint] = []
    for wanted in policy.checkpoints:
        fit = [row for row in others if matches(row.name, wanted) or row.method == wanted.lower()]
        if not fit:
            there = ", ".join(row.name for row in others) or "none"
            raise InputError(
                f"checkpoints: {wanted!r} fits no row; beside {base} there are: {there}"
            )
        chosen += [row for row in fit if row not in chosen]
    return chosen, []


class _Column(NamedTuple):
    group: Group
    metric: Metric


def _columns(
    policy: Policy, gathered: Gathered, notes: list[str]
) -> Iterator[tuple[int, Rule, _Column]]:
    """What each rule is about; a column belongs to the first rule that fits it."""
    taken: set[tuple[str, str]] = set()
    for number, rule in enumerate(policy.rules, start=1):
        fit = list(_fitting(number, rule, gathered, notes))
        new = [one for one in fit if (one.group.name, one.metric.name) not in taken]
        if not new and fit:
            said = f"rule {number} asks nothing: earlier rules take all that it fits"
            if rule.names_its_metric and not is_pattern(rule.task):
                raise InputError(f"{said}; put the particular before the general")
            notes.append(said)
        for column in new:
            if not _limits(rule, column.metric):
                notes.append(f"not gated: {column.group.name}, {_why_not(number, column.metric)}")
                continue
            taken.add((column.group.name, column.metric.name))
            yield number, rule, column


def _why_not(number: int, metric: Metric) -> str:
    if metric.higher_is_better is None:
        return f"{metric.name}: neither direction is better, and rule {number} does not name it"
    lacking = "max_drop" if metric.higher_is_better else "max_rise"
    return f"{metric.name}: rule {number} says no {lacking}"


def _fitting(number: int, rule: Rule, gathered: Gathered, notes: list[str]) -> Iterator[_Column]:
    """The columns that a rule fits.

    Raises:
        InputError: none does.
    """
    groups = [
        group
        for group in gathered.groups
        if (matches(group.task, rule.task) or group.name == rule.task)
        and rule.judge in (None, group.judge)
        and rule.opponent in (None, group.opponent)
    ]
    if not groups:
        there = "; ".join(group.name for group in gathered.groups) or "nothing"
        raise InputError(f"rule {number}: no task {_named(rule)} was measured; there is: {there}")
    robins = {robin.group for robin in gathered.ranked}
    known: list[str] = []
    n_found = 0
    for group in groups:
        metrics = metrics_in(gathered, group)
        known += metrics
        if group.name in robins:
            notes.append(f"not gated: {group.name}, as strengths hang on who takes part")
            continue
        for name, metric in metrics.items():
            if _fits(rule.metric, name, metric, group):
                n_found += 1
                yield _Column(group, metric)
    if not n_found:
        there = ", ".join(dict.fromkeys(known)) or "none"
        raise InputError(
            f"rule {number}: {_named(rule)} has no metric {rule.metric!r} that can be gated; "
            f"there are: {there}"
        )


def _named(rule: Rule) -> str:
    judge = f" by {rule.judge}" if rule.judge else ""
    opponent = f" against {rule.opponent}" if rule.opponent else ""
    return f"{rule.task!r}{opponent}{judge}"


def _fits(wanted: str, name: str, metric: Metric, group: Group) -> bool:
    if wanted == "shown":
        return name in group.shown or not group.shown
    return matches(name, wanted) or matches(metric.name, wanted)


def _limits(rule: Rule, metric: Metric) -> list[tuple[bool, Amount]]:
    """For each limit of a rule, whether more is better, and how far the value may move."""
    if rule.require == "better":
        better = metric.higher_is_better if rule.higher_is_better is None else rule.higher_is_better
        return [] if better is None else [(better, rule.by)]
    said = [(True, rule.max_drop), (False, rule.max_rise)]
    return [
        (better, amount)
        for better, amount in said
        if amount is not None and (rule.names_its_metric or better == metric.higher_is_better)
    ]
