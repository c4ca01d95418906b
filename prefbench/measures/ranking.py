"""Whether a checkpoint ranks the candidates of a prompt as their rewards do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau

from prefbench.errors import InputError

ONE = "a single candidate has no rank"
SAME_REWARD = "all candidates have the same reward"
NO_NUMBER = "a candidate's log-prob or reward is no number"


def ranking(
    logps: Sequence[float], n_tokens: Sequence[int], rewards: Sequence[float]
) -> dict[str, float] | str:
    """How log-probs per token rank the candidates of one prompt beside how rewards do.

    `kendall_tau` is Kendall's τ-b of log-prob per token and reward: 1 where both orders are the
    same, −1 where one is the other reversed, 0 in the mean where they have nothing to do with each
    other; ties count as τ-b takes them. `best_first` says whether the candidate of highest
    log-prob per token has the highest reward: 1 or 0; where several share the highest log-prob,
    the share of these that have it, as if one of them were drawn. `n_candidates` is their number,
    on which the chance of being right by guessing hangs.

    Args:
        logps: summed log-probs of the candidates, in nats, (n_candidates,).
        n_tokens: their tokens, the end-of-turn token counted.
        rewards: as the data or a judge give them; only their order counts.

    Returns:
        Quantities by name, without `kendall_tau` where all log-probs are equal, as it is
        undefined; or why the prompt has none, which is where rewards rank nothing.

    Raises:
        InputError: the three do not belong to the same candidates, or one has no token.

    Source: the score is RRHF's p_i, Yuan et al. 2023, eq. 1, arxiv.org/abs/2304.05302; τ-b is
    Kendall 1945, doi.org/10.1093/biomet/33.3.239. To take τ of the two is ours.
    """
    n = len(logps)
    if not n == len(n_tokens) == len(rewards):
        raise InputError(f"{n} log-probs, {len(n_tokens)} token counts and {len(rewards)} rewards")
    if min(n_tokens, default=1) < 1:
        raise InputError("a candidate has no token, not even one that ends it")
    if n < 2:
        return ONE
    if not all(map(math.isfinite, [*logps, *rewards])):
        return NO_NUMBER
    if len(set(rewards)) == 1:
        return SAME_REWARD
    scores = np.asarray(logps) / np.asarray(n_tokens)
    liked = np.asarray(rewards) == max(rewards)
    found = {
        "best_first": float(liked[scores == scores.max()].mean()),
        "n_candidates": float(n),
    }
    if np.ptp(scores) > 0:
        found["kendall_tau"] = float(kendalltau(scores, rewards).statistic)
    return found
