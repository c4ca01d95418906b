from __future__ import annotations

import math

from prefbench.report.figures.labels import Box
from prefbench.report.page.scatter import along, beside
from prefbench.report.page.svg import axis
from prefbench.stats.estimates import Estimate


def test_a_point_without_an_interval_is_named_too() -> None:
    x, y = axis([1.0, 2.0], 0, 100), axis([1.0, 2.0], 100, 0)
    assert x is not None
    assert y is not None
    lone = Estimate(1.5, math.nan, math.nan, 1)
    wide = Estimate(1.5, 1.2, 1.8, 40)
    outlines = [along(x, y, lone, lone), along(x, y, wide, lone)]
    assert [one.shape for one in outlines] == [(0, 2), (12, 2)]
    drawn = beside(["one", "two"], [(30, 30), (70, 70)], outlines, Box(0, -100, 100, 0))
    assert [part for part in drawn if ">one<" in part or ">two<" in part]
