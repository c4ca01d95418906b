"""Broken checkpoints, sixty kinds in one directory, from the command line: see `broken.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.breaking import N_ITEMS, Found, measure_broken, shown
from tests.reliability.broken import BROKEN, HARMLESS, SPEECHLESS, Broken
from tests.reliability.commands import Commands


@pytest.fixture(scope="module")
def found(commands: Commands, small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    return measure_broken(commands, small_zoo, tmp_path_factory.mktemp("broken"))


def test_the_rest_is_measured_and_nothing_is_run(found: Found) -> None:
    assert found.done.code == 1
    assert found.rows["sft"] == N_ITEMS
    assert not found.executed
    assert "Traceback" not in found.done.err
    assert not {"\x1b", "\u202e"} & {*found.done.err, *found.done.out, *found.notes}
    assert len(BROKEN) > 40


@pytest.mark.parametrize("one", BROKEN, ids=lambda one: one.name)
def test_a_broken_checkpoint_is_refused_with_its_reason(found: Found, one: Broken) -> None:
    assert one.said
    assert one.said in found.reasons[one.name]
    assert found.rows.get(one.name) == 0


@pytest.mark.parametrize("one", SPEECHLESS, ids=lambda one: one.name)
def test_what_gives_no_number_is_missing_with_its_reason(found: Found, one: Broken) -> None:
    assert found.rows[one.name] == 0
    assert one.said in found.notes
    assert one.said in found.missing[one.name]


@pytest.mark.parametrize("one", HARMLESS, ids=lambda one: one.name.partition("\x1b")[0])
def test_what_only_looks_bad_is_measured(found: Found, one: Broken) -> None:
    assert found.rows[shown(one.name)] == N_ITEMS
