"""What figures of preference tuning are made of."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from prefbench.boards.scored import board_of
from prefbench.report.effects.estimated import Ratio, estimated, members_with
from prefbench.report.effects.frontier import frontiers
from prefbench.report.effects.heat import LONGEST, MOST, heats, token_label
from prefbench.report.effects.planes import displacement, entanglement
from prefbench.report.effects.scales import Scale, scale_around, unit_of
from prefbench.report.effects.temperatures import sweeps
from tests.report.effects.made_up import (
    GRADIENTS,
    KL,
    MARGINS,
    TALK,
    ZOO,
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


def test_values_are_those_of_the_table_bit_for_bit() -> None:
    gathered = gathered_of(
        ZOO, {TALK: {one.name: comparisons(one) for one in ZOO}}, groups={TALK: judged(TALK)}
    )
    board = board_of(gathered)
    (group,) = gathered.groups
    told = estimated(
        members_with(gathered, group, ("win",)),
        group,
        {"win": Ratio("win", proportion=True)},
        confidence=0.95,
    )
    for one in ZOO:
        entry = board.entries[one.name, (TALK, "win_rate.v1")]
        assert told[one.name]["win"][:3] == entry.score.estimate[:3]


@pytest.mark.parametrize("unit", [0.0, 0.1, 10.0])
@pytest.mark.parametrize("values", [[3.0], [-5.0, 2.0], [0.0], [1e-9, 4e3], [-80.0, -1.0]])
def test_a_scale_holds_all_values_and_both_sides_of_the_line(
    values: list[float], unit: float
) -> None:
    scale = scale_around(np.array(values), 1.0, unit=unit)
    places = scale.place(np.array([*values, 1.0]))
    assert (scale.low < places).all()
    assert (places < scale.high).all()
    share = (places[-1] - scale.low) / (scale.high - scale.low)
    assert 0.28 < share < 0.72 or min(values) < 1 < max(values)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 7
    at = [float(scale.place(tick)) for tick in ticks]
    assert at == sorted(at)
    assert all(scale.low <= place <= scale.high for place in at)


def test_there_is_room_below_0_where_it_is_asked_for() -> None:
    scale = scale_around(np.array([0.1, 3.0]), 1.0, unit=1.0, side=0.3, below_0=0.2)
    assert -scale.low / (scale.high - scale.low) == pytest.approx(0.2)


def test_an_axis_is_stretched_only_where_values_are_wild() -> None:
    rng = np.random.default_rng(0)
    even = rng.normal(0, 5, 400)
    assert unit_of(even, 0.0) == 0
    assert unit_of(np.append(even, -4000.0), 0.0) == 10.0
    assert unit_of(np.zeros(4), 0.0) == 0
    stretched = Scale(-9, 9, 1.0)
    assert math.sinh(float(stretched.place(250.0))) == pytest.approx(250)


def test_shares_of_quarters_add_up_to_all_pairs_that_lie_in_one() -> None:
    gathered = gathered_of(ZOO, {MARGINS: {one.name: margins(one) for one in ZOO}})
    (found,) = displacement(gathered, shown_of(gathered).board)
    assert [plane.row.name for plane in found.planes] == [one.name for one in ZOO]
    for plane in found.planes:
        assert sum(e.value for e in plane.shares.values()) == pytest.approx(1)
        assert all(0 <= e.low <= e.value <= e.high <= 1 for e in plane.shares.values())


def test_no_pair_lies_beyond_both_conditions() -> None:
    gathered = gathered_of(ZOO, {GRADIENTS: {one.name: gradients(one) for one in ZOO}})
    (found,) = entanglement(gathered, shown_of(gathered).board)
    for plane in found.planes:
        assert (plane.points.prod(axis=1) <= 1).all()
        assert sum(e.value for e in plane.shares.values()) == pytest.approx(1)
        assert set(plane.bands.tolist()) == {0, 1, 2}


def test_a_zero_gradient_is_a_missing_point_not_an_infinite_one() -> None:
    one = ZOO[3]
    told = gradients(one, 30)
    told["norm_chosen"][:5] = 0.0
    gathered = gathered_of([one], {GRADIENTS: {one.name: told}})
    (found,) = entanglement(gathered, shown_of(gathered).board)
    (plane,) = found.planes
    assert len(plane.points) == 25
    assert {e.n for e in plane.shares.values()} == {25}


def test_a_token_is_told_whole_or_from_both_ends() -> None:
    assert token_label(" the") == "·the"
    assert token_label("") == "⟨empty⟩"
    assert token_label("\n") == "⟨LF⟩"
    assert token_label("\u202e") == "⟨U+202E⟩"
    assert token_label("\u202eevil") == "⟨U+202E⟩…evil"
    assert token_label("\x1b[2J and more") == "⟨ESC⟩…more"
    assert len(token_label("x" * 10**6)) == LONGEST
    assert token_label("<script>alert(1)</script>") == "<scr…ipt>"


def test_a_map_is_of_the_longest_pair_that_most_have_and_that_can_be_drawn(tmp_path: Path) -> None:
    zoo = ZOO[:2]
    short, good, long = ["a"] * 2, ["b"] * 5, ["c"] * (MOST + 9)
    for i in range(2):
        answers = [cosines(1, short, short), cosines(2, good, good), cosines(3, long, long)]
        answers += [cosines(4, ["d"] * 9, ["d"] * 9)][: 1 - i]  # only one checkpoint has it
        store = stored(tmp_path, f"cell {i}", answers)
    gathered = gathered_of(
        zoo,
        {GRADIENTS: {one.name: gradients(one) for one in zoo}},
        cells={(one.name, GRADIENTS): f"cell {i}" for i, one in enumerate(zoo)},
    )
    (found,), notes = heats(gathered, shown_of(gathered).board, store)
    assert (found.item, notes) == (2, [])
    assert found.heats[0].chosen == ("b",) * 5
    assert heats(gathered, shown_of(gathered).board, None) == ([], [])


def test_a_sweep_is_of_one_name_opponent_and_judge() -> None:
    tasks = (f"{TALK}_t0", f"{TALK}_t0.5", "other_t1", "not_swept")
    gathered = gathered_of(
        ZOO,
        {task: {one.name: comparisons(one) for one in ZOO} for task in tasks},
        groups={task: judged(task) for task in tasks},
    )
    (found,) = sweeps(gathered, shown_of(gathered).board)
    assert found.name == TALK
    assert [t for t, _ in found.lines[0][1]] == [0.0, 0.5]


@pytest.mark.parametrize(
    ("task", "there"),
    [("made_up_divergence", True), ("made_up", True), ("made_up_kl", True), ("made", False)],
)
def test_tasks_that_differ_by_their_kind_alone_belong_together(task: str, there: bool) -> None:
    gathered = gathered_of(
        ZOO,
        {
            task: {one.name: divergences(one) for one in ZOO},
            TALK: {one.name: comparisons(one) for one in ZOO},
        },
        groups={TALK: judged(TALK)},
    )
    found = frontiers(gathered, shown_of(gathered).board)
    assert [one.is_reward for one in found] == ([True, False] if there else [])
    assert KL == "made_up_divergence"
