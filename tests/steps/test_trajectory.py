from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefbench.errors import InputError
from prefbench.leaderboard import Gathered, Group, Measured, Ranked
from prefbench.records import Checkpoint
from prefbench.report.steps import sentences_of
from prefbench.stats.estimates import Estimate
from prefbench.steps.trajectory import Trajectory, trajectory

QUIZ = Group("quiz", "quiz", shown=("score",), higher_is_better={"score": True})
PAIRS = Group("pairs", "pairs", shown=("logp_rejected", "perplexity"))
N = 120
RNG = np.random.default_rng(4)
BASE = RNG.normal(size=N)
NOISE = RNG.normal(scale=0.5, size=(9, N))


def step(n: int | None, run: str = "dpo", **facts: Any) -> Checkpoint:
    name = run if n is None else f"{run}/checkpoint-{n}"
    return Checkpoint(
        name,
        Path("/runs") / name,
        facts.pop("state", "ready"),
        method=facts.pop("method", run),
        step=facts.pop("at", n),
        fingerprint=facts.pop("fingerprint", name),
        **facts,
    )


SFT = step(None, "sft")
STEPS = tuple(step(n) for n in (5, 10, 20, 40))


def cell(row: Checkpoint, values: Any, group: str = "quiz", **more: Any) -> Measured:
    columns = values if isinstance(values, Mapping) else {"score": np.asarray(values)}
    items = np.arange(len(next(iter(columns.values()))), dtype=np.int32)
    return Measured(row.name, group, items, items.astype(str), columns, **more)


def rising(means: Sequence[float]) -> list[Measured]:
    """Steps whose scores differ from SFT's by these means and by noise of their own."""
    cells = [cell(SFT, BASE)]
    for place, (row, mean) in enumerate(zip(STEPS, means, strict=False)):
        centred = NOISE[place] - NOISE[place].mean()
        cells.append(cell(row, BASE + mean + centred))
    return cells


def follow(
    cells: Sequence[Measured],
    run: str = "dpo",
    rows: Sequence[Checkpoint] = (*STEPS, SFT),
    groups: Sequence[Group] = (QUIZ,),
    gathered: Mapping[str, Any] | None = None,
    **asked: Any,
) -> Trajectory:
    data = Gathered(tuple(rows), tuple(groups), tuple(cells), **(gathered or {}))
    return trajectory(data, run, n_resamples=1000, **asked)


def test_a_loss_within_the_noise_is_none() -> None:
    cells = rising([0.0, -0.3, -0.3, -0.9])
    other = step(None, "ipo")
    first, again = cell(other, BASE), cell(other, BASE + 0.5)
    found = follow([*cells, first], rows=(*STEPS, SFT, other), gathered={"repeated": (again,)})
    (column,) = found.columns
    assert [found.verdict(one, column) for one in STEPS] == ["", "noise", "noise", "worse"]
    assert found.first_worse(column) == STEPS[3]
    assert any(line.startswith("≈") for line in sentences_of(found))


def test_first_step_that_is_worse_and_whether_it_stays_so() -> None:
    found = follow(rising([0.0, 0.3, -0.3, -0.5]))
    (column,) = found.columns
    assert [row.step for row in found.steps] == [5, 10, 20, 40]
    assert found.reference == "sft"
    assert [found.verdict(row, column) for row in found.steps] == ["", "better", "worse", "worse"]
    first = found.first_worse(column)
    assert first is not None
    assert first.step == 20
    assert found.stays_worse(column)
    back = follow(rising([-0.4, 0.0, -0.4, 0.0]))
    assert back.first_worse(column) == STEPS[0]
    assert not back.stays_worse(column)
    never = follow(rising([0.0, 0.0, 0.0, 0.0]))
    assert never.first_worse(column) is None
    assert not never.stays_worse(column)


def test_differences_are_corrected_over_the_steps() -> None:
    found = follow(rising([0.0, 0.1, 0.09, 0.0]))
    (column,) = found.columns
    raw = [found.entry(row, column).difference.p for row in found.steps]  # type: ignore[union-attr]
    corrected = [found.adjusted[row.name, column.key] for row in found.steps]
    assert min(raw) < 0.05 < min(corrected)  # one alone would have been a finding
    assert min(corrected) == pytest.approx(4 * min(raw))
    assert [found.verdict(row, column) for row in found.steps] == [""] * 4


def test_a_run_of_equal_steps_seldom_seems_to_get_worse() -> None:
    """Five steps as good as their reference: a step looks worse at most at rate α/2."""
    rng = np.random.default_rng(9)
    rows = tuple(step(n) for n in range(1, 6))
    n, alarms = 200, 0
    for _ in range(n):
        base = rng.normal(size=50)
        cells = [cell(SFT, base)]
        cells += [cell(row, base + rng.normal(size=50)) for row in rows]
        found = trajectory(
            Gathered((*rows, SFT), (QUIZ,), tuple(cells)), "dpo", confidence=0.8, n_resamples=300
        )
        alarms += found.first_worse(found.columns[0]) is not None
    assert 0 < alarms / n < 0.1 + 3 * math.sqrt(0.1 * 0.9 / n)


def test_the_best_step_and_those_that_may_be_as_good() -> None:
    found = follow(rising([0.0, 0.48, 0.5, 0.2]))
    assert found.selected is not None
    assert found.selected.best == "dpo/checkpoint-20"
    assert found.selected.alike == ("dpo/checkpoint-10", "dpo/checkpoint-20")
    assert found.selected.earliest == "dpo/checkpoint-10"
    choice = found.selected.choice
    assert choice.naive.value == pytest.approx(BASE.mean() + 0.5)
    assert choice.corrected.value < choice.naive.value


def pairs(chosen: float, rejected: float) -> dict[str, np.ndarray]:
    tokens = np.full(N, 10.0)
    return {
        "sum_logp_chosen": (BASE / 10 - chosen) * tokens,
        "n_tokens_chosen": tokens,
        "sum_logp_rejected": (BASE / 10 - rejected) * tokens,
        "n_tokens_rejected": tokens,
        "n_texts_rejected": np.ones(N),
    }


def test_the_metric_to_choose_by() -> None:
    cells = [*rising([0.0, 0.5, 0.2, 0.1]), cell(SFT, pairs(1.0, 1.0), "pairs")]
    cells += [cell(row, pairs(1.0 - i / 10, 1 + i / 10), "pairs") for i, row in enumerate(STEPS)]
    both = [PAIRS, QUIZ]
    # The first that is shown has no direction; perplexity is best where it is lowest.
    found = follow(cells, groups=both)
    assert found.selected is not None
    assert found.selected.column.metric.name == "perplexity.v1"
    assert found.selected.best == "dpo/checkpoint-40"
    assert [found.verdict(row, found.columns[0]) for row in STEPS] == ["", *["different"] * 3]
    for by in ("quiz/score", "pairs/agility", "pairs/perplexity.v1"):
        assert follow(cells, groups=both, by=by).selected is not None
    assert follow(cells, groups=both, by="quiz/score").selected.best == "dpo/checkpoint-10"  # type: ignore[union-attr]
    assert {c.metric.name for c in follow(cells, groups=both, everything=True).columns} > {
        "perplexity.v1", "agility.v1", "score",
    }  # fmt: skip
    for by, said in {
        "score": r"'score': give TASK/METRIC; tasks measured here: pairs, quiz",
        "quiz/f1": r"quiz has no such metric; there are: score",
        "pairs/logp_rejected": r"neither direction is better; name another metric",
    }.items():
        with pytest.raises(InputError, match=said):
            follow(cells, groups=both, by=by)


def test_a_metric_that_is_measured_in_several_ways() -> None:
    few = Group("quiz, first 50 items", "quiz", "first 50 items", ("score",), {"score": True})
    cells = rising([0.0, 0.5, 0.2, 0.1])
    cells += [cell(row, BASE[:50], few.name) for row in STEPS]
    with pytest.raises(InputError, match="several ways; give one of: quiz/score; quiz,"):
        follow(cells, groups=[QUIZ, few], by="quiz/score")
    found = follow(cells, groups=[QUIZ, few], by="quiz, first 50 items/score")
    assert found.selected is not None
    assert found.selected.choice.naive.n == 50


@pytest.mark.parametrize("name", ["dpo", "dpo/", "dp", "dpo/checkpoint-10"])
def test_a_run_by_its_name_or_beginning(name: str) -> None:
    assert len(follow(rising([0.0] * 4), run=name).steps) == 4


def test_names_that_are_no_run_or_several() -> None:
    rows = (*STEPS, SFT, step(1, "dpop"), step(1, "a/ipo"), step(1, "b/ipo"))
    cells = rising([0.0] * 4)
    with pytest.raises(InputError, match="'kto' names no run; give one of: dpo, sft, dpop, a/ipo"):
        follow(cells, run="kto", rows=rows)
    with pytest.raises(InputError, match="'d' may be 2 runs; give one of: dpo, dpop"):
        follow(cells, run="d", rows=rows)
    with pytest.raises(InputError, match="'ipo' may be 2 runs; give one of: a/ipo, b/ipo"):
        follow(cells, run="ipo", rows=rows)
    assert follow(cells, run="dpo", rows=rows).run == "dpo"  # the whole name comes first
    with pytest.raises(InputError, match="dpop: none of its 1 steps was measured"):
        follow(cells, run="dpop", rows=rows)


def test_the_final_checkpoint_is_the_last_step_or_one_there_was() -> None:
    final = step(None, at=40)
    rows = (final, *STEPS, SFT)
    found = follow([*rising([0.0] * 4), cell(final, BASE)], rows=rows)
    assert [row.name for row in found.steps[-2:]] == ["dpo/checkpoint-40", "dpo"]
    best = step(None, at=40, fingerprint="dpo/checkpoint-10")
    found = follow([*rising([0.0] * 4), cell(best, BASE)], rows=(best, *STEPS, SFT))
    assert [row.name for row in found.steps] == [row.name for row in STEPS]
    assert "dpo has the weights of dpo/checkpoint-10" in found.notes


def test_what_cannot_be_measured_is_said() -> None:
    broken = step(80, state="incomplete", reason="no weights yet")
    found = follow(rising([0.0] * 4), rows=(*STEPS, SFT, broken))
    assert "dpo/checkpoint-80 is incomplete: no weights yet" in found.notes
    with pytest.raises(InputError, match="has no checkpoint that can be measured: dpo/"):
        follow([cell(SFT, BASE)], rows=(SFT, broken))


def test_the_reference_is_what_the_run_was_tuned_from() -> None:
    other = step(None, "exmate")
    tuned = tuple(step(n, reference="/runs/exmate") for n in (5, 10))
    cells = [cell(SFT, BASE), *(cell(row, BASE + NOISE[0]) for row in tuned)]
    found = follow([*cells, cell(other, BASE)], rows=(*tuned, SFT, other))
    assert found.reference == "exmate"
    found = follow(cells, rows=(*tuned, SFT, other))
    assert found.reference == "sft"
    assert "tuned from /runs/exmate, which was not measured here; compared with sft instead" in (
        found.notes
    )
    found = follow([*cells, cell(other, BASE)], rows=(*tuned, SFT, other), reference="SFT")
    assert found.reference == "sft"
    with pytest.raises(InputError, match="the baseline 'kto' names no checkpoint"):
        follow(cells, rows=(*tuned, SFT), reference="kto")


def test_a_step_may_be_the_reference_of_the_others() -> None:
    found = follow(rising([0.0, -0.5, 0.0, 0.0]), reference="dpo/checkpoint-5")
    (column,) = found.columns
    assert found.first_worse(column) == STEPS[1]
    assert ("dpo/checkpoint-5", column.key) not in found.adjusted


def test_without_a_reference_nothing_is_compared() -> None:
    rows = tuple(step(n, "sft") for n in (5, 10))
    found = follow([cell(row, BASE + n) for n, row in enumerate(rows)], run="sft", rows=rows)
    assert found.reference is None
    assert found.adjusted == {}
    assert found.first_worse(found.columns[0]) is None
    assert found.selected is not None
    assert found.selected.best == "sft/checkpoint-10"
    assert any(note.startswith("no reference: what it was tuned from") for note in found.notes)


def test_one_step_alone() -> None:
    found = follow(rising([0.3])[:2], rows=(STEPS[0], SFT))
    assert "this run has one step: there is nothing to follow or to choose from" in found.notes
    assert found.selected is not None
    assert found.selected.alike == ("dpo/checkpoint-5",)


def test_steps_that_lack_the_metric_are_not_chosen_from() -> None:
    cells = rising([0.0, 0.5, 0.2, 0.1])
    cells[2] = cell(STEPS[1], np.full(N, np.nan))
    found = follow(cells[:4], gathered={"reasons": {("dpo/checkpoint-40", "quiz"): "no memory"}})
    assert found.selected is not None
    assert found.selected.steps == ("dpo/checkpoint-5", "dpo/checkpoint-20")
    for name in ("dpo/checkpoint-10", "dpo/checkpoint-40"):
        assert f"not chosen from, as it lacks quiz/score: {name}" in found.notes
    assert found.board.reason(STEPS[3], found.columns[0]) == "no memory"
    nothing = [cell(row, np.full(N, np.nan)) for row in STEPS]
    assert "no best step by quiz/score: no step has it" in follow(nothing).notes
    early = [cell(row, BASE[:60]) for row in STEPS[:1]]
    late = Measured("dpo/checkpoint-10", "quiz", np.arange(60, 120, dtype=np.int32),
                    np.arange(60, 120).astype(str), {"score": BASE[60:]})  # fmt: skip
    apart = follow([*early, late])
    assert apart.selected is None
    assert any("no finite value on the items that all have" in note for note in apart.notes)


def test_comparisons_that_ended_when_sure_and_round_robins_are_not_chosen_from() -> None:
    cells = rising([0.0, 0.5, 0.2, 0.1])
    cells[2] = cell(STEPS[1], BASE, sure=Estimate(0.5, 0.4, 0.6, 9))
    found = follow(cells)
    assert found.selected is not None
    assert "dpo/checkpoint-10" not in found.selected.steps
    wins = np.ones((6, 2, 2))
    robin = Ranked("arena", ("dpo/checkpoint-5", "sft"), np.arange(6), wins, wins)
    groups = (Group("arena", "arena"), QUIZ)
    found = follow(rising([0.0] * 4), groups=groups, gathered={"ranked": (robin,)})
    assert found.selected is not None
    assert found.selected.column.group.name == "quiz"
    with pytest.raises(InputError, match="strengths hang on who takes part; name another metric"):
        follow(rising([0.0] * 4), groups=groups, gathered={"ranked": (robin,)}, by="arena/elo")
    only = Group("pairs", "pairs", shown=("logp_rejected",))
    cells = [cell(row, pairs(1, 1), "pairs") for row in (*STEPS, SFT)]
    found = follow(cells, groups=[only])
    assert found.selected is None
    assert "no best step: no metric that is shown has a better direction" in found.notes
