"""Requests as rows: every token is run behind exactly its own past, and few are run twice."""

from __future__ import annotations

import numpy as np
import pytest

from prefbench.engines.packing import blocks
from prefbench.engines.tree import EVEN, Budget, Line, Row, rows, tree


def line(context, continuation):
    return Line(np.array([*context, *continuation], np.int32), len(context))


def past(row: Row, chain, position):
    """The tokens that a position sees, in order, itself the last."""
    seen = [j for j in range(position + 1) if position < row.last[j]]
    assert list(row.depths[seen]) == list(range(row.start, row.start + len(seen)))
    return [*chain[: row.start], *row.tokens[seen].tolist()]


def run(lines, budget):
    """What is scored, each with the tokens before it, and how many tokens are run."""
    chain = []
    scored, n_tokens = [], 0
    for row in rows(tree(lines), budget):
        assert 0 < len(row.tokens) <= max(budget.tokens, 1)
        assert len(np.unique(row.scored.offsets)) <= budget.scored
        n_tokens += len(row.tokens)
        for position, target, owner in zip(
            row.scored.offsets, row.scored.targets, row.scored.owners, strict=True
        ):
            scored.append((int(owner), int(target), past(row, chain, int(position))))
        chain = chain[: row.start]
        if row.is_chain:
            chain += row.tokens.tolist()
    return scored, n_tokens


def expected(lines):
    return [
        (owner, token, tokens[:position])
        for owner, (tokens, start) in enumerate((one.tokens.tolist(), one.start) for one in lines)
        for position, token in enumerate(tokens)
        if position >= start
    ]


def random_lines(rng, n_tokens=3):
    """Lines over few tokens, so that they share much."""
    prefix = rng.integers(0, n_tokens, rng.integers(1, 30))
    made = []
    for _ in range(rng.integers(1, 12)):
        own = rng.integers(0, n_tokens, rng.integers(0, 12))
        context = np.concatenate([prefix[: rng.integers(1, len(prefix) + 1)], own])
        made += [
            line(context, rng.integers(0, n_tokens, rng.integers(1, 10)))
            for _ in range(rng.integers(1, 5))
        ]
    return made


@pytest.mark.parametrize("seed", range(60))
def test_every_target_is_scored_once_behind_its_own_past(seed):
    rng = np.random.default_rng(seed)
    lines = random_lines(rng)
    budget = Budget(int(rng.integers(1, 60)), int(rng.integers(1, 30)))
    scored, _ = run(lines, budget)
    assert sorted(scored) == sorted(expected(lines))


def test_prefixes_are_cut_where_those_of_other_items_are():
    shots = list(range(200))
    cuts = []
    for more in ([], [7], [7, 8, 9]):  # what the items' own beginnings happen to share
        lines = [line([*shots, *more, 300 + item], [1, 2]) for item in range(40)]
        found = [r for r in rows(tree(lines), Budget(96, 100)) if not len(r.scored.owners)]
        cuts.append([(r.start, r.start + len(r.tokens)) for r in found])
    assert cuts[0][:2] == cuts[1][:2] == cuts[2][:2] == [(0, 96), (96, 3 * EVEN)]


def test_shared_prefixes_are_run_once():
    shots, rng = list(range(100)), np.random.default_rng(0)
    lines = []
    for item in range(20):
        context = [*shots, 200 + item, *rng.integers(0, 99, 9)]
        lines += [line(context, [300 + choice, 1, 2, 3]) for choice in range(4)]
    _, n_tokens = run(lines, Budget(64, 1000))
    # The last token of a continuation is scored and never run.
    assert n_tokens == 100 + 20 * (10 + 4 * 3)


def test_a_short_beginning_is_repeated_rather_than_run_alone():
    lines = [line([1, 2, item], [3, 4]) for item in range(10, 50)]
    found = list(rows(tree(lines), Budget(60, 100)))
    assert len(found) == 2
    assert [row.start for row in found] == [0] * len(found)
    assert sum(len(row.tokens) for row in found) == 40 * 2 + 2 * len(found)


def test_equal_requests_are_run_once_and_all_answered():
    lines = [line([1, 2], [3, 4])] * 3
    scored, n_tokens = run(lines, Budget(100, 100))
    assert n_tokens == 3
    assert sorted(scored) == sorted(expected(lines))


def test_one_token_choices_share_a_position():
    lines = [line([1, 2, 3], [choice]) for choice in range(2000)]
    (row,) = rows(tree(lines), Budget(100, 100))
    assert row.tokens.tolist() == [1, 2, 3]
    assert set(row.scored.offsets.tolist()) == {2}
    assert row.scored.targets.tolist() == list(range(2000))


def test_prefixes_of_one_another_do_not_exhaust_the_stack():
    lines = [line([1] * n, [2]) for n in range(1, 2000)]
    scored, _ = run(lines[::40], Budget(300, 100))
    assert sorted(scored) == sorted(expected(lines[::40]))
    found = list(rows(tree(lines), Budget(2048, 2048)))
    assert sum(len(row.scored.owners) for row in found) == len(lines)


def test_a_long_text_in_very_many_pieces():
    lines = [line([1], range(5000))]
    scored, n_tokens = run(lines, Budget(3, 2))
    assert n_tokens == 5000
    assert len(scored) == 5000


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [1, 5, 16])
def test_blocks_cover_a_row_and_hold_what_their_tokens_see(seed, size):
    rng = np.random.default_rng(seed)
    for row in rows(tree(random_lines(rng)), Budget(50, 50)):
        found = blocks(row, size)
        assert [block.low for block in found] == [0, *(block.high for block in found[:-1])]
        assert found[-1].high == len(row.tokens)
        for block in found:
            assert block.low < block.high
            for position in range(block.low, block.high):
                seen = [j for j in range(position + 1) if position < row.last[j]]
                assert min(seen) >= block.first
