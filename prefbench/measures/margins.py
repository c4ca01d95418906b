"""What tuning did to preference pairs: log-probs of a checkpoint beside its reference's.

An item's quantities are means over its combinations of a chosen and a rejected text. With c and r
the summed log-probs in nats under the checkpoint, and ρ_w and ρ_l their differences to those under
the reference:

    logps/chosen, logps/rejected       c, r
    rewards/chosen, rewards/rejected   β ρ_w, β ρ_l, the implicit rewards
    rewards/margins                    β (ρ_w − ρ_l)
    rewards/accuracies                 1 where ρ_w > ρ_l
    delta_chosen, delta_rejected       ρ_w, ρ_l; with `_per_token` over the text's token count
    displaced                          1 where ρ_w < 0: likelihood displacement
    ideal, both_down, both_up, inverted   (ρ_w, ρ_l) is (+, −), (−, −), (+, +), (−, +)
    unmoved                            1 where one of the two is 0
    ranking_accuracy, …_per_token      1 where c > r, where c over its tokens > r over its own
    ranking_ties                       1 where c = r
    edit_distance                      of the token ids, 0 to 1
    in@<band>                          1 where that distance lies in the band
    displaced@<band>, delta_…@<band>   the same, 0 outside the band
    chosen_before, …_at, …_after       sums of token log-probs before, at and after the first token
                                       that differs; delta_chosen_… of their log-ratios, n_chosen_…
                                       how many tokens; the same of rejected
    ches, ches_per_token               ⟨S_w, S_l⟩ − ‖S_w‖² for the reference's summed hidden states;
                                       per token ⟨S_w, S_l⟩ / (n_w n_l) − ‖S_w‖² / n_w²
    loss/<objective>                   every objective at its defaults

Names with a slash up to `rewards/accuracies` are TRL's, and so is what they mean. Sources:
rewards: Rafailov et al. 2023, arxiv.org/abs/2305.18290; displacement and CHES: Razin et al. 2024,
arxiv.org/abs/2410.08847, definitions 1 and 2; first difference: Pal et al. 2024,
arxiv.org/abs/2402.13228; ranking accuracy: Chen et al. 2024, arxiv.org/abs/2405.19534, definition
2.3, there with ≥, here strict, as ties are told apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prefbench.errors import InputError
from prefbench.objectives import OBJECTIVES, PairLogps
from prefbench.records import Answer
from prefbench.stats.edits import BANDS, band_of, edit_distance, first_difference

Array: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = dict[str, Array]

BETA = 0.1
"""TRL's default."""
NO_CHOSEN, NO_REJECTED = "there is no chosen text", "there is no rejected text"
AT_ONCE = 1024
"""Pairs whose token log-probs are padded to one length at once."""
PARTS = ("before", "at", "after")
"""Of a text, by its first token that the other text does not have there."""


class PairAnswers(NamedTuple):
    """What a checkpoint and its reference gave for one item, the chosen texts first."""

    policy: Answer
    reference: Answer
    n_chosen: int


class _Pair(NamedTuple):
    """One combination of an item's texts: the item's place, its answers, the texts' places."""

    item: int
    policy: Answer
    reference: Answer
    chosen: int
    rejected: int


def margins(
    policy: Answer,
    reference: Answer,
    n_chosen: int,
    *,
    beta: float = BETA,
    objectives: Sequence[str] = tuple(OBJECTIVES),
) -> dict[str, float] | str:
    """The quantities of one item, or the reason why it has none; see `margins_of`."""
    one = PairAnswers(policy, reference, n_chosen)
    [found] = margins_of([one], beta=beta, objectives=objectives)
    return found


def margins_of(
    items: Sequence[PairAnswers],
    *,
    beta: float = BETA,
    objectives: Sequence[str] = tuple(OBJECTIVES),
) -> list[dict[str, float] | str]:
    """The quantities of many items, each a dictionary or the reason why it has none.

    What an engine did not give is left out with all that needs it: token ids, their log-probs, the
    reference's inner products. Changes by position also need that both tokenize alike.

    Args:
        items: answers of checkpoint and reference.
        beta: of the implicit rewards.
        objectives: whose losses to take, by their names in `objectives.OBJECTIVES`.

    Raises:
        InputError: an objective is unknown.
    """
    if unknown := sorted({*objectives} - OBJECTIVES.keys()):
        raise InputError(
            f"objective is one of {', '.join(OBJECTIVES)}, not {', '.join(map(repr, unknown))}"
        )
    reasons = [_reason(one) for one in items]
    pairs = [
        _Pair(i, one.policy, one.reference, chosen, rejected)
        for i, one in enumerate(items)
        if reasons[i] is None
        for chosen in range(one.n_chosen)
        for rejected in range(one.n_chosen, len(one.policy.logps))
    ]
    policy = _logps([(pair.policy, pair.chosen, pair.rejected) for pair in pairs])
    reference = _logps([(pair.reference, pair.chosen, pair.rejected) for pair in pairs])
    columns = {
        **_by_sums(policy, reference, beta),
        **_by_ids(pairs),
        **_ches(pairs),
        **{f"loss/{name}": _losses(name, pairs, policy, reference) for name in objectives},
    }
    for band in BANDS:
        for name in ("displaced", "delta_chosen", "delta_rejected"):
            columns[f"{name}@{band}"] = columns[name] * columns[f"in@{band}"]
    means = _means(columns, [pair.item for pair in pairs], len(items))
    return [reason or means[i] for i, reason in enumerate(reasons)]


def _reason(one: PairAnswers) -> str | None:
    """Why an item has no quantities, if so."""
    policy, reference = one.policy, one.reference
    if policy.reason:
        return policy.reason
    if reference.reason:
        return f"reference: {reference.reason}"
    if one.n_chosen < 1:
        return NO_CHOSEN
    if len(policy.logps) <= one.n_chosen:
        return NO_REJECTED
    if len(reference.logps) != len(policy.logps):
        return f"reference: its texts are {len(reference.logps)}, not {len(policy.logps)}"
    if min(*policy.n_tokens, *reference.n_tokens) < 1:
        return "a text has no tokens"
    return None


def _means(columns: Columns, items: Sequence[int], n: int) -> list[dict[str, float]]:
    """Of each of n items what its pairs have, as means over them."""
    place = np.array(items, dtype=np.intp)
    counts = np.maximum(np.bincount(place, minlength=n), 1)
    table = np.array([np.bincount(place, each, minlength=n) / counts for each in columns.values()])
    return [
        {name: value for name, value in zip(columns, row, strict=True) if not math.isnan(value)}
        for row in table.T.tolist()
    ]


def _logps(pairs: Sequence[tuple[Answer, int, int]]) -> PairLogps:
    """Sums and token counts, each (n_pairs,)."""
    sums = [(answer.logps[chosen], answer.logps[rejected]) for answer, chosen, rejected in pairs]
    n = [(answer.n_tokens[chosen], answer.n_tokens[rejected]) for answer, chosen, rejected in pairs]
    logps, counts = np.array(sums, dtype=float).reshape(-1, 2), np.array(n, int).reshape(-1, 2)
    return PairLogps(logps[:, 0], logps[:, 1], counts[:, 0], counts[:, 1])


def _by_sums(policy: PairLogps, reference: PairLogps, beta: float) -> Columns:
    """What summed log-probs and token counts tell of each pair."""
    chosen, rejected = policy.chosen - reference.chosen, policy.rejected - reference.rejected
    per_token = policy.chosen / policy.n_chosen, policy.rejected / policy.n_rejected
    columns = {
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
        "rewards/chosen": beta * chosen,
        "rewards/rejected": beta * rejected,
        "rewards/margins": beta * (chosen - rejected),
        "rewards/accuracies": chosen > rejected,
        "delta_chosen": chosen,
        "delta_rejected": rejected,
        "delta_chosen_per_token": chosen / policy.n_chosen,
        "delta_rejected_per_token": rejected / policy.n_rejected,
        "displaced": chosen < 0,
        "ideal": (chosen > 0) & (rejected < 0),
        "both_down": (chosen < 0) & (rejected < 0),
        "both_up": (chosen > 0) & (rejected > 0),
        "inverted": (chosen < 0) & (rejected > 0),
        "unmoved": (chosen == 0) | (rejected == 0),
        "ranking_accuracy": policy.chosen > policy.rejected,
        "ranking_accuracy_per_token": per_token[0] > per_token[1],
        "ranking_ties": policy.chosen == policy.rejected,
    }
    return {name: np.asarray(column, dtype=float) for name, column in columns.items()}


def _by_ids(pairs: Sequence[_Pair]) -> Columns:
    """What token ids, and the log-probs at each, tell of each pair."""
    sides = ("chosen", "rejected")
    names = [
        "edit_distance",
        *(f"in@{band}" for band in BANDS),
        *(f"{kind}{side}_{part}" for kind in ("", "n_") for side in sides for part in PARTS),
        *(f"delta_{side}_{part}" for side in sides for part in PARTS),
    ]
    table = np.full((len(pairs), len(names)), np.nan)
    for row, pair in zip(table, pairs, strict=True):
        ids = pair.policy.token_ids
        if not ids:
            continue
        texts = pair.chosen, pair.rejected
        distance = edit_distance(ids[pair.chosen], ids[pair.rejected])
        row[0] = distance
        row[1:4] = [band_of(distance) == band for band in BANDS]
        place = first_difference(ids[pair.chosen], ids[pair.rejected])
        if pair.policy.token_logps:
            own = np.array([_in_parts(pair.policy.token_logps[text], place) for text in texts])
            row[4:10] = own.ravel()
            row[10:16] = [n for text in texts for n in _sizes(len(ids[text]), place)]
            if pair.reference.token_logps and pair.reference.token_ids == ids:
                theirs = [_in_parts(pair.reference.token_logps[text], place) for text in texts]
                row[16:22] = (own - np.array(theirs)).ravel()
    return dict(zip(names, table.T, strict=True))


def _in_parts(logps: Sequence[float], place: int) -> tuple[float, float, float]:
    """Sums before, at and after a place that may lie beyond the last."""
    return (
        math.fsum(logps[:place]),
        math.fsum(logps[place : place + 1]),
        math.fsum(logps[place + 1 :]),
    )


def _sizes(n_tokens: int, place: int) -> tuple[int, int, int]:
    """How many of n tokens stand before, at and after a place that may lie beyond the last."""
    before = min(n_tokens, place)
    at = min(n_tokens - before, 1)
    return before, at, n_tokens - before - at


def _ches(pairs: Sequence[_Pair]) -> Columns:
    """How alike the reference sees the two texts, of each pair: high where displacement is due."""
    table = np.full((2, len(pairs)), np.nan)
    for i, (_, _, reference, chosen, rejected) in enumerate(pairs):
        n = len(reference.logps)
        if len(reference.gram) == n * n:
            inner = reference.gram[chosen * n + rejected]
            norm = reference.gram[chosen * n + chosen]
            n_chosen, n_rejected = reference.n_tokens[chosen], reference.n_tokens[rejected]
            table[0, i] = inner - norm
            table[1, i] = inner / (n_chosen * n_rejected) - norm / n_chosen**2
    return {"ches": table[0], "ches_per_token": table[1]}


def _losses(name: str, pairs: Sequence[_Pair], policy: PairLogps, reference: PairLogps) -> Array:
    """An objective's loss of each pair; NaN where it needs token log-probs that are not there."""
    objective = OBJECTIVES[name]
    if not objective.needs_tokens:
        return np.asarray(objective(policy, reference), dtype=float)
    losses = np.full(len(pairs), np.nan)
    known = [i for i, pair in enumerate(pairs) if pair.policy.token_logps]
    for start in range(0, len(known), AT_ONCE):
        rows = known[start : start + AT_ONCE]
        tokens = [pairs[i].policy.token_logps[pairs[i].rejected] for i in rows]
        padded = np.zeros((len(rows), max(map(len, tokens))))
        for row, logps in zip(padded, tokens, strict=True):
            row[: len(logps)] = logps
        sums = policy.chosen[rows], policy.rejected[rows]
        counts = policy.n_chosen[rows], policy.n_rejected[rows]
        some = PairLogps(*sums, *counts, rejected_tokens=padded)
        losses[rows] = objective(some)
    return losses
