from __future__ import annotations

import math
from pathlib import Path

import pytest

from prefbench.errors import DataError
from prefbench.interchange.rows import read_rows, write_rows


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "rows.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        '[{"a": "x"}, {"a": "y"}]',
        ' \n[\n {"a": "x"},\n {"a": "y"}\n]\n',
        '{"a": "x"}\n\n{"a": "y"}',
        '\ufeff{"a": "x"}\r\n{"a": "y"}\r\n',
    ],
)
def test_a_list_and_lines_hold_the_same_rows(tmp_path: Path, content: str) -> None:
    assert [row.text("a") for row in read_rows(written(tmp_path, content))] == ["x", "y"]


def test_a_line_separator_inside_a_text_ends_no_row(tmp_path: Path) -> None:
    (row,) = read_rows(written(tmp_path, '{"a": "one\u2028two\x85three"}\n'))
    assert row.text("a") == "one\u2028two\x85three"


@pytest.mark.parametrize("lines", [True, False])
def test_any_text_survives_writing_and_reading(tmp_path: Path, lines: bool) -> None:
    rows = [{"a": "\ud800 \x00 \u2028 é \U0001f600", "b": [1.5, None]}, {"a": ""}]
    write_rows(rows, tmp_path / "out", lines=lines)
    assert [row.fields for row in read_rows(tmp_path / "out")] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": "\xff"}', "byte 8 is not UTF-8"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ('{"a": 1}\n{"a": \n', "line 2: not JSON"),
        ('[{"a": 1},]', "rows.json: not JSON"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "line 1: not JSON.*the key 'c' twice"),
        ('{"a": ' + "9" * 5000 + "}", "line 1: not JSON"),
        ('[{"a": 1}, 7]', "row 2: holds 7 where an object is needed"),
        ('["a\\u001b[31m"]', r"row 1: holds 'a\\x1b\[31m' where an object"),
        ("[]", "holds no rows"),
        (" \n\n", "holds no rows"),
        ("[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(written(tmp_path, content))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read: No such file"):
        read_rows(tmp_path / "none.json")


def test_fields_are_what_they_must_be(tmp_path: Path) -> None:
    content = '{"t": "x", "n": 2, "f": NaN, "b": true, "l": [], "null": null, "big": 1' + "0" * 400
    (row,) = read_rows(written(tmp_path, content + "}"))
    assert (row.text("t"), row.text_or_none("null"), row.text_or_none("absent")) == (
        "x",
        None,
        None,
    )
    assert (row.id("t"), row.id("n"), row.number_or_none("n")) == ("x", "2", 2.0)
    assert math.isnan(row.number_or_none("f") or 0)
    assert row.number_or_none("null") is None
    assert row.number_or_none("big") == math.inf
    for message, read in (
        ("line 1, key 'n': holds 2 where a text", lambda: row.text("n")),
        ("key 'absent': a text is needed and there is none; the row has b, big, f", None),
        ("key 'b': holds True where a text", lambda: row.id("b")),
        ("key 'b': holds True where a number", lambda: row.number_or_none("b")),
        ("key 'l': holds list where a number", lambda: row.number_or_none("l")),
        ("key 'gone': is absent", lambda: row.number_or_none("gone")),
    ):
        with pytest.raises(DataError, match=message):
            (read or (lambda: row.text("absent")))()


def test_what_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds what JSON cannot"):
        write_rows([{"a": math.nan}], tmp_path / "out", lines=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="cannot be written"):
        write_rows([{"a": 1}], tmp_path / "no" / "out", lines=True)
