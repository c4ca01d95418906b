"""A judge on all prompts, put right by people on some: prediction-powered inference."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from prefbench.errors import InputError
from prefbench.stats.bootstrap import Array, Resampling
from prefbench.stats.estimates import Estimate, Method, estimate


def powered_mean(
    human: ArrayLike,
    judge: ArrayLike,
    *,
    resampling: Resampling,
    confidence: float = 0.95,
    method: Method = "percentile",
) -> Estimate:
    """The mean that people would give, from a judge on all items and people on some of them.

    The judge's mean over items without a label, times λ, plus the mean over labelled items of what
    people say minus λ times what the judge says there. It is right however wrong the judge is, if
    the labelled items were chosen at random; λ, between 0 and 1, is what makes it most precise: 0
    for a judge that knows nothing, which leaves the people's mean.

    Args:
        human: people's preference, (n_items,), NaN where there is none.
        judge: the judge's, (n_items,), on the same scale or not. NaN is a missing item, counted.
        resampling: draws of the items.
        confidence: of the interval.
        method: as for `estimate`.

    Returns:
        The mean on people's scale; n counts the items that the judge has. The interval is the
        bootstrap's over clusters, λ chosen anew in every draw, and not the paper's normal one: that
        takes items for independent, and λ for known. NaN without labels; NaN bounds where a draw
        has none.

    Source: Angelopoulos, Duchi and Zrnic 2023, PPI++, arxiv.org/abs/2311.01453, for the mean, with
    λ by its plug-in; Angelopoulos et al. 2023, arxiv.org/abs/2301.09633, is λ = 1.
    """
    people, judged = np.asarray(human, dtype=np.float64), np.asarray(judge, dtype=np.float64)
    if people.ndim != 1 or people.shape != judged.shape:
        raise InputError(f"human {people.shape} and judge {judged.shape} must both be (n_items,)")
    labelled = ~np.isnan(people)
    known = np.where(labelled, people, 0)
    columns = [labelled, known, labelled * judged, known * judged, labelled * judged**2]
    columns += [~labelled, ~labelled * judged, ~labelled * judged**2]
    return estimate(
        np.stack(columns, axis=-1),
        _powered,
        resampling=resampling,
        confidence=confidence,
        method=method,
    )


def _powered(sums: Array) -> Array:
    n, human, judge, product, squares, n_other, other, other_squares = np.moveaxis(sums, -1, 0)
    n_all = n + n_other
    covariance = product / n - human / n * judge / n
    variance = (squares + other_squares) / n_all - ((judge + other) / n_all) ** 2
    # λ = Cov(human, judge) / ((1 + n/N) Var(judge)), n labelled and N other items.
    weight = np.clip(covariance * n_other / (n_all * variance), 0, 1)
    weight = np.where((n_other > 0) & (variance > 0), weight, 0)
    elsewhere = np.divide(other, n_other, out=np.zeros_like(other), where=n_other > 0)
    return np.asarray(human / n + weight * (elsewhere - judge / n))
