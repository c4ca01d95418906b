from __future__ import annotations

from typing import Any

import pytest

from prefbench.errors import InputError
from prefbench.parallel.devices import THREADS, VISIBLE, environments, named, slices


def plan(n_engines: int, gpus: str = "", **more: Any) -> list[dict[str, str]]:
    arguments: dict[str, Any] = {
        "n_gpus_each": 1,
        "device": "auto",
        "gpus": gpus.split(),
        "n_cores": 8,
        "environment": {},
        **more,
    }
    return environments(n_engines, **arguments)


@pytest.mark.parametrize(("n_engines", "n_each"), [(1, 1), (4, 1), (2, 2), (2, 4), (8, 1)])
def test_no_gpu_is_given_to_two_engines_and_each_has_as_many_as_asked(
    n_engines: int, n_each: int
) -> None:
    gpus = list("abcdefgh")
    given = slices(gpus, n_engines, n_each)
    assert [len(own) for own in given] == [n_each] * n_engines
    assert [gpu for own in given for gpu in own] == gpus[: n_engines * n_each]


def test_too_few_gpus_are_told_with_what_is_needed() -> None:
    with pytest.raises(InputError, match="4 engines × 2 GPUs need 8, 4 are visible; set --data-"):
        plan(4, "0 1 2 3", n_gpus_each=2)
    with pytest.raises(InputError, match="2 engines × 1 GPU need 2, 1 is visible"):
        plan(2, "0")
    with pytest.raises(InputError, match="2 engines × 1 GPU need 2, none is visible"):
        plan(2, device="cuda")
    with pytest.raises(InputError, match="2 engines × 2 GPUs need 4, none is visible"):
        plan(2, n_gpus_each=2)


def test_engines_see_their_own_gpus_by_the_names_that_are_visible_here() -> None:
    given = plan(2, "4 6 GPU-1b MIG-9c", n_gpus_each=2, device="cuda")
    assert [one[VISIBLE] for one in given] == ["4,6", "GPU-1b,MIG-9c"]
    assert [one[VISIBLE] for one in plan(2, "0 1 2")] == ["0", "1"]


@pytest.mark.parametrize(("device", "gpus"), [("cpu", "0 1"), ("cpu", ""), ("auto", "")])
def test_engines_on_the_processor_need_no_gpus(device: str, gpus: str) -> None:
    assert plan(3, gpus, device=device) == [{THREADS: "2"}] * 3


def test_cores_are_divided_unless_the_user_has_said_how_many() -> None:
    assert [one[THREADS] for one in plan(2, device="cpu", n_cores=9)] == ["4", "4"]
    assert [one[THREADS] for one in plan(4, device="cpu", n_cores=2)] == ["1"] * 4
    assert plan(2, device="cpu", environment={THREADS: "3"}) == [{}, {}]
    assert [one[THREADS] for one in plan(2, "0 1")] == ["4", "4"]


def test_one_gpu_by_name_is_refused_for_several_engines() -> None:
    with pytest.raises(InputError, match=r"'cuda:1' is one for all.*CUDA_VISIBLE_DEVICES"):
        plan(2, "0 1", device="cuda:1")


@pytest.mark.parametrize(
    ("variable", "n_seen", "names"),
    [
        (None, 3, ["0", "1", "2"]),
        ("5, 7", 2, ["5", "7"]),
        ("5,-1,7", 1, ["5"]),  # CUDA drops what comes after a name that is none
        ("", 0, []),
        ("-1", 0, []),
        (None, 0, []),
    ],
)
def test_visible_gpus_have_the_names_that_the_variable_gives_them(
    variable: str | None, n_seen: int, names: list[str]
) -> None:
    assert named(variable, n_seen) == names
