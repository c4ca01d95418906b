"""How far the members of a panel agree on what they were asked together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from prefbench.judges.judge import Ask, Verdict
from prefbench.measures.comparison import Heard, Pair
from prefbench.stats.agreement import krippendorff_alpha
from prefbench.stats.bootstrap import Resampling
from prefbench.stats.estimates import Estimate


def agreement(
    pairs: Sequence[Pair],
    heard: Callable[[Ask], Heard],
    members: Sequence[str],
    *,
    symmetric: bool,
    seed: int = 0,
) -> Estimate:
    """Krippendorff's α of the members' preferences, at interval level; prompts are resampled.

    Each order of each sample is one thing that the members rate; what a member gave no readable
    verdict on, it did not rate.

    Args:
        pairs: the items.
        heard: the panel's verdict of an ask, whose facts hold those of its members.
        members: their names.
        symmetric: the panel was asked once a sample.
        seed: of the resampling.
    """
    rows: list[list[float]] = []
    clusters: list[str] = []
    for pair in pairs:
        for ask in pair.asks(symmetric=symmetric):
            one = heard(ask)
            told = one.facts.get("members", {}) if isinstance(one, Verdict) else {}
            said = [told.get(name, {}).get("preference") for name in members]
            rows.append([np.nan if preference is None else preference for preference in said])
            clusters.append(pair.cluster)
    ratings = np.array(rows, dtype=float).reshape(len(rows), len(members))
    return krippendorff_alpha(ratings, level="interval", resampling=Resampling(clusters, seed=seed))
