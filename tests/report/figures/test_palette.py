from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from prefbench.demo.recipes import RECIPES
from prefbench.records import METHODS
from prefbench.report.figures.palette import (
    COLOURS,
    LOOKS,
    MARKERS,
    colour_of,
    dash_of,
    look_of,
    marker_of,
)

TOGETHER = list(dict.fromkeys([*(recipe.method for recipe in RECIPES), "rrhf", "spin"]))

# In linear RGB at full strength. Source: Machado, Oliveira and Fernandes 2009, table 1,
# doi.org/10.1109/TVCG.2009.113.
SEEN_WITH = {
    "all cones": np.eye(3),
    "protanomaly": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranomaly": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanomaly": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}

# Source: Ottosson 2020, bottosson.github.io/posts/oklab.
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
OKABE_ITO = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
)  # fmt: skip


def linear(colour: str) -> np.ndarray:
    share = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def seen(colour: str, eye: str) -> np.ndarray:
    light = np.clip(SEEN_WITH[eye] @ linear(colour), 0, 1)
    return np.asarray(TO_LAB @ np.cbrt(TO_CONES @ light))


def closest(colours: list[str], eye: str) -> float:
    return min(
        float(np.linalg.norm(seen(a, eye) - seen(b, eye))) for a, b in combinations(colours, 2)
    )


def contrast(colour: str, ground: str) -> float:
    both = [float(np.dot([0.2126, 0.7152, 0.0722], linear(one))) for one in (colour, ground)]
    return (max(both) + 0.05) / (min(both) + 0.05)


def test_the_distance_knows_what_eyes_confuse() -> None:
    red, green = "#a05000", "#607000"
    assert closest([red, green], "deuteranomaly") < closest([red, green], "all cones") / 2
    assert closest(["#ffffff", "#000000"], "all cones") == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("eye", SEEN_WITH)
@pytest.mark.parametrize("dark", [False, True])
def test_methods_that_are_seen_together_have_colours_that_all_eyes_tell_apart(
    eye: str, dark: bool
) -> None:
    colours = [colour_of(method, dark=dark) for method in TOGETHER]
    assert len(set(colours)) == len(TOGETHER) == 10
    assert closest(colours, eye) > 0.078


def test_colours_for_eyes_without_red_or_green_beat_the_usual_palette() -> None:
    ours = [colour_of(method) for method in TOGETHER]
    for eye in ("protanomaly", "deuteranomaly"):
        assert closest(ours, eye) > closest(list(OKABE_ITO), eye)


def test_every_known_method_has_a_shape_of_its_own_and_so_survives_grey() -> None:
    assert set(LOOKS) == set(METHODS)
    assert len({marker_of(method) for method in METHODS}) == len(METHODS)
    assert {marker_of(method) for method in METHODS} <= set(MARKERS)


def test_colours_stand_out_from_their_page() -> None:
    for colour in COLOURS.values():
        assert contrast(colour.light, "#ffffff") >= 3
        assert contrast(colour.dark, "#161a1f") >= 3.5


def test_shapes_are_equally_heavy() -> None:
    for outline in MARKERS.values():
        x, y = np.array(outline).T
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        assert area == pytest.approx(np.pi, rel=1e-3)


def test_a_method_that_nobody_knows_has_its_look_for_good() -> None:
    # To the letter: a change here would change the colours of figures that are printed already.
    found = {name: (colour_of(name), marker_of(name), dash_of(name)) for name in ("cpo", "my run")}
    assert found == {
        "cpo": ("#af9106", "bar", ()),
        "my run": ("#74397d", "square", (8, 2)),
    }
    looks = {look_of(f"unknown {i}") for i in range(300)}
    assert len(looks) > 200
    assert not looks & set(LOOKS.values())
    assert look_of("\ud800")  # what a file system may hold


def test_the_palette_draws_nothing_itself() -> None:
    code = (
        "import sys, prefbench.report.figures.palette\n"
        "assert not {'matplotlib', 'numpy', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
