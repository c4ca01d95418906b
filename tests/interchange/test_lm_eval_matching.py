"""Which item a document is."""

from __future__ import annotations

import pytest

from prefbench.interchange.matching import match

A = {"id": 1, "question": "Who drew the mill?", "choices": ["one", "two"]}
B = {"id": 2, "question": "Who paid for it?", "choices": ["one", "two"]}
C = {"id": 3, "question": "Who burnt it down?", "choices": ["one", "two"]}


def test_documents_are_found_wherever_they_stand() -> None:
    assert match({10: C, 11: A, 12: B}, {0: A, 1: B, 2: C}) == {10: 2, 11: 0, 12: 1}


def test_the_order_of_fields_does_not_matter() -> None:
    assert match({0: dict(reversed(A.items()))}, {7: A}) == {0: 7}


def test_what_is_no_item_has_none() -> None:
    assert match({0: A, 1: {**B, "question": "Who else?"}}, {0: A, 1: B}) == {0: 0}
    assert match({}, {0: A}) == {}
    assert match({0: A}, {}) == {}


def test_further_fields_of_one_side_do_not_matter() -> None:
    more = {0: {**A, "query": "x"}, 1: {**B, "query": "y"}}
    assert match(more, {5: A, 6: B}) == {0: 5, 1: 6}
    assert match({0: A, 1: B}, {5: more[0], 6: more[1]}) == {0: 5, 1: 6}


def test_shared_fields_must_tell_items_apart() -> None:
    ours = {5: {"topic": "the old mill", "question": "Who?"}}
    ours[6] = {"topic": "the old mill", "question": "Why?"}
    assert match({0: {"topic": "the old mill", "asked": "Why?"}}, ours) == {}


@pytest.mark.parametrize("shared", [{"id": 1}, {"id": "word"}, {"id": 1, "n": [2, 3]}])
def test_numbers_and_ids_are_no_evidence(shared: dict[str, object]) -> None:
    assert match({0: {**shared, "x": "some text"}}, {4: {**shared, "y": "some text"}}) == {}


def test_items_that_are_alike_are_taken_once_each() -> None:
    assert match({0: A, 1: A, 2: A}, {5: A, 6: A}) == {0: 5, 1: 6}
