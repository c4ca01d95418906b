from __future__ import annotations

import resource
from pathlib import Path

import pytest

from prefbench.errors import StoreError
from prefbench.watch.lines import Lines


def test_each_reader_gets_each_line_once(tmp_path: Path) -> None:
    file = tmp_path / "watch" / "lines.jsonl"
    first, second = Lines(file), Lines(file)
    assert not list(first.new())
    first.append({"n": 1})
    assert list(second.new()) == [{"n": 1}]
    second.append({"n": "half a pair \ud800\nand more"})
    assert list(second.new()) == [{"n": "half a pair \ud800\nand more"}]
    assert [line["n"] for line in first.new()] == [1, "half a pair \ud800\nand more"]


@pytest.mark.parametrize("torn", [b'{"n": 2', b"\xff\xfe", b"", b"\n\n", b"[" * 100_000])
def test_what_is_torn_spoils_only_itself(tmp_path: Path, torn: bytes) -> None:
    lines = Lines(tmp_path / "lines.jsonl")
    lines.append({"n": 1})
    with lines.file.open("ab") as file:
        file.write(torn)
    reader = Lines(lines.file)
    assert list(reader.new()) == [{"n": 1}]  # it may be whole yet
    lines.append({"n": 3})
    assert list(reader.new()) == [{"n": 3}]


def test_a_line_for_which_there_is_no_room_is_told(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "lines.jsonl")
    lines.append({"n": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (lines.file.stat().st_size + 20, before[1]))
    try:  # Python ignores the signal, so that writing fails as on a full disk
        with pytest.raises(StoreError, match=r"lines.jsonl: cannot be written: File too large"):
            lines.append({"n": "2" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines.append({"n": 3})
    assert list(Lines(lines.file).new()) == [{"n": 1}, {"n": 3}]
