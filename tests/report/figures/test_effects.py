"""Figures of what preference tuning did: they show the numbers, and can be read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from prefbench.leaderboard import Gathered, Group
from prefbench.report.figures.aligned import RANDOM, differences_by_step
from prefbench.report.figures.draw import FAMILIES, STORED, figures_of
from prefbench.report.figures.entanglement import entangled
from prefbench.report.figures.frontier import reward_and_divergence
from prefbench.report.figures.heat import token_cosines
from prefbench.report.figures.palette import colour_of
from prefbench.report.figures.positions import positions
from prefbench.report.figures.quadrants import quadrants
from prefbench.report.figures.sheet import Drawn, save, typeset
from prefbench.report.figures.temperatures import win_rates_by_temperature
from prefbench.store import Store
from tests.report.effects.made_up import (
    GRADIENTS,
    KL,
    MARGINS,
    TALK,
    ZOO,
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
from tests.report.figures.looking import is_legible, marks, named, texts, titled
from tests.report.figures.made_up import HOSTILE

TEMPERATURES = {0.0: f"{TALK}_t0", 0.5: f"{TALK}_t0.5", 1.0: f"{TALK}_t1"}
STEPS = tuple(
    Tuned(f"dpo/checkpoint-{step}", "dpo", -0.03 * step, -0.1 * step, step=step)
    for step in (20, 60)
)
TOKENS = [" Tom", " has", " 3", " +", " 5", " =", " 8", " apples", "."]
EVIL = ["\x1b[31mred", "\u202eevil\u2066", "     ", "x" * 300, "日本", "\n", "", "$\\frac{1}{$"]


def all_of_it(zoo: Sequence[Tuned] = ZOO) -> Gathered:
    groups = {TALK: judged(TALK), **{n: judged(n) for n in TEMPERATURES.values()}}
    return gathered_of(
        (*zoo, *STEPS),
        {
            MARGINS: {one.name: margins(one) for one in zoo},
            GRADIENTS: {one.name: gradients(one) for one in zoo},
            KL: {one.name: divergences(one) for one in (*zoo, *STEPS)},
            TALK: {one.name: comparisons(one) for one in (*zoo, *STEPS)},
            **{
                name: {one.name: comparisons(one, temperature=t) for one in zoo}
                for t, name in TEMPERATURES.items()
            },
        },
        groups=groups,
        cells={(one.name, GRADIENTS): f"cell {i}" for i, one in enumerate(zoo)},
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("results")
    for i in range(len(ZOO)):
        answers = [cosines(3, TOKENS, TOKENS[1:], seed=i), cosines(5, TOKENS * 4, TOKENS, seed=i)]
        found = stored(folder, f"cell {i}", answers)
    return found


@pytest.fixture(scope="module")
def drawn(store: Store) -> Drawn:
    gathered = all_of_it()
    shown = shown_of(gathered)
    with typeset():
        found = [family(gathered, shown) for family in FAMILIES[5:]]
        found += [family(gathered, shown, store) for family in STORED]
    return Drawn(tuple(drawing for one in found for drawing in one.drawings))


def drawn_by(family: Callable[..., Drawn], gathered: Gathered, *more: Store) -> Drawn:
    with typeset():
        return family(gathered, shown_of(gathered), *more)


def test_every_family_draws_and_can_be_read(drawn: Drawn) -> None:
    names = {one.name for one in drawn.drawings}
    assert names == {
        "displacement", "log_prob_by_position", "entanglement", "differences_by_step",
        "win_rate_by_temperature", "reward_and_divergence", "token_cosines",
    }  # fmt: skip
    for one in drawn.drawings:
        is_legible(one)


def test_points_and_corners_are_the_pairs(drawn: Drawn) -> None:
    axes = titled(named(drawn, "displacement"), "DPOP")
    found = margins(next(one for one in ZOO if one.method == "dpop"))
    cloud, middle = marks(axes)
    unit = 1.0  # of both axes, of the size of the middle log-ratio
    assert np.allclose(unit * np.sinh(cloud.get_xdata()), found["delta_chosen"])
    assert np.allclose(unit * np.sinh(cloud.get_ydata()), found["delta_rejected"])
    assert unit * math.sinh(middle.get_xdata()[0]) == pytest.approx(found["delta_chosen"].mean())
    corners = {
        (text.get_ha(), text.get_va()): float(text.get_text().split("%")[0]) for text in axes.texts
    }
    for place, name in (
        (("right", "bottom"), "ideal"), (("left", "bottom"), "both_down"),
        (("right", "top"), "both_up"), (("left", "top"), "inverted"),
    ):  # fmt: skip
        assert corners[place] == pytest.approx(100 * found[name].mean(), abs=0.5)


def test_the_quarter_that_training_is_to_fill_is_shaded(drawn: Drawn) -> None:
    for name, right, up in (("displacement", True, False), ("entanglement", False, False)):
        axes = titled(named(drawn, name), "DPOP")
        (shade,) = (one for one in axes.patches if isinstance(one, Rectangle))
        x, y = axes.lines[0].get_xdata()[0], axes.lines[1].get_ydata()[0]
        box = shade.get_bbox()
        assert (box.x0 + box.x1 > 2 * x) == right
        assert (box.y0 + box.y1 > 2 * y) == up


def test_all_checkpoints_of_a_task_share_their_axes(drawn: Drawn) -> None:
    for name in ("displacement", "entanglement"):
        figure = named(drawn, name)
        assert len(figure.axes) == len(ZOO)
        assert len({(*axes.get_xlim(), *axes.get_ylim()) for axes in figure.axes}) == 1


def test_many_pairs_are_thinned_and_the_caption_says_so() -> None:
    zoo = ZOO[:2]
    gathered = gathered_of(zoo, {MARGINS: {one.name: margins(one, 5000) for one in zoo}})
    (drawing,) = drawn_by(quadrants, gathered).drawings
    assert all(len(marks(axes)[0].get_xdata()) == 600 for axes in drawing.figure.axes)
    assert "600 pairs are drawn; shares are of all" in drawing.caption


def test_wild_values_have_an_axis_on_which_the_others_are_still_seen() -> None:
    found = {one.name: margins(one) for one in ZOO[:3]}
    found["sft"]["delta_chosen"][0] = -4000.0
    gathered = gathered_of(ZOO[:3], {MARGINS: found})
    (drawing,) = drawn_by(quadrants, gathered).drawings
    is_legible(drawing)
    assert "logarithmic beyond" in drawing.caption
    cloud = marks(titled(drawing.figure, "ExMATE"))[0]
    low, high = drawing.figure.axes[0].get_xlim()
    assert np.ptp(cloud.get_xdata()) > 0.08 * (high - low)


def test_both_conditions_are_the_lines_at_one(drawn: Drawn) -> None:
    axes = titled(named(drawn, "entanglement"), "IPO")
    found = gradients(next(one for one in ZOO if one.method == "ipo"))
    (share,) = (t for t in axes.texts if (t.get_ha(), t.get_va()) == ("left", "bottom"))
    product = found["inner"]
    both = (product < found["norm_chosen"] ** 2) & (product < found["norm_rejected"] ** 2)
    assert float(share.get_text().split("%")[0]) == pytest.approx(100 * both.mean(), abs=0.5)
    x, y = axes.lines[0].get_xdata()[0], axes.lines[1].get_ydata()[0]
    assert x == y == pytest.approx(math.asinh(1.0))
    corners = {(text.get_ha(), text.get_va()) for text in axes.texts}
    assert ("right", "top") not in corners  # where no pair can lie
    words = [text.get_text() for text in texts(named(drawn, "entanglement"))]
    assert {"below 0.1", "0.1 to 0.5", "from 0.5 on"} <= set(words)


def test_positions_are_per_token_beside_the_reference(drawn: Drawn) -> None:
    axes = titled(named(drawn, "log_prob_by_position"), "rejected, at the first difference")
    for at, (one, dot) in enumerate(zip(ZOO, marks(axes), strict=True)):
        found = margins(one)
        own = found["rejected_at"].sum() / found["n_rejected_at"].sum()
        before = own - found["delta_rejected_at"].sum() / found["n_rejected_at"].sum()
        assert dot.get_xdata()[0] == pytest.approx(own)
        strokes = [
            line.get_xdata()[0]
            for line in axes.lines
            if list(line.get_ydata()) == [at - 0.5, at + 0.5]
        ]
        assert strokes == [pytest.approx(before)]


def test_steps_are_means_and_what_is_zero_lies_on_the_edge(drawn: Drawn) -> None:
    figure = named(drawn, "differences_by_step")
    assert RANDOM in [text.get_text() for text in texts(figure)]
    axes = titled(figure, "probability difference")
    assert axes.get_yscale() == "log"
    (line,) = (one for one in axes.lines if one.get_color() == colour_of("dpo"))
    found = gradients(next(one for one in ZOO if one.method == "dpo"))
    assert list(line.get_xdata()) == [2, 3, 4, 5, 6, 7, 8]
    assert list(line.get_ydata()) == pytest.approx(
        [np.nanmean(found[f"probability_difference_l2@{t}"]) for t in range(2, 9)]
    )
    (zeros,) = (one for one in marks(axes))
    assert list(zeros.get_xdata()) == [1]
    assert zeros.get_ydata()[0] == axes.get_ylim()[0]


def test_a_frontier_joins_the_steps_of_a_run_and_names_its_last(drawn: Drawn) -> None:
    figure = named(drawn, "reward_and_divergence")
    reward, rate = figure.axes
    assert (reward.get_ylabel(), rate.get_ylabel()) == ("reward ↑", "win rate ↑ (%)")
    (line,) = (one for one in reward.lines if len(one.get_xdata()) == 3)
    assert line.get_color() == colour_of("dpo")
    rows = [*STEPS, next(one for one in ZOO if one.name == "dpo")]
    assert list(line.get_xdata()) == pytest.approx([divergences(o)["kl"].mean() for o in rows])
    assert list(line.get_ydata()) == pytest.approx([comparisons(o)["reward"].mean() for o in rows])
    words = [text.get_text() for text in reward.texts]
    assert words.count("DPO") == 1
    (caption,) = (one.caption for one in drawn.drawings if one.name == "reward_and_divergence")
    assert "matched by the tasks' names" in caption


def test_a_frontier_of_the_same_answers_says_so(tmp_path: Path) -> None:
    zoo = ZOO[:3]
    store = Store(tmp_path)
    cells = {}
    for i, one in enumerate(zoo):
        for group, facts in (
            ("far", {"analysis": {"answers": f"answers {i}"}}),
            ("asked", {"judging": {"answers": f"answers {i}"}}),
        ):
            cells[one.name, group] = f"{group} {i}"
            with store.claim(f"{group} {i}") as claimed:
                assert claimed is not None
                claimed.seal([], [], {}, facts)
    gathered = gathered_of(
        zoo,
        {
            "far": {one.name: divergences(one) for one in zoo},
            "asked": {one.name: comparisons(one) for one in zoo},
        },
        groups={"asked": judged("asked")},
        cells=cells,
    )
    shown = shown_of(gathered)
    assert not reward_and_divergence(gathered, shown).drawings  # by their names, they are strangers
    (drawing,) = reward_and_divergence(gathered, shown, store).drawings
    assert "Both values are of the same answers." in drawing.caption


def test_win_rates_stand_at_their_temperatures(drawn: Drawn) -> None:
    (axes,) = named(drawn, "win_rate_by_temperature").axes
    (line,) = (one for one in axes.lines if one.get_color() == colour_of("slic"))
    slic = next(one for one in ZOO if one.name == "slic")
    assert list(line.get_ydata()) == pytest.approx(
        [100 * comparisons(slic, temperature=t)["win"].mean() for t in TEMPERATURES]
    )
    assert list(np.round(np.diff(line.get_xdata()), 6)) == [0.5, 0.5]
    assert abs(line.get_xdata()[0]) < 0.25


def test_a_map_has_the_cosines_and_tokens_of_one_pair(drawn: Drawn, store: Store) -> None:
    figure = named(drawn, "token_cosines")
    axes = figure.axes[0]
    (mesh,) = (one for one in axes.collections if isinstance(one, QuadMesh))
    (answer,) = (one for one in store.answers("cell 0") if one.item == 3)  # the other is too long
    assert np.allclose(mesh.get_array().ravel(), answer.cosines)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == [token.replace(" ", "·") for token in TOKENS]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-1, 1)


def test_hostile_tokens_and_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    zoo = (Tuned(HOSTILE, None, -1, -2), Tuned("dpo", "dpo", -1, -2))
    task = f"task $x_{{$ {HOSTILE}"
    gathered = dataclasses.replace(
        gathered_of(
            zoo, {task: {one.name: {**margins(one), **gradients(one, 300)} for one in zoo}}
        ),
        cells={(one.name, task): f"cell {i}" for i, one in enumerate(zoo)},
    )
    for i in range(2):
        store = stored(tmp_path / "results", f"cell {i}", [cosines(0, EVIL, EVIL[::-1])])
    found = figures_of(gathered, shown_of(gathered), store)
    assert len(found.drawings) == 5
    for i, one in enumerate(found.drawings):
        is_legible(one)
        assert not any(text.get_parse_math() for text in texts(one.figure))
        with typeset():
            save(one, tmp_path / f"{i}.svg")
        assert not set("\x1b\u202e\u2066") & set((tmp_path / f"{i}.svg").read_text())
    words = [text.get_text() for text in texts(one.figure)]
    assert "⟨LF⟩" in words
    assert "⟨empty⟩" in words
    assert "xxxx…xxxx" in words


def test_tokens_that_do_not_fit_their_cosines_are_told_not_drawn(tmp_path: Path) -> None:
    one = ZOO[3]
    gathered = gathered_of(
        [one], {GRADIENTS: {one.name: gradients(one)}}, cells={(one.name, GRADIENTS): "cell"}
    )
    broken = dataclasses.replace(cosines(0, TOKENS, TOKENS), texts=("one", "two"))
    store = stored(tmp_path, "cell", [broken])
    found = token_cosines(gathered, shown_of(gathered), store)
    assert found.drawings == ()
    assert "1 answers keep tokens that their cosines do not fit" in found.notices[0]


@pytest.mark.parametrize("n", [1, 2])
def test_a_single_pair_and_values_that_are_missing_are_drawn_too(n: int) -> None:
    zoo = ZOO[:3]
    found = {one.name: {**margins(one, n), **gradients(one, n)} for one in zoo}
    for values in found["exmate"].values():
        values[:] = np.nan
    gathered = gathered_of(zoo, {MARGINS: found})
    drawn = figures_of(gathered, shown_of(gathered))
    names = {one.name for one in drawn.drawings}
    assert names >= {"displacement", "log_prob_by_position", "entanglement", "differences_by_step"}
    for one in drawn.drawings:
        is_legible(one)
    figure = named(drawn, "displacement")
    assert len(figure.axes) == 2  # ExMATE has no pair


def test_nothing_is_drawn_and_nothing_said_where_nothing_was_measured(tmp_path: Path) -> None:
    gathered = gathered_of(ZOO[:2], {"quiz": {one.name: {"acc": np.ones(9)} for one in ZOO[:2]}})
    shown = shown_of(gathered)
    for family in (
        quadrants, positions, entangled, differences_by_step, win_rates_by_temperature,
        reward_and_divergence, token_cosines,
    ):  # fmt: skip
        assert family(gathered, shown) == Drawn()


def test_groups_of_one_name_are_not_mistaken(tmp_path: Path) -> None:
    """A divergence of other prompts than those judged is no frontier."""
    zoo = ZOO[:2]
    gathered = gathered_of(
        zoo,
        {
            KL: {one.name: divergences(one, 50) for one in zoo},
            TALK: {one.name: comparisons(one, 60) for one in zoo},
        },
        groups={TALK: Group(TALK, TALK, opponent="sft", judge="toy", shown=("win_rate",))},
    )
    assert reward_and_divergence(gathered, shown_of(gathered)).drawings == ()
