from __future__ import annotations

import random
from pathlib import Path

import pytest

from prefbench.cells import PlannedCell, PlannedTask, Unit
from prefbench.parallel.shares import Shares, divide, estimate
from prefbench.records import Checkpoint
from prefbench.tasks import Task


def cell(name: str, n_bytes: int = 100, limit: int | None = 10, **more: object) -> PlannedCell:
    checkpoint = Checkpoint(name=name, path=Path(name), state="ready", n_bytes=n_bytes, **more)  # type: ignore[arg-type]
    return PlannedCell(name, checkpoint, PlannedTask(Task.__new__(Task), limit), {})


def group(name: str, n_units: int, n_bytes: int = 100) -> list[Unit]:
    return [Unit((name,), (cell(f"{name}{i}", n_bytes),)) for i in range(n_units)]


def names(units: list[Unit]) -> list[str]:
    return [one.cell for unit in units for one in unit.cells]


def taken(shares: Shares, order: list[int]) -> dict[int, list[Unit]]:
    """What each worker takes, if they come for more in this order, over and over."""
    given: dict[int, list[Unit]] = {worker: [] for worker in order}
    while shares:
        for worker in order:
            if unit := shares.take(worker):
                given[worker].append(unit)
    return given


@pytest.mark.parametrize("seed", range(20))
def test_every_cell_is_taken_exactly_once_whoever_comes_when(seed: int) -> None:
    rng = random.Random(seed)
    units = [
        unit
        for i in range(rng.randint(1, 9))
        for unit in group(f"g{i}-", rng.randint(1, 5), rng.randint(1, 500))
    ]
    n_workers = rng.randint(1, 6)
    shares = Shares(units, n_workers)
    assert len(shares) == len(units)
    given = []
    while shares:
        if unit := shares.take(rng.randrange(n_workers)):
            given.append(unit)
    assert sorted(names(given)) == sorted(names(units))
    assert [shares.take(worker) for worker in range(n_workers)] == [None] * n_workers


def test_groups_begin_whole_and_in_the_order_of_their_units() -> None:
    units = [unit for i in range(4) for unit in group(f"g{i}-", 3)]
    given = taken(Shares(units, 2), [0, 1])
    for own in given.values():
        assert len(own) == 6
        assert len({unit.group for unit in own}) == 2
        assert names(own) == sorted(names(own))


def test_adapters_of_one_base_stay_together() -> None:
    adapters = tuple(cell(name, 1) for name in ("a", "b", "c"))
    units = [Unit(("vllm", "adapters"), adapters)] * 2 + group("full", 2)
    given = taken(Shares(units, 2), [0, 1])
    assert {len({unit.group for unit in own}) for own in given.values()} == {1}
    (own,) = (own for own in given.values() if own[0].group == ("vllm", "adapters"))
    assert names(own) == ["a", "b", "c"] * 2


def test_the_most_expensive_comes_first_to_whoever_has_the_least() -> None:
    assert divide([1, 1, 1, 9, 2, 4], 2) == [[3], [0, 1, 2, 4, 5]]
    assert divide([5, 5, 5, 5], 2) == [[0, 2], [1, 3]]
    assert divide([3.0], 3) == [[0], [], []]
    assert divide([], 2) == [[], []]


@pytest.mark.parametrize("seed", range(20))
def test_no_worker_has_more_than_its_part_and_the_smallest_thing_it_was_given(seed: int) -> None:
    rng = random.Random(seed)
    costs = [rng.uniform(1, 100) for _ in range(rng.randint(3, 30))]
    n_workers = rng.randint(1, 8)
    for share in divide(costs, n_workers):
        own = [costs[i] for i in share]
        # It had the least to do when it was given its last, which was its smallest.
        assert sum(own) - min(own, default=0) <= sum(costs) / n_workers + 1e-9


def test_an_idle_worker_takes_the_last_group_and_in_the_end_units_of_the_only_one() -> None:
    shares = Shares([*group("a", 2, 1000), *group("b", 2, 10), *group("c", 4, 10)], 2)
    assert [unit.group[0] for unit in (shares.take(0), shares.take(1)) if unit] == ["a", "b"]
    assert names([unit for _ in range(5) if (unit := shares.take(1))]) == [
        "b1", "c0", "c1", "c2", "c3",
    ]  # fmt: skip
    assert names([unit for unit in [shares.take(1)] if unit]) == ["a1"]
    assert shares.take(0) is None


def test_more_workers_than_groups_share_units() -> None:
    given = taken(Shares(group("a", 6), 3), [0, 1, 2])
    assert [len(own) for own in given.values()] == [2, 2, 2]


def test_a_worker_that_comes_later_takes_over_from_the_others() -> None:
    shares = Shares([*group("a", 3), *group("b", 3)], 1)
    assert names([unit for unit in [shares.take(0)] if unit]) == ["a0"]
    shares.add_worker()
    assert shares.n_workers == 2
    assert names([unit for _ in range(4) if (unit := shares.take(1))]) == ["b0", "b1", "b2", "a2"]
    assert names([unit for unit in [shares.take(0)] if unit]) == ["a1"]


def test_what_is_put_back_comes_last_and_any_worker_may_take_it() -> None:
    shares = Shares(group("a", 3), 2)
    first = shares.take(0)
    assert first is not None
    shares.put_back(0, first)
    assert len(shares) == 3
    assert sorted(names([unit for _ in range(3) if (unit := shares.take(1))])) == ["a0", "a1", "a2"]
    assert not shares


def test_cost_grows_with_the_weights_and_the_items(tmp_path: Path) -> None:
    def cost(*args: object, **more: object) -> float:
        return estimate(Unit((), (cell("x", *args, **more),)))  # type: ignore[arg-type]

    assert cost(200, 10) == 2 * cost(100, 10) == 4 * cost(100, 5)
    assert cost(100, None) > cost(100, 10)
    (tmp_path / "model.safetensors").write_bytes(bytes(900))
    assert cost(100, 10, adapter=True, base=str(tmp_path)) == 10 * cost(100, 10)
    assert cost(100, 10, adapter=True, base="somewhere/else") == cost(100, 10)
