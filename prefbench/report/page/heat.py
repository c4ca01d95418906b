"""Cosines of single tokens' gradients as a map: a path for each shade, tokens as text."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from prefbench.report.effects.heat import Heat
from prefbench.report.page.sheets import LETTER
from prefbench.report.page.svg import element, joined

SHADES = 5
"""On either side of 0: a cosine is shown to a tenth of the scale."""
_CELL = 13.0


def heat_drawing(heat: Heat) -> Markup:
    """One map: chosen tokens downwards, rejected tokens to the right."""
    n, m = heat.cosines.shape
    left = 8 + LETTER * max(map(len, heat.chosen))
    top = 8 + LETTER * max(map(len, heat.rejected))
    cells: dict[str, list[str]] = {}
    for i in range(n):
        for j in range(m):
            spot = f"M{left + _CELL * j:.4g} {top + _CELL * i:.4g}h{_CELL:g}v{_CELL:g}h-{_CELL:g}z"
            cells.setdefault(_shade(float(heat.cosines[i, j])), []).append(spot)
    known = heat.cosines[np.isfinite(heat.cosines)]
    about = f"cosines from {known.min():.2f} to {known.max():.2f}" if known.size else "no cosine"
    parts = [element("title", about.replace("-", "−"))]
    parts += [
        element("path", d="".join(spots), class_=f"heat {shade}")
        for shade, spots in sorted(cells.items())
    ]
    for i, token in enumerate(heat.chosen):
        y = top + _CELL * (i + 0.5) + 4
        parts.append(element("text", token, x=left - 4, y=y, class_="figure token"))
    for j, token in enumerate(heat.rejected):
        x, y = left + _CELL * (j + 0.5) + 4, top - 4
        turn = f"rotate(-90 {x:g} {y:g})"
        parts.append(element("text", token, x=x, y=y, transform=turn, class_="token"))
    width, height = left + m * _CELL + 2, top + n * _CELL + 2
    return element(
        "svg", *parts, viewBox=f"0 0 {width:g} {height:g}", width=width, class_="drawing map",
        role="img",
    )  # fmt: skip


def key_of_heat() -> Markup:
    """The shades from -1 to 1."""
    spots = [
        element(
            "path", d=f"M{12 * at} 0h12v10h-12z", class_=f"heat {_shade((at - SHADES) / SHADES)}"
        )
        for at in range(2 * SHADES + 1)
    ]  # fmt: skip
    width = 12 * (2 * SHADES + 1)
    scale = element("svg", *spots, viewBox=f"0 0 {width} 10", class_="scale", aria_hidden="true")
    return joined([element("span", "cosine −1"), scale, element("span", "1")])


def _shade(cosine: float) -> str:
    """The class of a cosine: heat-0 is none, heat-m5 is -1, heat-p5 is 1."""
    if not math.isfinite(cosine):
        return "heat-none"
    step = round(SHADES * max(-1.0, min(1.0, cosine)))
    return f"heat-{'m' if step < 0 else 'p' if step > 0 else ''}{abs(step)}"
