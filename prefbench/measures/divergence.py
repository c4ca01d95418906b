"""How far a checkpoint went from its reference: sequence KL on the checkpoint's own samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prefbench.errors import InputError
from prefbench.records import Answer
from prefbench.stats.diversity import diversity


def divergence(
    answer: Answer, policy_logps: Sequence[float], reference_logps: Sequence[float]
) -> dict[str, float]:
    """The quantities of one prompt, each a mean over its samples.

    `kl` is the mean of log π(y|x) − log π_ref(y|x) over samples y of π, in nats of the whole
    sequence: an unbiased estimate of KL(π‖π_ref) at this prompt. One sample's difference may be
    negative, and so may the mean of few: where the reference likes what was drawn better than the
    checkpoint does, it is the other samples that make up for it. Only the expectation is 0 or more.
    Cutting negative ones at 0 would bias the mean upwards; an interval that reaches below 0 says
    that the samples are too few to tell the two apart.

    A sample that was cut at the token limit (`unfinished`) counts with the tokens that it has. The
    mean is then that of the KL up to the limit, which is no more than the whole.

    `kl_per_token` is the prompt's `kl` over its `n_tokens`. Over prompts, take the ratio of the
    sums of these two: the mean of ratios would count a token of a short text for more. `n_chars`
    and `n_tokens` are lengths, the latter of what was sampled with its end-of-turn token;
    `unfinished` is a share; distinct_1, distinct_2 and seq_rep_4 are those of `stats.diversity`.

    Args:
        answer: the prompt's samples with their token ids, drawn from π itself,
            as task files must have it.
        policy_logps: log-prob of each whole sample under π, in nats.
        reference_logps: the same under the reference, by the same split into tokens.

    Returns:
        Quantities by name. What the prompt lacks is left out: `kl` where a log-prob is not finite,
        a share of n-grams where no sample has one.

    Raises:
        InputError: there is no sample, or not one log-prob of each.

    Source: Rafailov et al. 2023, figure 2, arxiv.org/abs/2305.18290.
    """
    n = len(answer.texts)
    if not n:
        raise InputError(f"item {answer.item} has no samples")
    for what, values in {
        "token ids": answer.token_ids,
        "log-probs": policy_logps,
        "log-probs of the reference": reference_logps,
    }.items():
        if len(values) != n:
            raise InputError(f"item {answer.item}: {len(values)} {what} for {n} samples")
    n_tokens = math.fsum(map(len, answer.token_ids)) / n
    found = {
        "n_tokens": n_tokens,
        "n_chars": math.fsum(map(len, answer.texts)) / n,
        **diversity(answer.texts),
    }
    if answer.unfinished:
        found["unfinished"] = sum(answer.unfinished) / n
    differences = [p - r for p, r in zip(policy_logps, reference_logps, strict=True)]
    if all(map(math.isfinite, differences)):
        found["kl"] = math.fsum(differences) / n
        if n_tokens:
            found["kl_per_token"] = found["kl"] / n_tokens
    return found
