"""The items behind one number: what was sent, what came back, what a judge said of it."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from prefbench.errors import InputError, StoreError
from prefbench.records import Answer
from prefbench.report.explain.behind import Behind, values_of
from prefbench.stats.bootstrap import Array

if TYPE_CHECKING:
    from prefbench.judges.judge import Ask
    from prefbench.judges.opening import PlannedJudge
    from prefbench.measures.comparison import Pair


@dataclass(frozen=True)
class Reply:
    """What a judge said of an item's answers in one order.

    `preference` is how far the text shown first is preferred; `ours_first` says whether that is
    the checkpoint's; `sample` counts the item's texts from 0.
    """

    judge: str
    sample: int
    ours_first: bool
    preference: float | None
    reason: str | None
    reply: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One item: its prompt as sent, what the checkpoint gave for it, and its numbers.

    `value` is the metric of this item alone. `answer` has the log-probs of `continuations`, or the
    texts; `opponent` the texts that they were compared with.
    """

    item: int
    cluster: str
    value: float | None
    reason: str | None
    prompt: str
    continuations: tuple[str, ...]
    answer: Answer | None
    numbers: Mapping[str, float]
    opponent: tuple[str, ...] = ()
    replies: tuple[Reply, ...] = ()


def samples_of(behind: Behind, *, n: int = 3, items: Sequence[int] = ()) -> list[Sample]:
    """The items with the n worst and the n best values, or those that are named.

    Where neither direction is better, the lowest and the highest. Of equal values the first items.

    Raises:
        InputError: an item that the task does not have, or a number that no cell alone makes.
    """
    measured = behind.measured
    if measured is None or not behind.cell:
        if items:
            raise InputError("a strength is made of many comparisons; name one by its cell's id")
        return []
    values = values_of(measured, behind.column.metric)
    chosen = list(items) or _extremes(behind, values, n)
    rows = {item: i for i, item in enumerate(measured.items.tolist())}
    if lost := [item for item in chosen if item not in rows]:
        there = f"items go from {min(rows)} to {max(rows)}" if rows else "its value came alone"
        raise InputError(f"{behind.column.group.task} has no item {lost[0]} here: {there}")
    answers, sent = _answers(behind), _sent(behind)
    heard = _heard(behind, chosen)
    reasons = behind.store.records(behind.cell)["reason"].to_pylist()
    found = []
    for item in chosen:
        i = rows[item]
        text = sent.get(item, {})
        numbers = {name: float(column[i]) for name, column in measured.quantities.items()}
        opponents, replies = heard.get(item, ((), ()))
        found.append(
            Sample(
                item=item,
                cluster=str(measured.clusters[i]),
                value=None if np.isnan(values[i]) else float(values[i]),
                reason=reasons[i],
                prompt=text.get("prompt", ""),
                continuations=tuple(text.get("continuations", ())),
                answer=answers.get(item),
                numbers={name: value for name, value in numbers.items() if not np.isnan(value)},
                opponent=opponents,
                replies=replies,
            )
        )
    return found


def _extremes(behind: Behind, values: Array, n: int) -> list[int]:
    """The items of the n worst values, then of the n best, the worst and the best at the ends."""
    assert behind.measured is not None
    items = behind.measured.items.tolist()
    there = np.flatnonzero(~np.isnan(values))
    falling = behind.column.metric.higher_is_better is False
    ranked = there[np.argsort(-values[there] if falling else values[there], kind="stable")]
    if len(ranked) <= 2 * n:
        return [items[i] for i in ranked]
    # From the other end, too, the first of equal items come first.
    best = there[np.argsort(values[there] if falling else -values[there], kind="stable")][:n]
    return [items[i] for i in dict.fromkeys([*ranked[:n], *best[::-1]])]


def _answers(behind: Behind) -> dict[int, Answer]:
    try:
        return {
            answer.item: answer for answer in behind.store.answers(behind.store.behind(behind.cell))
        }
    except StoreError:  # results that were imported may have none
        return {}


def _sent(behind: Behind) -> dict[int, dict[str, Any]]:
    """Prompts and continuations by item."""
    try:
        table = behind.store.items(behind.manifest["items"])
    except (StoreError, KeyError):
        return {}
    rows = table.select(["item", "prompt", "continuations"]).to_pylist()
    return {row["item"]: row for row in rows}


# --- of judged comparisons


def _heard(
    behind: Behind, items: Sequence[int]
) -> dict[int, tuple[tuple[str, ...], tuple[Reply, ...]]]:
    """The opponent's texts and the judge's replies, by item."""
    if not behind.judging:
        return {}
    from prefbench.pairing import pairs_between

    judge = _planned(behind.judging["judge"])
    pairs = pairs_between(
        behind.store,
        behind.judging["answers"],
        behind.judging["opponent_answers"],
        names=(behind.row.name, behind.judging["opponent"]),
        judge=judge,
    )
    chosen = {pair.item: pair for pair in pairs if pair.item in set(items)}
    file = behind.results / "verdicts.sqlite"
    asks = [ask for pair in chosen.values() for ask in pair.asks(symmetric=judge.symmetric)]
    kept = _kept(file, [one.name for one in judge.members or (judge,)], asks)
    return {
        item: (pair.opponents, tuple(_replies(pair, judge, kept))) for item, pair in chosen.items()
    }


def _planned(facts: Mapping[str, Any]) -> PlannedJudge:
    """A judge as a manifest tells of it; enough to know what it was shown."""
    from prefbench.judges.opening import PlannedJudge
    from prefbench.judges.recipe import JudgeRecipe

    return PlannedJudge(
        JudgeRecipe.model_validate(facts["recipe"]),
        Path(),
        members=tuple(_planned(member) for member in facts["members"]),
    )


def _replies(
    pair: Pair, judge: PlannedJudge, kept: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Iterator[Reply]:
    for number, (ours, theirs) in enumerate(pair.samples):
        alone = dataclasses.replace(pair, answers=(ours,), opponents=(theirs,))
        for ask in alone.asks(symmetric=judge.symmetric):
            for row in kept.get(ask.digest, ()):
                yield Reply(
                    judge=row["judge"],
                    sample=number,
                    ours_first=ask.first == ours,
                    preference=row["preference"],
                    reason=row["reason"],
                    reply=row["reply"],
                    facts=json.loads(row["facts"]),
                )


def _kept(
    file: Path, judges: Sequence[str], asks: Sequence[Ask]
) -> dict[str, list[dict[str, Any]]]:
    """Verdicts by what was shown, the latest of each judge; those that were asked anew are not.

    A judge of this name that had another model then may have left some, too: the latest counts.
    """
    if not file.is_file():
        return {}
    wanted = {ask.digest for ask in asks}
    # Nothing is written, not even a journal beside the file, unless another process writes.
    mode = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
    found: dict[str, dict[str, dict[str, Any]]] = {}
    try:
        connection = sqlite3.connect(f"file:{quote(str(file.resolve()))}?{mode}", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            marks = ",".join("?" * len(judges))
            rows = connection.execute(
                "SELECT judge, shown, preference, reason, reply, facts FROM verdicts "
                f"WHERE judge IN ({marks}) AND judge_key NOT LIKE '% %' ORDER BY kept",
                tuple(judges),
            )
            for row in rows:
                if row["shown"] in wanted:
                    found.setdefault(row["shown"], {})[row["judge"]] = dict(row)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"{file}: cannot be read: {error}") from error
    return {shown: list(by_judge.values()) for shown, by_judge in found.items()}
