from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.patches import Polygon

from prefbench.boards.scored import board_of
from prefbench.boards.shown import Shown, show
from prefbench.errors import InputError
from prefbench.report.collect import gather
from prefbench.report.figures.draw import draw_figures, figures_of
from prefbench.report.figures.palette import colour_of
from prefbench.report.figures.sheet import SPREAD, TALLEST, Drawn
from prefbench.stats.estimates import Estimate
from tests.report.figures.looking import is_legible, marks, named, texts, titled
from tests.report.figures.made_up import HOSTILE, PAIRS, TRAINING, ZOO, Point, make_up

DAMAGED = Point("noise", "noise", None, 900.0, -3.0, 0.5, 0.0)


def drawn(results: Path, **options: object) -> tuple[Drawn, Shown]:
    gathered = gather(results)
    shown = show(board_of(gathered, n_resamples=1000, **options))  # type: ignore[arg-type]  # tests
    return figures_of(gathered, shown), shown


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Drawn, Shown]:
    return drawn(make_up(tmp_path_factory.mktemp("zoo"), (*ZOO, DAMAGED)))


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Drawn, Shown]:
    return drawn(make_up(tmp_path_factory.mktemp("training"), TRAINING))


def column(shown: Shown, task: str, metric: str):
    return next(
        c for c in shown.columns if c.group.task == task and c.metric.name.startswith(metric)
    )


# --- what is drawn are the table's numbers


def test_points_lie_at_the_tables_perplexity_and_agility(zoo: tuple[Drawn, Shown]) -> None:
    found, shown = zoo
    axes = titled(named(found, "perplexity_agility"), PAIRS)
    assert axes.get_xscale() == "log"
    points = {str(m.get_color()): (m.get_xdata()[0], m.get_ydata()[0]) for m in marks(axes)}
    for row in shown.board.rows:
        values = [
            shown.entry(row, column(shown, PAIRS, name)).score.estimate.value
            for name in ("perplexity", "agility")
        ]
        assert points[colour_of(row.method or "")] == pytest.approx(values)


def test_an_ellipse_reaches_beyond_each_values_own_interval(zoo: tuple[Drawn, Shown]) -> None:
    """That both values lie inside is a stronger claim than that each does."""
    found, shown = zoo
    axes = titled(named(found, "perplexity_agility"), PAIRS)
    outlines = [p for p in axes.patches if isinstance(p, Polygon) and p.get_fill()]
    assert len(outlines) == len(shown.board.rows)
    for row, outline in zip(shown.board.rows, outlines, strict=True):
        low, high = outline.get_xy().min(axis=0), outline.get_xy().max(axis=0)
        for axis, name in enumerate(("perplexity", "agility")):
            estimate = shown.entry(row, column(shown, PAIRS, name)).score.estimate
            one, both = estimate.high - estimate.low, high[axis] - low[axis]
            # 2.45 standard deviations against 1.96.
            assert 1.1 < both / one < 1.4


def test_the_reference_is_marked(zoo: tuple[Drawn, Shown]) -> None:
    found, _ = zoo
    for name in ("perplexity_agility",):
        assert "SFT (baseline)" in [text.get_text() for text in texts(named(found, name))]


def test_win_rates_stand_around_one_half(zoo: tuple[Drawn, Shown]) -> None:
    found, shown = zoo
    figure = named(found, "win_rates")
    raw, equal = titled(figure, "win rate"), titled(figure, "at equal length")
    assert raw.get_xlim() == equal.get_xlim()
    for axes, metric in ((raw, "win_rate"), (equal, "lc_win_rate")):
        assert 50.0 in [line.get_xdata()[0] for line in axes.lines]
        values = {m.get_color(): m.get_xdata()[0] for m in marks(axes)}
        for row in shown.board.rows[1:]:
            entry = shown.entry(row, column(shown, "made_up_wins", metric))
            expected = 100 * entry.score.estimate.value
            assert values[colour_of(row.method or "")] == pytest.approx(expected)


def test_a_value_without_an_interval_does_not_look_sure(tmp_path: Path) -> None:
    found, shown = drawn(make_up(tmp_path, ZOO, n_items=15))
    figure = named(found, "win_rates")
    where = column(shown, "made_up_wins", "lc_win_rate")
    rows = [row for row in shown.board.rows if shown.entry(row, where)]
    assert all(math.isnan(shown.entry(row, where).score.estimate.low) for row in rows)
    asked = {
        metric: [text.get_text() for text in titled(figure, metric).texts].count("?")
        for metric in ("win rate", "at equal length")
    }
    assert asked == {"win rate": 0, "at equal length": len(rows)}


def test_a_forest_fills_what_stands_after_correction(zoo: tuple[Drawn, Shown]) -> None:
    found, shown = zoo
    figure = named(found, "differences")
    assert len(figure.axes) == 3  # the baseline has no win rate
    seen = set()
    for task, metric, scale in ((PAIRS, "perplexity", 1), ("made_up_quiz", "acc", 100)):
        axes = titled(figure, task, metric)
        assert 0.0 in [line.get_xdata()[0] for line in axes.lines]
        where = column(shown, task, metric)
        rows = [row for row in shown.board.rows if row.name != "sft"]
        for at, (row, dot) in enumerate(zip(rows, marks(axes), strict=True)):
            difference = shown.entry(row, where).difference
            filled = shown.verdict(row, where) in ("better", "worse")
            seen.add(filled)
            assert dot.get_xdata()[0] == pytest.approx(scale * difference.value)
            assert dot.get_ydata()[0] == at
            assert (dot.get_markerfacecolor() != "white") == filled
            bar = [line.get_xdata() for line in axes.lines if list(line.get_ydata()) == [at, at]]
            ends = [scale * difference.low, scale * difference.high]
            assert any(np.allclose(ends, x) for x in bar)
    assert seen == {True, False}


def test_a_caption_says_what_was_corrected_and_what_is_not_paired(tmp_path: Path) -> None:
    gathered = gather(make_up(tmp_path, ZOO))
    at = next(i for i, one in enumerate(gathered.measured) if one.group == "made_up_quiz")
    imported = dataclasses.replace(
        gathered.measured[at],
        quantities={},
        given={"acc": Estimate(0.4, 0.3, 0.5, 80, se=0.05)},
    )
    others = [one for i, one in enumerate(gathered.measured) if i != at]
    for measured, unpaired in ((gathered.measured, False), ((*others, imported), True)):
        now = dataclasses.replace(gathered, measured=tuple(measured))
        shown = show(board_of(now, n_resamples=200), correction="bh")
        caption = next(
            one.caption for one in figures_of(now, shown).drawings if one.name == "accuracies"
        )
        assert f"Hochberg's correction for the {shown.n_comparisons} comparisons" in caption
        assert ("not paired" in caption) == unpaired


def test_accuracies_are_differences_in_points(zoo: tuple[Drawn, Shown]) -> None:
    found, shown = zoo
    axes = titled(named(found, "accuracies"), "made_up_quiz")
    assert axes.get_xlabel() == "points"
    dpo = next(m for m in marks(axes) if m.get_color() == colour_of("dpo"))
    entry = shown.entry(shown.board.rows[1], column(shown, "made_up_quiz", "acc"))
    assert dpo.get_xdata()[0] == pytest.approx(100 * entry.difference.value)


def test_steps_are_lines_with_the_baseline_across(training: tuple[Drawn, Shown]) -> None:
    found, shown = training
    figure = named(found, "training_steps")
    assert len(figure.axes) == len(shown.columns)
    axes = titled(figure, "made_up_quiz", "acc")
    lines = {line.get_color(): line for line in axes.lines if len(line.get_xdata()) == 5}
    assert set(lines) == {colour_of(method) for method in ("dpo", "dpop", "ipo")}
    where = column(shown, "made_up_quiz", "acc")
    steps = [row for row in shown.board.rows if row.method == "dpo"]
    dpo = lines[colour_of("dpo")]
    assert list(dpo.get_xdata()) == [row.step for row in steps] == [100, 200, 300, 400, 500]
    assert list(dpo.get_ydata()) == pytest.approx(
        [100 * shown.entry(row, where).score.estimate.value for row in steps]
    )
    base = 100 * shown.entry(shown.board.rows[0], where).score.estimate.value
    assert any(set(line.get_ydata()) == {base} for line in axes.lines)


def test_of_a_run_with_steps_the_other_figures_show_the_last(
    training: tuple[Drawn, Shown],
) -> None:
    found, _ = training
    axes = titled(named(found, "perplexity_agility"), PAIRS)
    assert len(marks(axes)) == 4
    captions = {one.name: one.caption for one in found.drawings}
    assert "the last is shown (12 are not)" in captions["differences"]


# --- how it looks


@pytest.mark.parametrize("which", ["zoo", "training"])
def test_figures_fit_a_page_and_no_word_is_cut_tiny_or_upon_another(
    which: str, request: pytest.FixtureRequest
) -> None:
    found, _ = request.getfixturevalue(which)
    for one in found.drawings:
        is_legible(one)


def test_a_method_looks_the_same_in_every_figure_and_company(tmp_path: Path) -> None:
    companies = (ZOO, (ZOO[0], ZOO[2]), (*TRAINING[:1], *TRAINING[6:11]))
    found = [drawn(make_up(tmp_path / str(i), points))[0] for i, points in enumerate(companies)]
    looks = [
        line.get_marker().vertices.tobytes()
        for one in found
        for drawing in one.drawings
        for axes in drawing.figure.axes
        for line in axes.lines
        if line.get_color() == colour_of("ipo") and line.get_marker() not in ("None", "")
    ]
    assert len(looks) > 10
    assert len(set(looks)) == 1


# --- files


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    results = make_up(tmp_path / "results", TRAINING)
    kinds = ("pdf", "svg", "png")
    first = draw_figures(results, tmp_path / "first", formats=kinds)
    assert len(first) == 5 * len(kinds) + 1
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\n")
    code = (
        "from pathlib import Path\n"
        "from prefbench.report.figures.draw import draw_figures\n"
        f"draw_figures(Path({str(results)!r}), Path('second'), formats={kinds!r})"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1", "TZ": "Asia/Tokyo",
             "PYTHONPATH": str(Path(__file__).parents[3])},
        check=True,
    )  # fmt: skip
    for path in first:
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def test_a_pdf_carries_truetype_fonts_and_its_caption(tmp_path: Path) -> None:
    paths = draw_figures(make_up(tmp_path / "results", ZOO), tmp_path / "out")
    for path in paths[:-1]:
        content = path.read_bytes()
        assert content.startswith(b"%PDF")
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        assert b"/Subject" in content
        assert b"/CreationDate" not in content
    captions = paths[-1].read_text()
    assert "Holm's correction" in captions
    assert captions.count("\n\n") == len(paths) - 2


def test_hostile_names_are_drawn_as_they_are_and_do_nothing(tmp_path: Path) -> None:
    points = (*ZOO[:2], Point(HOSTILE, HOSTILE, None, 4.0, 1.0, 0.5, 0.6), Point(HOSTILE + "2", None, None, 4.5, 1.2, 0.5, 0.6))  # fmt: skip  # noqa: E501
    results = make_up(tmp_path / "results", points, tasks=[f"{PAIRS} $x_{{$ {HOSTILE}"])
    found, _ = drawn(results, baseline=HOSTILE)
    words = " ".join(t.get_text() for one in found.drawings for t in texts(one.figure))
    assert "evil $\\fr" in words
    assert not any(t.get_parse_math() for one in found.drawings for t in texts(one.figure))
    paths = draw_figures(results, tmp_path / "out", formats=("pdf", "svg", "png"), baseline=HOSTILE)
    for path in paths:
        if path.suffix == ".svg":
            tags = {tag.tag.rpartition("}")[2] for tag in ElementTree.parse(path).iter()}
            assert "script" not in tags
            assert "\x1b" not in path.read_text()
    assert "\u202e" not in paths[-1].read_text()


# --- where there is little


@pytest.mark.parametrize(
    ("points", "names"),
    [
        (ZOO[:1], {"perplexity_agility"}),
        ([Point("dpo", "dpo", None, 5.0, 2.0, 0.3, 0.7)], {"perplexity_agility", "win_rates"}),
        ([Point("dpo", "dpo", None, None, 0, 0.3), Point("sft", "sft", None, None, 0, 0.5)],
         {"accuracies", "differences"}),
        ([Point("dpo", "dpo", None, None, 0, 0.3), Point("ipo", "ipo", None, None, 0, 0.5)], set()),
        ([Point("sft", "sft", None, math.nan), Point("dpo", "dpo", None, math.nan)], set()),
        ([Point("sft", "sft", None, 3.0), Point("dpo", "dpo", None, math.nan)],
         {"perplexity_agility"}),
        ([Point("sft", "sft", None, 1e30), Point("dpo", "dpo", None, 2.0)],
         {"perplexity_agility", "differences"}),
        ([Point("sft", "sft", state="refused"), Point("dpo", "dpo", state="incomplete")], set()),
        ([Point("dpo/checkpoint-1", "dpo", 1, 3.0), Point("dpo", "dpo", 2, 3.0)],
         {"perplexity_agility", "training_steps"}),
        ([Point("dpo/checkpoint-1", "dpo", 1, math.nan), Point("dpo", "dpo", 2, 3.0)],
         {"perplexity_agility"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("n_items", [1, 40])
def test_a_figure_with_nothing_to_show_is_left_out_with_a_notice(
    points: Sequence[Point], names: set[str], n_items: int, tmp_path: Path
) -> None:
    results = make_up(tmp_path / "results", points, n_items=n_items)
    told: list[str] = []
    paths = draw_figures(results, tmp_path / "out", formats=("svg",), tell=told.append)
    assert {path.stem for path in paths} - {"captions"} == names
    assert len(told) == 5 - len(names)
    assert all("no figure" in notice for notice in told)


def test_no_panel_is_empty(tmp_path: Path) -> None:
    """A task that one checkpoint has, and not the baseline, has no differences."""
    points = [ZOO[0]._replace(accuracy=None), *ZOO[1:]]
    found, _ = drawn(make_up(tmp_path, points))
    for one in found.drawings:
        assert all(marks(axes) for axes in one.figure.axes), one.name


def test_many_panels_are_spread_over_two_columns_and_pages(tmp_path: Path) -> None:
    found, _ = drawn(make_up(tmp_path, ZOO[:2], tasks=[f"{PAIRS}_{i}" for i in range(12)]))
    sheets = [one for one in found.drawings if one.name.startswith("perplexity_agility")]
    assert [one.name for one in sheets] == ["perplexity_agility_1", "perplexity_agility_2"]
    assert sum(len(one.figure.axes) for one in sheets) == 13
    assert all(one.figure.get_size_inches()[0] == SPREAD for one in sheets)
    assert all(one.figure.get_size_inches()[1] <= TALLEST for one in found.drawings)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'gif'; there are: pdf, svg, png"):
        draw_figures(make_up(tmp_path / "results", ZOO), tmp_path / "out", formats=("gif",))
    assert not (tmp_path / "out").exists()
