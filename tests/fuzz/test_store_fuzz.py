"""The store: what was whole comes back as it was, and damage is an error that says where."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from prefbench.errors import StoreError
from prefbench.records import Answer, Record
from prefbench.rows import Batch
from prefbench.store import Cell, Store
from tests.fuzz.conftest import examples

HEADER = {"batch_size": 2, "plan": "é\u2028"}

TEXTS = st.text() | st.text(st.sampled_from('"\\\n\r\t\0\x1b\u2028\u2029\ufeff{}[],é😀'))
FLOATS = st.floats(allow_nan=False)
COUNTS = st.integers(0, 2**31 - 1)


def some(each: st.SearchStrategy, most: int = 6) -> st.SearchStrategy:
    """A few, and now and then very many alike."""
    lengths = st.sampled_from((*range(most), 3000))
    return st.builds(
        lambda ones, n: (ones * n)[:n], st.lists(each, min_size=1, max_size=2), lengths
    ).map(tuple)


def answers(items: st.SearchStrategy) -> st.SearchStrategy[Answer]:
    return st.builds(
        Answer,
        item=items,
        texts=some(TEXTS),
        logps=some(FLOATS),
        greedy=some(st.booleans()),
        n_tokens=some(COUNTS),
        n_bytes=some(COUNTS),
        n_cut=COUNTS,
        unfinished=some(st.booleans()),
        reason=st.none() | TEXTS,
        token_ids=st.lists(some(COUNTS, 3), max_size=2).map(tuple),
        token_logps=st.lists(some(FLOATS, 3), max_size=2).map(tuple),
        gram=some(FLOATS),
        numbers=st.dictionaries(TEXTS, FLOATS, max_size=4),
        cosines=some(st.floats(-1, 1, width=32)),
    )


BATCHES = st.builds(Batch, TEXTS, st.lists(answers(COUNTS), max_size=3))


@contextmanager
def opened(folder: str) -> Iterator[Cell]:
    with Store(Path(folder)).claim("cell") as cell:
        assert cell is not None
        yield cell


@examples(60)
@given(st.lists(answers(st.none()), min_size=1, max_size=4))
def test_an_answer_survives_journal_and_parquet(found: list[Answer]) -> None:
    found = [Answer(**{**vars(answer), "item": n}) for n, answer in enumerate(found)]
    with tempfile.TemporaryDirectory() as folder, opened(folder) as cell:
        cell.resume(HEADER)
        cell.append(7, Batch("texts", found))
        kept = cell.resume(HEADER)
        assert kept == {7: Batch("texts", found)}
        assert repr(kept[7].answers) == repr(found)  # −0.0 is not 0.0, True is not 1
        cell.seal(found, [], dict.fromkeys(range(len(found)), ""), {})
        assert repr(cell.store.answers("cell")) == repr(found)


ANY = st.text(
    st.sampled_from("a\ud800\udfff\udc80\U0001f600") | st.characters(exclude_categories=())
)
"""Text with halves of characters, as a server's JSON may say them."""


@examples(40)
@given(ANY, ANY)
def test_no_text_is_too_odd_to_be_kept(text: str, reason: str) -> None:
    """Half a character is U+FFFD in a row, and what it is in a manifest."""
    answer = Answer(0, texts=(text,), reason=reason)
    whole = "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in text)
    with tempfile.TemporaryDirectory() as folder, opened(folder) as cell:
        cell.resume({"plan": text})
        cell.append(0, Batch("", [answer]))
        [kept] = cell.resume({"plan": text})[0].answers
        assert kept.texts == (whole,)
        cell.seal([answer], [Record(0, "a", None, reason)], {0: text}, {"name": text})
        assert cell.store.answers("cell") == [kept]
        assert cell.store.records("cell")["cluster"].to_pylist() == [whole]
        assert cell.store.manifest("cell") == {"name": text}
        cell.store.write_plan("plan", {"name": text})
        assert cell.store.plans() == [{"name": text}]
        cell.fail(reason)
        assert cell.store.failure("cell") == reason


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 4), BATCHES),
        st.tuples(st.just("crash"), st.floats(0, 1), st.booleans()),
        st.tuples(st.just("leave"), st.sampled_from(("answers", "records")), st.none()),
    ),
    max_size=8,
)


@examples(60)
@given(STEPS)
def test_whatever_happens_between_the_writes_the_whole_batches_come_back(steps: list) -> None:
    """Batches are appended; the machine dies with any part of the journal on the disk, or while a
    cell is being sealed; the cell is sealed at last."""
    written: list[tuple[int, Batch]] = []
    ends: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "cells" / "cell" / "journal.jsonl"
        with opened(folder) as cell:
            assert cell.resume(HEADER) == {}
        ends = [journal.stat().st_size]
        for kind, what, more in steps:
            with opened(folder) as cell:
                if kind == "append":
                    cell.append(what, more)
                    written.append((what, more))
                    ends.append(journal.stat().st_size)
                elif kind == "crash":
                    whole = journal.read_bytes()
                    length = int(what * len(whole))
                    # Some file systems keep the length and lose what was in it.
                    lost = b"\0" * (len(whole) - length) if more else b""
                    journal.write_bytes(whole[:length] + lost)
                    n_whole = sum(end <= length for end in ends)
                    written, ends = written[: max(0, n_whole - 1)], ends[: max(1, n_whole)]
                else:
                    (cell.folder / f"{what}.parquet").write_bytes(b"PAR1 torn")
                    (cell.folder / f".{what}.parquet.1").write_bytes(b"PAR1")
                assert cell.resume(HEADER) == dict(written)
                assert not cell.store.is_sealed("cell")
        with opened(folder) as cell:
            kept = cell.resume(HEADER)
            found = [Answer(n) for n in range(3)]
            cell.seal(
                found, [Record(1, "acc", 0.5)], dict.fromkeys(range(3), "c"), {"n": len(kept)}
            )
            assert cell.store.is_sealed("cell")
            assert cell.store.answers("cell") == found
            assert cell.store.records("cell").to_pydict()["acc"] == [None, 0.5, None]
            assert cell.store.manifest("cell") == {"n": len(dict(written))}
            assert not journal.exists()


JSONS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("batch", "texts", "answers", "item", "format", "reason", "judging"))
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())
DEEP = st.integers(1, 100_000).map(lambda n: b"[" * n)
DAMAGE = st.one_of(
    st.binary(max_size=100),
    JSONS,
    DEEP,
    DEEP.map(lambda deep: deep + b"]" * len(deep)),
    st.just(b'{"batch": ' + b"9" * 5000 + b"}"),
    st.just(b'"\xff\xfe"'),
)


@examples(150)
@given(DAMAGE, st.lists(DAMAGE, max_size=2))
def test_a_journal_of_any_lines_is_cut_where_it_stops_being_one(first: bytes, rest: list) -> None:
    with tempfile.TemporaryDirectory() as folder, opened(folder) as cell:
        good = Batch("t", [Answer(1, logps=(-1.0,))])
        cell.resume(HEADER)
        cell.append(0, good)
        with cell.journal.open("ab") as file:
            file.write(b"\n".join([first, *rest]) + b"\n")
        assert cell.resume(HEADER) == {0: good}
        cell.append(1, good)
        assert cell.resume(HEADER) == {0: good, 1: good}


FILES = (
    "store.json",
    "cells/cell/manifest.json",
    "cells/cell/failure.json",
    "cells/cell/answers.parquet",
    "cells/cell/records.parquet",
    "plans/p.json",
    "items/d.parquet",
)


def read_all(folder: str) -> list[str]:
    """Reads everything; what the store said against it."""
    said = []
    try:
        store = Store(Path(folder), create=False)
    except StoreError as error:
        return [str(error)]
    for act in (
        lambda: store.is_sealed("cell"),
        lambda: store.manifest("cell"),
        lambda: store.failure("cell"),
        lambda: store.records("cell"),
        lambda: store.answers("cell"),
        lambda: store.behind("cell"),
        lambda: store.items("d"),
        lambda: store.plans(),
    ):
        try:
            act()
        except StoreError as error:
            said.append(str(error))
    return said


@cache
def whole() -> dict[str, bytes]:
    """A results directory's files."""
    with tempfile.TemporaryDirectory() as folder:
        with opened(folder) as cell:
            found = [Answer(n, texts=("abc",), logps=(-1.0,), numbers={"a": 1.0}) for n in range(5)]
            clusters = dict.fromkeys(range(5), "c")
            cell.seal(found, [Record(n, "acc", 0.5) for n in range(5)], clusters, {})
            cell.fail("no")
            cell.store.write_plan("p", {"when": "2026"})
            cell.store.write_items("d", [{"item": 0, "prompt": "p"}])
        assert read_all(folder) == []
        return {name: (Path(folder) / name).read_bytes() for name in FILES}


@contextmanager
def results(changed: dict[str, bytes]) -> Iterator[str]:
    """The directory, with files that have become something else."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {**whole(), **changed}.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield folder


@examples(100)
@given(st.sampled_from(FILES), DAMAGE)
def test_a_file_of_any_bytes_is_an_error_that_names_it(name: str, content: bytes) -> None:
    with results({name: content}) as folder:
        for said in read_all(folder):
            assert name in said


@examples(100)
@given(
    st.sampled_from([name for name in FILES if name.endswith(".parquet")]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    st.none() | st.floats(0, 1),
)
def test_bytes_that_changed_in_parquet_are_an_error(
    name: str, changes: list[tuple[float, int]], cut: float | None
) -> None:
    content = bytearray(whole()[name])
    for place, value in changes:
        content[min(int(place * len(content)), len(content) - 1)] = value
    with results(
        {name: bytes(content if cut is None else content[: int(cut * len(content))])}
    ) as folder:
        for said in read_all(folder):
            assert name in said
