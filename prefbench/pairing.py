"""From kept answers to pairs that a judge can be shown."""

from __future__ import annotations

import json
from typing import Any

from prefbench.comparisons import PlannedComparison
from prefbench.errors import JudgeError
from prefbench.judges.judge import Turn
from prefbench.judges.opening import PlannedJudge
from prefbench.judges.prompts import uses_reference
from prefbench.measures.comparison import Pair
from prefbench.store import Store


def pairs_of(comparison: PlannedComparison, store: Store) -> list[Pair]:
    """The answers that are to be compared, item by item.

    Raises:
        JudgeError: the checkpoint or its opponent has not answered.
    """
    if comparison.missing:
        raise JudgeError(comparison.missing)
    theirs = comparison.opponent_answers
    return pairs_between(
        store,
        comparison.answers.cell,
        theirs.cell if theirs else None,
        names=(comparison.checkpoint.name, comparison.opponent),
        judge=comparison.judge,
    )


def pairs_between(
    store: Store,
    answers: str,
    opponent_answers: str | None,
    *,
    names: tuple[str, str],
    judge: PlannedJudge,
) -> list[Pair]:
    """The answers of two cells, item by item, as a judge is to see them.

    Args:
        store: where the cells are.
        answers: the checkpoint's cell.
        opponent_answers: the opponent's; None for the reference that the data know.
        names: the checkpoint's and the opponent's, for reasons.
        judge: who may want to be shown the reference.

    Raises:
        JudgeError: one of the two has not answered.
    """
    manifest = _answered(store, answers, names[0])
    items = store.items(manifest["items"]).select(["item", "cluster", "fields"]).to_pylist()
    ours = {answer.item: answer for answer in store.answers(answers)}
    theirs = {}
    if opponent_answers:
        _answered(store, opponent_answers, names[1])
        theirs = {answer.item: answer for answer in store.answers(opponent_answers)}
    shows_reference = uses_reference(judge.recipe) or any(
        uses_reference(member.recipe) for member in judge.members
    )
    pairs = []
    for row in items:
        fields = json.loads(row["fields"])
        answer, reference = ours[row["item"]], fields["reference"]
        reason = fields["missing"] or answer.reason
        opponents: tuple[str, ...] = ()
        if opponent_answers:
            other = theirs.get(row["item"])
            why = other.reason if other else "it was not asked"
            reason = reason or (f"{names[1]}: {why}" if why else None)
            opponents = other.texts if other else ()
        elif reference is None:
            reason = reason or "the data have no reference answer"
        else:
            opponents = (reference,)
        pairs.append(
            Pair(
                item=row["item"],
                cluster=row["cluster"],
                conversation=tuple(Turn(t["role"], t["content"]) for t in fields["messages"]),
                answers=tuple(text.strip() for text in answer.texts),
                opponents=tuple(text.strip() for text in opponents),
                # As the opponent it is not known to be good, nor may it be told apart.
                reference=reference if shows_reference and opponent_answers else None,
                reason=reason or None,
            )
        )
    return pairs


def _answered(store: Store, cell: str, name: str) -> dict[str, Any]:
    manifest = store.manifest(cell)
    if manifest is None:
        why = store.failure(cell) or "it was not asked"
        raise JudgeError(f"{name} has no answers: {why}")
    return manifest
