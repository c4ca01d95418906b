"""What a judge is examined on: pairs of answers from results and from people, and controls."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from prefbench.errors import InputError
from prefbench.interchange.labels import Label
from prefbench.judges.judge import Turn
from prefbench.judges.opening import PlannedJudge
from prefbench.measures.comparison import Pair
from prefbench.pairing import pairs_between
from prefbench.records import REFERENCE
from prefbench.store import Store

LABELS = "labels"
IDENTICAL = "the two answers are identical"
CONSTANT = (
    "Thank you for your question. There are several things to consider here, and the best choice "
    "depends on your situation. I hope this helps!"
)
"""What the control `constant` answers, whatever was asked."""


@dataclass(frozen=True)
class Contest:
    """A checkpoint's kept answers to a task and those of its opponent."""

    task: str
    checkpoint: Mapping[str, Any]
    """As a plan has it."""
    opponent: str
    opponent_facts: Mapping[str, Any] | None
    opponent_names: frozenset[str]
    """The opponent's own, its method, and how the run or the task named it."""
    answers: str
    against: str | None
    """The opponent's cell; None for the reference."""

    @property
    def name(self) -> str:
        return str(self.checkpoint["name"])

    @property
    def title(self) -> str:
        return f"{self.name} against {self.opponent} on {self.task}"

    def pairs(self, store: Store, judge: PlannedJudge) -> list[Pair]:
        """Item by item, as the judge would see them in a run."""
        names = self.name, self.opponent
        return pairs_between(store, self.answers, self.against, names=names, judge=judge)


Held: TypeAlias = Sequence[tuple[Contest, Sequence[Pair]]]


@dataclass(frozen=True)
class Case:
    """Two answers to one prompt, the prompt's cluster, and what people say of the first, if known.

    `source` is a contest's title, or LABELS.
    """

    cluster: str
    conversation: tuple[Turn, ...]
    first: str
    second: str
    reference: str | None = None
    source: str = LABELS
    human: float | None = None

    def pair(self, item: int) -> Pair:
        """As what is measured by `compare`."""
        return Pair(
            item, self.cluster, self.conversation, (self.first,), (self.second,), self.reference
        )


class Chosen(NamedTuple):
    """Cases, how many could have been chosen, and why others could not."""

    cases: tuple[Case, ...]
    n_all: int
    left_out: Mapping[str, int]


class Control(NamedTuple):
    """Answers that are known for what they are, item by item, against one opponent."""

    name: str
    pairs: tuple[Pair, ...]


class Trial(NamedTuple):
    """Controls and the checkpoints that they are set beside, on the same items."""

    task: str
    opponent: str
    checkpoints: tuple[Control, ...]
    controls: tuple[Control, ...]
    copies: tuple[Pair, ...]
    """The opponent's answers against themselves."""


def find_contests(
    store: Store, *, tasks: Sequence[str] = (), opponents: Sequence[str] = ()
) -> list[Contest]:
    """What any run here has set out to judge, by whichever judge, where both sides have answered.

    Raises:
        InputError: a task or opponent was named, and nothing here is of it.
    """
    found: dict[tuple[str, str | None], Contest] = {}
    for plan in store.plans():
        facts = {one["name"]: one for one in plan["checkpoints"]}
        for one in plan.get("comparisons", ()):
            against = None if one["opponent"] == REFERENCE else str(one["identity"]["against"])
            cells = [cell for cell in (one["answers"], against) if cell]
            if one["answers"] != against and all(store.is_sealed(cell) for cell in cells):
                theirs = facts.get(one["opponent"])
                names = {one["opponent"], one["against"], theirs["method"] if theirs else None}
                key = one["answers"], against
                before = found[key].opponent_names if key in found else frozenset()
                found[key] = Contest(
                    one["task"],
                    facts[one["checkpoint"]],
                    one["opponent"],
                    theirs,
                    before | {name for name in names if name},
                    one["answers"],
                    against,
                )
    kept = list(found.values())
    for wanted, what in ((tasks, "task"), (opponents, "opponent")):
        named = [({one.task} if what == "task" else one.opponent_names, one) for one in kept]
        for name in wanted:
            if not any(name in names for names, _ in named):
                there = sorted({getattr(one, what) for one in kept})
                raise InputError(
                    f"{store.name}: no answers to be judged are kept for the {what} {name}; "
                    f"there are: {', '.join(there) or 'none'}"
                )
        kept = [one for names, one in named if not wanted or names & set(wanted)]
    return kept


def choose_cases(
    held: Held,
    labels: Sequence[Label],
    *,
    limit: int,
    rng: np.random.Generator,
) -> Chosen:
    """Up to `limit` pairs of the contests, and as many of the labels.

    Prompts come first that people have spoken of; then by chance, each prompt once before any comes
    twice, so that there is as much to resample as can be. Of several samples the first is taken.
    A label whose two texts are a contest's speaks of that case and makes none of its own.
    """
    left_out: Counter[str] = Counter()
    human = _by_texts(labels)
    found: dict[str, Case] = {}
    for contest, pairs in held:
        for pair in pairs:
            why = pair.reason or (IDENTICAL if pair.samples[0][0] == pair.samples[0][1] else None)
            if why:
                left_out[why.partition(":")[0]] += 1
                continue
            first, second = pair.samples[0]
            key = _texts_key(pair.conversation, first, second)
            said = human.get(key)
            case = Case(
                pair.cluster,
                pair.conversation,
                first,
                second,
                pair.reference,
                contest.title,
                None if said is None else said.of(first),
            )
            found.setdefault(key, case)
    own: dict[str, Case] = {}
    for label in labels:
        key = _texts_key(label.conversation, label.first, label.second)
        if key not in found:
            own[key] = Case(
                label.cluster,
                label.conversation,
                label.first,
                label.second,
                human=human[key].of(label.first),
            )
    cases = [*_spread(list(found.values()), limit, rng), *_spread(list(own.values()), limit, rng)]
    return Chosen(tuple(cases), len(found) + len(own), dict(left_out))


class _Said(NamedTuple):
    """Everything people say of two texts: the one of them, and how far it is preferred."""

    first: str
    preferences: list[float]

    def of(self, text: str) -> float:
        mean = sum(self.preferences) / len(self.preferences)
        return mean if text == self.first else 1 - mean


def _by_texts(labels: Sequence[Label]) -> dict[str, _Said]:
    found: dict[str, _Said] = {}
    for label in labels:
        key = _texts_key(label.conversation, label.first, label.second)
        said = found.setdefault(key, _Said(label.first, []))
        same = label.first == said.first
        said.preferences.append(label.preference if same else 1 - label.preference)
    return found


def _texts_key(conversation: tuple[Turn, ...], first: str, second: str) -> str:
    """Equal for two texts in either order."""
    turns = tuple((turn.role, turn.content.strip()) for turn in conversation)
    return hashlib.sha256(repr((turns, *sorted((first, second)))).encode()).hexdigest()


def _spread(cases: Sequence[Case], limit: int, rng: np.random.Generator) -> list[Case]:
    """Some of the cases, from as many prompts as can be, those with a label before others."""
    order = [cases[i] for i in rng.permutation(len(cases))]
    order.sort(key=lambda case: case.human is None)
    rounds: Counter[str] = Counter()
    ranked = []
    for case in order:
        ranked.append((case.human is None, rounds[case.cluster], case))
        rounds[case.cluster] += 1
    ranked.sort(key=lambda one: one[:2])
    return [case for *_, case in ranked[:limit]]


def set_trial(held: Held, *, limit: int, rng: np.random.Generator) -> Trial:
    """Controls for the task and opponent that have the most checkpoints.

    `constant` says the same to everything; `half` is the first half of the opponent's own answer;
    `longest` takes of a checkpoint's samples the one with the most characters.
    """
    groups: dict[tuple[str, str | None], list[tuple[Contest, dict[int, Pair]]]] = {}
    for contest, pairs in held:
        by_item = {pair.item: pair for pair in pairs}
        groups.setdefault((contest.task, contest.against), []).append((contest, by_item))
    members = max(groups.values(), key=len)
    one, first = members[0]
    able = [
        item
        for item, pair in first.items()
        if pair.opponents and not pair.reason and all(item in pairs for _, pairs in members)
    ]
    items = sorted(able[i] for i in rng.permutation(len(able))[:limit])
    model = [first[item] for item in items]

    def against(texts: Sequence[str | None]) -> tuple[Pair, ...]:
        return tuple(
            dataclasses.replace(
                pair,
                answers=(text,) if text else (),
                opponents=pair.opponents[:1],
                reason=None if text else "there is no text to compare",
            )
            for pair, text in zip(model, texts, strict=True)
        )

    controls = [
        Control("constant", against([CONSTANT] * len(model))),
        Control("half", against([_half(pair.opponents[0]) for pair in model])),
    ]
    for contest, by_item in members:
        n = max((len(pair.answers) for pair in by_item.values()), default=0)
        if n > 1:
            longest = [max(by_item[item].answers, key=len, default=None) for item in items]
            controls.append(Control(f"longest of {n} by {contest.name}", against(longest)))
    return Trial(
        one.task,
        one.opponent,
        tuple(
            Control(contest.name, tuple(pairs[item] for item in items))
            for contest, pairs in members
        ),
        tuple(controls),
        against([pair.opponents[0] for pair in model]),
    )


def _half(text: str) -> str | None:
    return text[: len(text) // 2].strip() or None
