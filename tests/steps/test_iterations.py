"""Chains of iterates: how they are found and named, and what each changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, Group, Measured, Ranked
from prefbench.records import Checkpoint
from prefbench.stats.corrections import holm
from prefbench.stats.estimates import Estimate
from prefbench.steps.iterations import chains_of
from prefbench.steps.trajectory import Trajectory, trajectory

QUIZ = Group("quiz", "quiz", shown=("score",), higher_is_better={"score": True})
N = 120
RNG = np.random.default_rng(4)
BASE = RNG.normal(size=N)
NOISE = RNG.normal(scale=0.5, size=(9, N))


def row(name: str, reference: str | None = None, **facts: Any) -> Checkpoint:
    method = facts.pop("method", name.partition("_")[0].partition("/")[0])
    facts.setdefault("fingerprint", name)
    return Checkpoint(
        name,
        Path("/runs") / name,
        facts.pop("state", "ready"),
        method=method,
        reference=f"/runs/{reference}" if reference else None,
        **facts,
    )


SFT = row("sft")
SPIN = (row("spin_1", "sft"), row("spin_2", "spin_1"), row("spin_3", "spin_2"))
ROWS = (SPIN[2], SFT, SPIN[0], SPIN[1])  # in any order


def cell(name: str, values: Any, group: str = "quiz", **more: Any) -> Measured:
    items = np.arange(len(values), dtype=np.int32)
    return Measured(name, group, items, items.astype(str), {"score": np.asarray(values)}, **more)


def improving(means: Sequence[float]) -> list[Measured]:
    """SFT, and iterates whose scores differ from SFT's by these means and by noise of their own."""
    cells = [cell("sft", BASE)]
    for place, (one, mean) in enumerate(zip(SPIN, means, strict=True)):
        cells.append(cell(one.name, BASE + mean + NOISE[place] - NOISE[place].mean()))
    return cells


def follow(
    cells: Sequence[Measured],
    name: str = "spin",
    rows: Sequence[Checkpoint] = ROWS,
    groups: Sequence[Group] = (QUIZ,),
    gathered: Mapping[str, Any] | None = None,
    **asked: Any,
) -> Trajectory:
    data = Gathered(tuple(rows), tuple(groups), tuple(cells), **(gathered or {}))
    return trajectory(data, name, n_resamples=1000, **asked)


def named(rows: Sequence[Checkpoint]) -> list[list[str]]:
    return [[one.name for one in chain.rows] for chain in chains_of(rows)]


# --- which chains there are


def test_a_chain_is_followed_along_references_of_one_method() -> None:
    assert named(ROWS) == [["spin_1", "spin_2", "spin_3"]]
    assert named([SFT, *SPIN[:1], row("dpo", "spin_1")]) == []  # of other methods
    assert named([SFT, row("dpo_a", "sft"), row("dpo_b", "sft")]) == []
    assert named([row("x", "sft", method=None), row("y", "x", method=None)]) == []
    assert named(SPIN[1:]) == [["spin_2", "spin_3"]]  # what it began with is not here
    by_name = Checkpoint("b", Path("/b"), "ready", method="spin", reference="spin_1")
    assert named([SPIN[0], by_name]) == [["spin_1", "b"]]


def test_what_is_tuned_twice_from_one_is_two_chains() -> None:
    other = row("spin_2b", "spin_1")
    assert named([*SPIN[:2], other]) == [["spin_1", "spin_2"], ["spin_1", "spin_2b"]]


def test_references_that_go_round_end() -> None:
    assert named([row("spin_1", "spin_2"), row("spin_2", "spin_1")]) == []
    assert named([row("spin_1", "spin_1")]) == []
    round_ = [row("spin_1", "spin_2"), row("spin_2", "spin_1"), row("spin_3", "spin_2")]
    assert named(round_) == [["spin_1", "spin_2", "spin_3"]]


def test_a_run_has_one_place_in_a_chain() -> None:
    runs = [
        row(f"spin_{n}{end}", f"spin_{n - 1}" if n > 1 else "sft", step=step)
        for n in (1, 2)
        for end, step in (("/checkpoint-10", 10), ("/checkpoint-20", 20), ("", 20))
    ]
    assert named(runs) == [["spin_1", "spin_2"]]
    # What was gone on from counts, not what came after it.
    from_step = row("spin_3", "spin_2/checkpoint-10")
    assert named([*runs, from_step]) == [["spin_1", "spin_2/checkpoint-10", "spin_3"]]
    broken = [*runs[:-1], row("spin_2", "spin_1", state="incomplete")]
    assert named(broken) == [["spin_1", "spin_2/checkpoint-20"]]


# --- how they are named


@pytest.mark.parametrize("name", ["spin", "SPIN", "spin_1", "spin_2/", "spin_3", "spin_"])
def test_a_chain_by_its_method_or_a_member(name: str) -> None:
    found = follow(improving([0.0] * 3), name)
    assert [one.name for one in found.steps] == ["spin_1", "spin_2", "spin_3"]
    assert found.iterations == (1, 2, 3)
    assert found.unit == "iteration"
    assert found.start == found.reference == "sft"


def test_names_of_several_chains_are_refused() -> None:
    rows = (*ROWS, row("spin_2b", "spin_1"))
    cells = [*improving([0.0] * 3), cell("spin_2b", BASE)]
    said = r"'{}' is in 2 chains; give the last of one: spin_3, spin_2b"
    for name in ("spin", "spin_1"):
        with pytest.raises(InputError, match=said.format(name)):
            follow(cells, name, rows)
    found = follow(cells, "spin_2b", rows)
    assert [one.name for one in found.steps] == ["spin_1", "spin_2b"]
    with pytest.raises(InputError, match="'s' may be 5 runs; give one of: spin_3, sft"):
        follow(cells, "s", rows)


def test_a_run_of_the_methods_name_comes_before_the_method() -> None:
    rows = (row("dpo", "sft"), row("dpo_2", "sft"), row("dpo_3", "dpo_2"), SFT)
    cells = [cell(one.name, BASE) for one in rows]
    assert follow(cells, "dpo", rows).unit == "step"
    assert follow(cells, "dpo_2", rows).unit == "iteration"


def test_steps_of_one_training_are_shown_by_the_name_of_a_step() -> None:
    steps = tuple(row(f"spin_2/checkpoint-{n}", "spin_1", step=n) for n in (5, 10))
    rows = (*ROWS, *steps)
    cells = [*improving([0.0, 0.5, 0.6]), *(cell(one.name, BASE) for one in steps)]
    found = follow(cells, "spin_2", rows)
    assert found.iterations == (1, 2, 3)
    (note,) = found.notes
    assert note == (
        "these are iterates, each tuned from the one before; the steps of one's training are "
        "shown by the name of a step, e.g. spin_2/checkpoint-10"
    )
    found = follow(cells, "spin_2/checkpoint-5", rows)
    assert [one.name for one in found.steps] == [one.name for one in (*steps, SPIN[1])]
    assert found.unit == "step"
    assert found.reference == "spin_1"
    assert (found.iterations, found.start, found.changes) == ((), None, {})


# --- what is known of them


def test_each_against_the_start_and_against_the_one_before() -> None:
    cells = improving([0.5, 0.9, 0.9])
    found = follow(cells)
    (column,) = found.columns
    assert [found.verdict(one, column) for one in SPIN] == ["better"] * 3
    assert [found.verdict_of_change(one, column) for one in SPIN] == ["better", "better", ""]
    changes = [found.changes[one.name, column.key] for one in SPIN]
    assert [change.previous for change in changes] == ["sft", "spin_1", "spin_2"]
    assert [change.difference.value for change in changes] == pytest.approx([0.5, 0.4, 0])
    # The first change is the difference to the reference, from the same draws.
    entry = found.entry(SPIN[0], column)
    assert entry is not None
    assert changes[0].difference == entry.difference
    corrected = holm([change.difference.p for change in changes])
    assert [change.p_corrected for change in changes] == pytest.approx(corrected)
    assert found.selected is not None
    assert found.selected.earliest == "spin_2"


def test_changes_are_paired() -> None:
    """Unpaired, a gain of a tenth could not be seen in items that vary by 1."""
    steady = [cell("sft", BASE)]
    steady += [cell(one.name, BASE + 0.1 * n) for n, one in enumerate(SPIN, 1)]
    found = follow(steady)
    (column,) = found.columns
    for one in SPIN:
        gap = found.changes[one.name, column.key].difference
        assert gap.high - gap.low < 1e-6
        assert gap.value == pytest.approx(0.1)
    entry = found.entry(SPIN[2], column)
    assert entry is not None
    own = entry.score.estimate
    assert own.high - own.low > 0.2


def test_another_reference_leaves_the_changes() -> None:
    other = row("dpo", "sft")
    found = follow(
        [*improving([0.5, 0.9, 0.9]), cell("dpo", BASE + 2)], rows=(*ROWS, other), reference="dpo"
    )
    (column,) = found.columns
    assert (found.reference, found.start) == ("dpo", "sft")
    assert [found.verdict(one, column) for one in SPIN] == ["worse"] * 3
    assert found.changes["spin_1", column.key].previous == "sft"
    assert found.changes["spin_1", column.key].difference.value == pytest.approx(0.5)


def test_what_it_began_with_was_not_measured() -> None:
    found = follow(improving([0.5, 0.9, 0.9])[1:])
    assert (found.reference, found.start) == (None, None)
    (column,) = found.columns
    assert set(found.changes) == {(name, column.key) for name in ("spin_2", "spin_3")}
    assert any("tuned from /runs/sft, which was not measured here" in n for n in found.notes)


def test_an_iterate_that_is_missing_leaves_a_gap() -> None:
    rows = (SFT, SPIN[0], row("spin_2", "spin_1", state="refused", reason="pickled"), SPIN[2])
    cells = [one for one in improving([0.5, 0.9, 0.9]) if one.checkpoint != "spin_2"]
    found = follow(cells, rows=rows)
    (column,) = found.columns
    assert found.iterations == (1, 3)
    assert [found.iteration(one) for one in found.steps] == [1, 3]
    assert "spin_2 is refused: pickled" in found.notes
    # The third is not known to differ from the second, and is not said to differ from the first.
    assert set(found.changes) == {("spin_1", column.key)}
    found = follow(cells)  # it could be measured, and was not
    assert found.iterations == (1, 2, 3)
    assert set(found.changes) == {("spin_1", column.key)}


def test_an_iterate_with_the_weights_of_the_one_before() -> None:
    same = row("spin_2", "spin_1", fingerprint="spin_1")
    found = follow(improving([0.5, 0.9, 0.9]), rows=(SFT, SPIN[0], same, SPIN[2]))
    assert found.iterations == (1, 3)
    assert "spin_2 has the weights of spin_1" in found.notes


def test_noise_is_told_of_changes() -> None:
    cells = improving([0.5, 0.9, 0.9])
    again = cell("sft", BASE + 0.45)
    found = follow(cells, gathered={"repeated": (again,)})
    (column,) = found.columns
    assert [found.verdict(one, column) for one in SPIN] == ["better"] * 3
    assert [found.verdict_of_change(one, column) for one in SPIN] == ["better", "noise", ""]


def test_what_has_no_items_or_ended_when_sure_is_not_compared() -> None:
    cells = improving([0.5, 0.9, 0.9])
    cells[2] = cell("spin_2", BASE, sure=Estimate(0.5, 0.4, 0.6, 9))
    assert {name for name, _ in follow(cells).changes} == {"spin_1"}
    nothing = np.array([], dtype=np.int32)
    cells[2] = Measured(
        "spin_2", "quiz", nothing, nothing.astype(str), {}, given={"score": Estimate(1, 1, 1, 9)}
    )
    assert {name for name, _ in follow(cells).changes} == {"spin_1"}
    cells[2] = cell("spin_2", np.full(N, np.nan))
    assert {name for name, _ in follow(cells).changes} == {"spin_1"}
    wins = np.ones((N, 2, 2))
    robin = Ranked("quiz", ("spin_1", "spin_2"), np.arange(N).astype(str), wins, wins)
    assert follow(improving([0.0] * 3), gathered={"ranked": (robin,)}).changes == {}


def test_one_iterate_that_can_be_measured() -> None:
    rows = (SFT, SPIN[0], row("spin_2", "spin_1", state="incomplete", reason="no weights yet"))
    found = follow(improving([0.5, 0, 0])[:2], "spin", rows)
    assert found.iterations == (1,)
    assert any(note.startswith("one iterate could be measured") for note in found.notes)
    with pytest.raises(InputError, match="spin: none of its 3 iterations was measured"):
        follow([cell("sft", BASE)])
