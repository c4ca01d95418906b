from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from prefbench.boards.shown import Shown
from prefbench.report.paper.caption import Conditions
from prefbench.report.paper.fragment import STYLE, fragment
from prefbench.report.tables import figure
from tests.report.paper.test_latex import shown

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "</td></tr></table><iframe src=//evil.example>",
    "</style><style>*{display:none}",
    "javascript:alert(1)",
    "&lt;b&gt; &amp; &#x3c;",
    "evil\x1b[31m\u202egpj.exe\u2066\x00",
    "日本語 🙂 <!-- x --> ]]> <![CDATA[",
    "a\nb\r\nc",
)
TAGS = {"div", "style", "table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "p", "sup",
        "span"}  # fmt: skip
ATTRIBUTES = {"class", "scope", "colspan", "title"}


@dataclass
class Cell:
    tag: str
    attributes: dict[str, str]
    text: str = ""

    @property
    def columns(self) -> int:
        return int(self.attributes.get("colspan", "1"))


@dataclass
class Reader(HTMLParser):
    """What a browser would make of it: rows of cells, and every tag and attribute."""

    rows: list[list[Cell]] = field(default_factory=list)
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    within: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs)
        self.elements.append((tag, attributes))
        self.within.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(Cell(tag, attributes))

    def handle_endtag(self, tag: str) -> None:
        assert self.within.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.within:
            self.words.append(data)
        if {"td", "th"} & set(self.within):
            self.rows[-1][-1].text += data

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def handle_decl(self, decl: str) -> None:
        self.others.append(decl)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)


def read(source: str) -> Reader:
    """Parses a fragment; every element in it must be closed where it was opened."""
    reader = Reader()
    reader.feed(source)
    reader.close()
    assert reader.within == []
    return reader


def is_harmless(reader: Reader) -> bool:
    """Only elements and attributes of a table, and none that names an address or a script."""
    return (
        not reader.others
        and {tag for tag, _ in reader.elements} <= TAGS
        and {name for _, attributes in reader.elements for name in attributes} <= ATTRIBUTES
        and sum(tag == "style" for tag, _ in reader.elements) == 1
    )


def entries(table: Shown, source: str) -> list[list[Cell]]:
    """The rows of the table's body, each with its name."""
    n_heads, n_rows = 3, len(table.board.rows)
    return read(source).rows[n_heads : n_heads + n_rows]


def test_each_row_spans_all_columns() -> None:
    table = shown(names=("broken",))
    reader = read(fragment(table))
    assert {sum(cell.columns for cell in row) for row in reader.rows} == {len(table.columns) + 1}
    heads = [[(cell.text, cell.columns) for cell in row] for row in reader.rows[:3]]
    assert heads[0] == [("", 1), ("", 1), ("", 1), ("quiz_100%", 1), ("duel", 2)]
    assert heads[1][1:3] == [("pairs", 2), ("first 60 items", 1)]
    assert heads[2][0] == ("Method", 1)
    assert heads[2][1] == ("perplexity ↓", 1)


def test_a_value_shows_its_interval_and_says_the_rest_in_its_title() -> None:
    table = shown()
    _, (name, cell, *_) = entries(table, fragment(table))
    column, row = table.columns[0], table.board.rows[1]
    entry = table.entry(row, column)
    assert entry is not None
    assert entry.difference is not None
    value, low, high = (figure(bound, column.metric) for bound in entry.score.estimate[:3])
    assert name.text == "DPO"
    assert cell.text == f"{value}a▲ [{low}, {high}]"
    assert cell.attributes["class"] == "prefbench-value prefbench-better prefbench-best"
    gap, gap_low, gap_high = (figure(b, column.metric) for b in entry.difference[:3])
    assert cell.attributes["title"].split("\n") == [
        "n = 60",
        f"difference to the baseline: {gap} [{gap_low}, {gap_high}]".replace("-", "−"),
        "p < 0.001, Holm's correction over 5 comparisons",
    ]


def test_what_may_be_chance_says_what_would_separate_it() -> None:
    table = shown(gain=0.1)
    _, cells = entries(table, fragment(table))
    needed = 0
    for column, cell in zip(table.columns, cells[1:], strict=True):
        more = table.items_needed(table.board.rows[1], column)
        said = f"{more} more items would separate the two" in cell.attributes["title"]
        assert said == (not table.verdict(table.board.rows[1], column))
        needed += said
    assert needed


def test_a_missing_value_has_a_dash_and_its_reason() -> None:
    table = shown(names=("broken",))
    source = fragment(table)
    *_, (name, *cells) = entries(table, source)
    assert name.text == "broken"
    assert {cell.text for cell in cells} == {"—1"}
    assert {cell.attributes["title"] for cell in cells} == {"pickled broken"}
    assert "1 pickled broken" in read(source).rows[-1][0].text


def test_hostile_names_stay_text() -> None:
    table = shown(names=HOSTILE)
    reader = read(fragment(table))
    assert is_harmless(reader)
    text = "".join(reader.words)
    for name in HOSTILE[:7]:
        assert name in text
        assert f"pickled {name}" in text
    everything = text + "".join(v for _, attributes in reader.elements for v in attributes.values())
    assert not re.search("[\x00\x1b\r\u202e\u2066]", everything)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=3, unique=True))
@settings(max_examples=15, deadline=None)
def test_any_name_stays_text(names: list[str]) -> None:
    assert is_harmless(read(fragment(shown(names=tuple(names)))))


def test_classes_and_style_are_its_own() -> None:
    reader = read(fragment(shown(names=("broken",)), style=True))
    classes = {c for _, attributes in reader.elements for c in attributes.get("class", "").split()}
    assert all(name.startswith("prefbench-") for name in classes)
    selectors = [part for rule in re.findall(r"([^{}]+)\{", STYLE) for part in rule.split(",")]
    assert all(selector.strip().startswith(".prefbench-") for selector in selectors)
    assert set(re.findall(r"\.(prefbench-[a-z]+)", STYLE)) <= classes
    assert not re.search(r"url|@import|http", STYLE)
    assert "<style>" not in fragment(shown(), style=False)


def test_letters_and_conditions_are_as_asked_for() -> None:
    table = shown()
    assert "share a letter" in fragment(table)
    assert "share a letter" not in fragment(table, letters=False)
    _, (_, cell, *_) = entries(table, fragment(table, letters=False))
    assert re.match(r"[\d.]+▲ ", cell.text)
    given_ = {"quiz_100%": Conditions(n_shots=5, shots="train")}
    assert "5 examples from the train split" in fragment(table, conditions=given_)
