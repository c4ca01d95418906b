"""What the page says and draws of preference tuning."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import itertools
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from prefbench.leaderboard import Gathered
from prefbench.records import Answer, Record
from prefbench.report.collect import gather
from prefbench.report.effects.heat import BETWEEN
from prefbench.report.page.curves import Series, curves_drawing
from prefbench.report.page.effects import Effects, effects_of
from prefbench.report.page.page import write_page
from prefbench.stats.estimates import Estimate
from tests.browser import Visit
from tests.report.effects.made_up import (
    GRADIENTS,
    KL,
    MARGINS,
    TALK,
    Tuned,
    comparisons,
    cosines,
    divergences,
    gathered_of,
    gradients,
    judged,
    margins,
    shown_of,
    stored,
)
from tests.report.page.made import HOSTILE, NAME, Made, N

ZOO = (Tuned("sft", "sft", 1, 0.8), Tuned("dpo", "dpo", -3, -10), Tuned(NAME, None, 0.1, -1))
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 800}
SWEPT = (f"{TALK}_t0", f"{TALK}_t1")


def everything() -> Gathered:
    return gathered_of(
        ZOO,
        {
            MARGINS: {one.name: margins(one) for one in ZOO},
            GRADIENTS: {one.name: gradients(one) for one in ZOO},
            KL: {one.name: divergences(one) for one in ZOO},
            **{task: {one.name: comparisons(one) for one in ZOO} for task in (TALK, *SWEPT)},
        },
        groups={task: judged(task) for task in (TALK, *SWEPT)},
        cells={(one.name, GRADIENTS): f"cell {i}" for i, one in enumerate(ZOO)},
    )


@pytest.fixture(scope="module")
def effects(tmp_path_factory: pytest.TempPathFactory) -> Effects:
    folder = tmp_path_factory.mktemp("effects")
    for i in range(len(ZOO)):
        texts = [text.encode("utf-8", "replace").decode() for text in HOSTILE]
        store = stored(folder, f"cell {i}", [cosines(0, texts, texts[::-1], seed=i)])
    gathered = everything()
    readings = {"dpo": f"It rose. {HOSTILE[0]}", "sft": ""}
    found, notes = effects_of(gathered, shown_of(gathered), store, readings)
    assert notes == []
    return found


def test_every_kind_is_drawn_once_for_each_checkpoint(effects: Effects) -> None:
    kinds = dict(effects.kinds)
    assert list(kinds) == [
        "likelihood displacement", "log-prob by position", "gradient entanglement",
        "token gradients", "differences by step", "win rate by temperature",
        "reward and divergence",
    ]  # fmt: skip
    for kind in ("likelihood displacement", "gradient entanglement", "token gradients"):
        (sheet,) = kinds[kind]
        assert len(sheet.drawings) == len(ZOO)
    (sheet,) = kinds["reward and divergence"]
    assert [what for what, _ in sheet.drawings] == ["reward", "win rate"]
    assert effects.readings == (("dpo", f"It rose. {HOSTILE[0]}"),)


def test_drawings_are_plain_and_carry_no_style(effects: Effects) -> None:
    drawings = [d for _, sheets in effects.kinds for s in sheets for _, d in s.drawings]
    assert len(drawings) > 15
    for drawing in drawings:
        for part in ElementTree.fromstring(str(drawing)).iter():
            assert part.tag in {"svg", "g", "path", "text", "title", "rect", "circle"}
            assert not [name for name in part.attrib if name == "style" or name.startswith("on")]
        assert "nan" not in str(drawing)
        assert not set("\x1b\x07\u202e\u2066") & set(drawing)


def test_a_corner_has_the_share_of_its_pairs(effects: Effects) -> None:
    (sheet,) = dict(effects.kinds)["likelihood displacement"]
    ((_, drawing),) = (one for one in sheet.drawings if one[0] == "DPO")
    both_down = margins(ZOO[1])["both_down"].mean()
    (said,) = re.findall(r"both fell: (\d+)%", str(drawing))
    assert float(said) == pytest.approx(100 * both_down, abs=0.5)
    assert str(drawing).count("h0") == 300


def test_a_map_has_a_cell_for_each_two_tokens(effects: Effects) -> None:
    (sheet,) = dict(effects.kinds)["token gradients"]
    _, drawing = sheet.drawings[0]
    assert str(drawing).count("h13v13") == len(HOSTILE) ** 2
    assert "⟨ESC⟩" in str(drawing)
    assert "⟨U+202E⟩…" in str(drawing)


def test_shades_follow_the_sign_and_the_size(tmp_path: Path) -> None:
    one = ZOO[1]
    gathered = gathered_of(
        [one], {GRADIENTS: {one.name: gradients(one)}}, cells={(one.name, GRADIENTS): "cell"}
    )
    answer = Answer(0, texts=("a\u241fb", "c\u241fd"), cosines=(1.0, -1.0, 0.02, float("nan")))
    store = stored(tmp_path, "cell", [answer])
    found, _ = effects_of(gathered, shown_of(gathered), store, {})
    drawing = str(dict(found.kinds)["token gradients"][0].drawings[0][1])
    assert set(re.findall(r"heat-\w+", drawing)) == {"heat-p5", "heat-m5", "heat-0", "heat-none"}


def test_what_is_exactly_zero_has_no_place_on_a_logarithmic_axis() -> None:
    zero, some = Estimate(0.0, 0.0, 0.0, 9), Estimate(0.2, 0.1, 0.3, 9)
    mixed = str(curves_drawing([Series("a", "dpo", [(1, zero), (2, some)])], "t", log=True))
    assert mixed.count("<circle") == 1
    assert "exactly 0" not in mixed
    all_zero = str(curves_drawing([Series("a", "dpo", [(1, zero)])], "t", log=True))
    assert "exactly 0" in all_zero
    assert curves_drawing([], "t") is None


def test_nothing_is_drawn_where_nothing_was_measured() -> None:
    gathered = gathered_of(ZOO[:2], {"quiz": {one.name: {"acc": np.ones(9)} for one in ZOO[:2]}})
    assert effects_of(gathered, shown_of(gathered), None, {}) == (Effects((), ()), [])


# --- the whole page, from a results directory


def analysed(folder: Path) -> Path:
    """Pairs that two checkpoints scored, and what was worked out from them."""
    made = Made(folder)
    for name, method in (("sft", "sft"), ("dpo", "dpo"), (NAME, None)):
        made.checkpoint(name, method)
    items = [
        {"item": i, "cluster": str(i), "prompt": f"ask {i}", "continuations": [" good", " bad"],
         "fields": '{"chosen": [" good"], "rejected": [" bad"]}'}
        for i in range(N)
    ]  # fmt: skip
    for one in ZOO:
        answers = [
            Answer(i, logps=(-1.0, -2.0), greedy=(True, False), n_tokens=(1, 1), n_bytes=(5, 4))
            for i in range(N)
        ]
        scored = made.cell(
            one.name, "pairs", answers, [Record(i, "preferred", 1.0) for i in range(N)], items,
            shown=["agility_acc"], config={},
        )  # fmt: skip
        told = margins(one, N)
        records = [Record(i, name, float(v[i])) for name, v in told.items() for i in range(N)]
        cell = made.cell(one.name, "margins", [], records, items, shown=["ideal"], config={})
        manifest = made.store.manifest(cell)
        assert manifest is not None
        with made.store.claim(cell) as claimed:
            assert claimed is not None
            whole = {**manifest, "analysis": {"answers": scored}}
            claimed.seal([], records, {i: str(i) for i in range(N)}, whole)
        told = gradients(one, N)
        maps = [
            cosines(i, [t.encode("utf-8", "replace").decode() for t in HOSTILE], ["a", "b"])
            for i in range(N)
        ]
        records = [
            Record(i, name, float(v[i]))
            for name, v in told.items() for i in range(N) if np.isfinite(v[i])
        ]  # fmt: skip
        made.cell(one.name, "gradients", maps, records, items, shown=["cosine"], config={})
    return made.write()


@pytest.fixture(scope="module")
def page_of_effects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = analysed(tmp_path_factory.mktemp("analysed") / "results")
    file = tmp_path_factory.mktemp("page") / "page.html"
    notes = write_page(file, gather(results), results)
    assert notes == []  # the samples of what was worked out are those of the pairs
    return file


@pytest.mark.parametrize(
    ("scheme", "viewport"), list(itertools.product(("light", "dark"), (WIDE, NARROW)))
)
def test_the_part_stays_within_the_page_and_does_nothing(
    page_of_effects: Path, browser: Any, scheme: str, viewport: dict[str, int]
) -> None:
    with Visit(browser, page_of_effects, color_scheme=scheme, viewport=viewport) as visit:
        part = visit.page.locator("#effects")
        part.scroll_into_view_if_needed()
        assert part.locator("svg.plane").count() == 2 * len(ZOO)
        assert part.locator("svg.map").count() == len(ZOO)
        text = part.inner_text()
        assert "⟨ESC⟩" in text
        assert not set("\x1b\u202e") & set(text)
        assert visit.did_nothing_else()
        width = visit.page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= viewport["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_drawn_stands_out_from_the_page(
    page_of_effects: Path, browser: Any, scheme: str
) -> None:
    with Visit(browser, page_of_effects, color_scheme=scheme) as visit:
        fills = visit.page.evaluate(
            """() => ["heat-m5", "heat-p5", "heat-0"].map((name) => {
                const path = document.querySelector("#effects ." + name);
                return path ? getComputedStyle(path).fill : null;
            })"""
        )
        assert None not in fills[:2]
        assert len(set(fills)) == 3
        strokes = visit.page.evaluate(
            """() => [...document.querySelectorAll("#effects svg.plane .dots")]
                .map((path) => getComputedStyle(path).stroke)"""
        )
        assert "none" not in strokes
        assert len(set(strokes)) >= 4  # methods of one figure, bands of the other


def test_the_part_is_missing_where_there_is_nothing_to_say(tmp_path: Path) -> None:
    made = Made(tmp_path / "results")
    made.checkpoint("only", None)
    items = [{"item": 0, "cluster": "0", "prompt": "p", "continuations": [], "fields": "{}"}]
    made.cell("only", "quiz", [Answer(0, texts=("t",))], [Record(0, "acc", 1.0)], items,
              shown=["acc"], config={})  # fmt: skip
    results = made.write()
    gathered = dataclasses.replace(gather(results), measured=())
    write_page(tmp_path / "page.html", gathered, results)
    text = (tmp_path / "page.html").read_text()
    assert ('id="effects"' in text) == ('href="#effects"' in text)
    assert "Likelihood displacement" not in text


def test_tokens_of_a_map_are_no_text_that_a_checkpoint_wrote(page_of_effects: Path) -> None:
    packed = re.findall(r"[A-Za-z0-9+/=]{80,}", page_of_effects.read_text())
    opened = [gzip.decompress(base64.b64decode(one)) for one in packed if one.startswith("H4sI")]
    assert any(b"ask 1" in one for one in opened)
    assert not [one for one in opened if BETWEEN.encode() in one or b"u241f" in one]
