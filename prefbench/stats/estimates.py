"""Estimate: a value with its interval."""

from __future__ import annotations

from typing import NamedTuple


class Estimate(NamedTuple):
    """A value with its confidence interval; NaN bounds where an interval does not exist."""

    value: float
    low: float
    high: float
    n: int
    n_missing: int = 0
    method: str = "percentile"
