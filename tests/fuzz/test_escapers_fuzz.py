"""Escapers: whatever a text says, it is shown and does nothing.

Markdown is read by markdown-it-py, which rich brings.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from prefbench.report.layout import escaped, plain, safe_cell
from prefbench.report.page.svg import element
from prefbench.report.page.visible import visible
from prefbench.report.paper.tex import tex
from tests.fuzz.conftest import examples
from tests.tex import compile_tex

PIECES = st.sampled_from(
    (
        "\\", "{", "}", "$", "&", "#", "_", "%", "^", "~", "<", ">", "[", "]", "*", "`", '"', "'",
        "--", "<<", "?`", "^^5c", "\\input{x}", "</script>", "<!--", "]]>", "&lt;", "&#x3c;", "|",
        "=1+1", "+", "-", "@", "\t", "\r", "\n", "\x1b[2J", "\x9b", "\u202e", "\u2028", "\0",
        "\ud800", "é", "e\u0301\u0323", "中", "😀", "−", "ﬁ", "½", "\u00a0", "!", "(", ")", "http://a.b",
    )
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=8).map("".join) | st.text(st.characters(exclude_categories=()))
COMMAND = re.compile(r"\\[A-Za-z]+|\\.", re.DOTALL)
ACTS = re.compile(
    r"\\(input|include|write|read|open\w*|def|[gex]def|let|catcode|csname|begin|end|special|immediate)"
    r"(?![A-Za-z])"
)


@examples(300)
@given(TEXTS, st.booleans())
def test_latex_has_no_sign_that_acts(text: str, breaks: bool) -> None:
    source = tex(text, breaks=breaks)
    assert source.isascii()
    assert source.isprintable()
    assert not ACTS.search(source)
    bare = COMMAND.sub("", source)
    assert not set(bare) & set('\\#%&_"<>|')
    assert bare.count("$") % 2 == 0
    depth = 0
    for sign in bare:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0


def test_latex_compiles(tmp_path: Path) -> None:
    samples: list[str] = []

    @examples(150)
    @given(TEXTS)
    def collect(text: str) -> None:
        samples.append(text)

    collect()
    lines = "\n\n".join(f"x{tex(text, breaks=True)}x" for text in samples)
    cells = "\n".join(f"{tex(text)} & {tex(text)} \\\\" for text in samples[:40])
    printed = compile_tex(
        "\\documentclass{article}\\begin{document}\\raggedright\n"
        f"{lines}\n\n\\begin{{tabular}}{{ll}}\n{cells}\n\\end{{tabular}}\n\\end{{document}}\n",
        tmp_path,
    )
    assert "Missing character" not in printed.log


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def seen(html: str) -> _Seen:
    found = _Seen()
    found.feed(html)
    found.close()
    return found


@examples(300)
@given(TEXTS)
def test_html_shows_any_text_and_has_no_tag_of_its_own(text: str) -> None:
    found = seen(element("text", text, title=text))
    assert found.tags == [("text", [("title", visible(text))])]
    assert found.text == visible(text)
    visible(text).encode()


@examples(300)
@given(TEXTS)
def test_markdown_shows_any_text_as_it_is(text: str) -> None:
    found = seen(MarkdownIt("commonmark", {"html": True}).renderInline(escaped(plain(text))))
    assert found.tags == []


@examples(300)
@given(TEXTS)
def test_a_terminal_gets_no_sign_that_steers_it(text: str) -> None:
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", plain(text))


@examples(300)
@given(TEXTS)
def test_a_cell_is_no_formula(text: str) -> None:
    cell = safe_cell(text)
    assert cell.strip()[:1] not in tuple("=+-@＝＋－＠")
    assert safe_cell(-1.5) == -1.5
