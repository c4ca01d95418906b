"""When two ways of computing count as the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prefbench.engines.checks import difference, is_out_of_memory, made_up


@pytest.mark.parametrize(
    ("dtype", "far"), [(torch.float32, 0.01), (torch.float16, 0.2), (torch.bfloat16, 0.7)]
)
def test_rounding_is_no_difference_and_more_is(dtype, far):
    plain = np.array([-3.0, -20.0])
    assert difference(plain + 5e-4, plain, dtype) is None
    assert f"by {far:.2g} nats" in difference(plain + np.array([far, 0]), plain, dtype)


def test_numbers_one_way_only_are_a_difference():
    lost = np.array([math.nan, math.nan])
    assert difference(lost, lost, torch.float32) is None
    found = difference(lost, np.array([-1.0, math.nan]), torch.float32)
    assert "by 0 nats, and 1 are numbers one way only" in found


@pytest.mark.parametrize("max_length", [2, 3, 7, 48, 4096])
def test_made_up_items_fit_share_and_branch(max_length):
    lines = made_up(300, max_length)
    assert all(len(line.tokens) - 1 <= max_length for line in lines)
    assert all(1 <= line.start < len(line.tokens) for line in lines)
    assert len({line.tokens[: line.start].tobytes() for line in lines}) == 2
    assert all((line.tokens[0] == lines[0].tokens[0]).all() for line in lines)


def test_what_counts_as_out_of_memory():
    told = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
    assert is_out_of_memory(RuntimeError(told))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))
