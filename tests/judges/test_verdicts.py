"""The verdict store: what was paid for is kept, by content, whoever writes beside it."""

from __future__ import annotations

import dataclasses
import multiprocessing
from pathlib import Path

import pytest

from prefbench.errors import StoreError
from prefbench.judges.judge import Ask, Turn, Verdict
from prefbench.judges.verdicts import Verdicts

ASK = Ask((Turn("user", "Which is the largest?"),), "Jupiter.", "The sea.")
VERDICT = Verdict(1.0, None, "The first is right.\nBetter: A", 90, 12, 0.0004, {"model": "m"})


def add(verdicts: Verdicts, key: str, verdict: Verdict = VERDICT) -> None:
    verdicts.add(key, ASK, verdict, judge="strict", judge_key="j1")


def test_a_verdict_comes_back_as_it_was(tmp_path: Path) -> None:
    unreadable = Verdict(None, "no label", "I would rather not.\ud800")
    with Verdicts(tmp_path / "v.sqlite") as verdicts:
        add(verdicts, "a")
        add(verdicts, "b", unreadable)
    with Verdicts(tmp_path / "v.sqlite") as verdicts:
        found = verdicts.find(["b", "a", "nobody"])
    assert found["a"] == VERDICT
    assert found["b"] == dataclasses.replace(unreadable, reply="I would rather not.\\ud800")
    assert set(found) == {"a", "b"}


def test_the_first_verdict_under_a_key_stays(tmp_path: Path) -> None:
    with Verdicts(tmp_path / "v.sqlite") as verdicts:
        add(verdicts, "a")
        add(verdicts, "a", dataclasses.replace(VERDICT, preference=0.0))
        assert verdicts.find(["a"])["a"].preference == 1.0


def test_more_keys_than_one_query_takes(tmp_path: Path) -> None:
    keys = [f"k{i}" for i in range(1201)]
    with Verdicts(tmp_path / "v.sqlite") as verdicts:
        for key in keys:
            add(verdicts, key)
        assert set(verdicts.find(keys)) == set(keys)


def _write(file: Path, name: str) -> None:
    with Verdicts(file) as verdicts:
        for i in range(200):
            add(verdicts, f"{name}{i}")
            add(verdicts, f"both{i}")


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    file = tmp_path / "v.sqlite"
    writers = [spawn.Process(target=_write, args=(file, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    keys = [f"{name}{i}" for name in ("a", "b", "both") for i in range(200)]
    with Verdicts(file) as verdicts:
        assert len(verdicts.find(keys)) == 600


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.sqlite").write_text("not a database, but long enough to be taken for one" * 9)
    with pytest.raises(StoreError, match=r"v\.sqlite: cannot be read or written"):
        Verdicts(tmp_path / "v.sqlite")


def test_what_an_ask_is_kept_under() -> None:
    same = Ask((Turn("user", "Which is the largest?"),), "Jupiter.", "The sea.")
    others = [
        ASK.turned,
        dataclasses.replace(ASK, first="Jupiter"),
        dataclasses.replace(ASK, reference="Jupiter."),
        dataclasses.replace(ASK, conversation=(Turn("system", "Which is the largest?"),)),
        # The same letters, cut elsewhere.
        dataclasses.replace(ASK, first="Jupiter.The", second=" sea."),
    ]
    assert same.digest == ASK.digest
    assert len({ASK.digest, *(other.digest for other in others)}) == len(others) + 1
