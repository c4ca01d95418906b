"""Verdicts are paid for once, on whichever machine."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

import prefbench.buckets.bucket
import prefbench.judges.chat
from prefbench.buckets.places import place
from tests.buckets.server import Server
from tests.judged import Place, asked_of, make_place, patient, rule
from tests.misbehaving import Misbehaving, wired

pytestmark = pytest.mark.xdist_group("s3")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefbench.judges.chat, "Endpoint", patient())


def at(cache: Path, address: str, here: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same place as another machine has it, with results on a bucket."""
    prefbench.buckets.bucket._bucket.cache_clear()
    monkeypatch.setenv("PREFBENCH_CACHE", str(cache))
    return dataclasses.replace(here, results=place(address))


def test_what_one_machine_was_told_another_does_not_ask(
    small_zoo: Path,
    tmp_path: Path,
    server: Server,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = make_place(small_zoo, tmp_path, ("sft", "dpo"))
    asked = Misbehaving(rule)
    with wired(asked.answer) as (url, _):
        judge = here.judge(url=url)
        one = at(tmp_path / "a", address, here, monkeypatch)
        shutil.copytree(here.results / "cells", one.results / "cells")
        shutil.copytree(here.results / "items", one.results / "items")
        outcome = one.run(judge)
        assert not outcome.failed
        assert outcome.left is None
        table, first = one.table(), asked_of(asked)
        assert set(first.values()) == {1}

        other = at(tmp_path / "b", address, here, monkeypatch)
        assert other.table() == table
        assert other.run(judge).measured == ()
        # As if the machine had died when all was said and nothing sealed.
        root = address.removeprefix("s3://")
        cells = [cell["cell"] for cell in one.store.plans()[-1]["comparisons"]]
        for cell in cells:
            server.files.rm(f"{root}/cells/{cell}", recursive=True)
        last = at(tmp_path / "c", address, here, monkeypatch)
        again = last.run(judge)
        assert set(again.measured) == set(cells)
        assert not again.failed
        assert last.table() == table
        assert asked_of(asked) == first
