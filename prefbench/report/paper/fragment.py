"""The table as a piece of HTML, to be put into a page that exists."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Column
from prefbench.records import Checkpoint
from prefbench.report.layout import plain
from prefbench.report.paper.caption import (
    Conditions,
    Missing,
    caption,
    correction,
    footnotes,
    items,
    shortened,
)
from prefbench.report.paper.heads import levels
from prefbench.report.tables import MARKS, figure, label

STYLE = """
.prefbench-board { overflow-x: auto; }
.prefbench-table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.prefbench-table th, .prefbench-table td {
  border: 0; padding: .15em .6em; white-space: nowrap; text-align: center; font-weight: normal;
}
.prefbench-table th:first-child { text-align: left; }
.prefbench-table thead { border-top: 1px solid; }
.prefbench-table thead, .prefbench-table tbody, .prefbench-table .prefbench-span {
  border-bottom: 1px solid;
}
.prefbench-table td.prefbench-value { text-align: right; }
.prefbench-best .prefbench-figure { font-weight: bold; }
.prefbench-interval { font-size: .8em; opacity: .75; }
.prefbench-table sup { font-size: .7em; line-height: 0; }
.prefbench-marks { display: inline-block; min-width: 1.6em; text-align: left; }
.prefbench-table td.prefbench-note, .prefbench-caption { white-space: normal; text-align: left; }
.prefbench-note p, .prefbench-caption p {
  position: sticky; left: 0; width: fit-content; max-width: min(50em, 92vw); margin: .2em 0;
}
.prefbench-note { font-size: .85em; }
"""


def fragment(
    shown: Shown,
    *,
    conditions: Mapping[str, Conditions] | None = None,
    letters: bool = True,
    style: bool = True,
) -> str:
    """A table with its caption and notes; runs nothing, and asks nobody for anything.

    Every part has a class that begins with `prefbench-`; a value's title says its n, its difference
    to the baseline and what that is worth.

    Args:
        shown: what to print.
        conditions: how each group was measured, of `conditions_of`, for the notes.
        letters: letter groups beside the values.
        style: bring a style of its own, which holds for this table alone.
    """
    board, missing = shown.board, Missing(shown)
    rows = [
        _element(
            "tr",
            [
                _element("th", _text(label(row, board)), scope="row", class_="prefbench-row"),
                *(_cell(shown, row, column, missing, letters) for column in shown.columns),
            ],
        )
        for row in board.rows
    ]
    about = caption(shown, marks=MARKS, letters=letters)
    table = _element(
        "table",
        [
            _element("caption", _element("p", _text(" ".join(about))), class_="prefbench-caption"),
            _element("thead", _heads(shown)),
            _element("tbody", rows),
            _element("tfoot", [*_feet(shown), _notes(shown, conditions, missing)]),
        ],
        class_="prefbench-table",
    )
    return _element(
        "div", [f"<style>{STYLE}</style>\n" if style else "", table], class_="prefbench-board"
    )


def _heads(shown: Shown) -> list[str]:
    found = levels(shown.columns)
    lines = []
    for level, spans in enumerate(found):
        innermost = level == len(found) - 1
        cells = [_element("th", "Method" if innermost else "", scope="col")]
        for start, end, text in spans:
            cells.append(
                _element(
                    "th",
                    _text(text),
                    scope="col" if innermost else "colgroup",
                    class_="prefbench-metric" if innermost else "prefbench-span" if text else "",
                    colspan=str(end - start) if end - start > 1 else "",
                )
            )
        lines.append(_element("tr", cells))
    return lines


def _cell(shown: Shown, row: Checkpoint, column: Column, missing: Missing, letters: bool) -> str:
    entry = shown.entry(row, column)
    if entry is None:
        number = _element("sup", str(missing.number(row, column)))
        reason = shortened(shown.board.reason(row, column))
        return _element("td", ["—", number], class_="prefbench-missing", title=reason)
    estimate, metric = entry.score.estimate, column.metric
    verdict = shown.verdict(row, column)
    classes = ["prefbench-value", f"prefbench-{verdict}" if verdict else ""]
    classes.append("prefbench-best" if shown.in_best_group(row, column) else "")
    parts = [
        _element("span", _text(_signed(figure(estimate.value, metric))), class_="prefbench-figure")
    ]
    marks = (shown.letters(row, column) if letters else "") + MARKS[verdict]
    parts.append(_element("sup", _text(marks), class_="prefbench-marks"))
    if not math.isnan(estimate.low):
        bounds = (_signed(figure(bound, metric)) for bound in (estimate.low, estimate.high))
        parts.append(
            _element("span", f" [{_text(', '.join(bounds))}]", class_="prefbench-interval")
        )
    title = "\n".join(_told(shown, row, column))
    return _element("td", parts, class_=" ".join(filter(None, classes)), title=title)


def _told(shown: Shown, row: Checkpoint, column: Column) -> Iterable[str]:
    """What is known of a value: how many items, its difference, and what would separate it."""
    entry = shown.board.entries[row.name, column.key]
    estimate, gap, metric = entry.score.estimate, entry.difference, column.metric
    yield f"n = {estimate.n}" + (f", {estimate.n_missing} missing" if estimate.n_missing else "")
    if gap is None:
        return
    low, high = (_signed(figure(bound, metric)) for bound in (gap.low, gap.high))
    interval = "" if math.isnan(gap.low) else f" [{low}, {high}]"
    value = _signed(figure(gap.value, metric))
    plus = "+" if gap.value > 0 and any(sign in value for sign in "123456789") else ""
    yield f"difference to the baseline: {plus}{value}{interval}"
    p = shown.adjusted(row, column)
    if not math.isnan(p):
        said = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        yield f"{said}, {correction(shown)}"
        needed = shown.items_needed(row, column)
        if not p < shown.alpha and needed:
            yield f"{needed} more items would separate the two, were the difference what it seems"


def _feet(shown: Shown) -> list[str]:
    """How many items each column has, and the difference that they show."""
    least = [shown.detectable(column) for column in shown.columns]
    lines = {"Items": [items(shown, column) for column in shown.columns]}
    if any(one is not None for one in least):
        lines["Detectable"] = [
            "" if one is None else figure(one, column.metric)
            for one, column in zip(least, shown.columns, strict=True)
        ]
    return [
        _element(
            "tr",
            [_element("th", name, scope="row"), *(_element("td", _text(text)) for text in texts)],
            class_=f"prefbench-{name.lower()}",
        )
        for name, texts in lines.items()
    ]


def _notes(shown: Shown, conditions: Mapping[str, Conditions] | None, missing: Missing) -> str:
    notes = [_element("p", _text(note)) for note in footnotes(shown, conditions)]
    notes += [
        _element("p", [_element("sup", str(number)), " ", _text(reason)])
        for number, reason in missing.notes()
    ]
    columns = str(len(shown.columns) + 1)
    return _element("tr", _element("td", notes, class_="prefbench-note", colspan=columns))


def _signed(text: str) -> str:
    """A figure with a true minus sign."""
    return text.replace("-", "−") if "e" not in text else text


def _text(text: str) -> str:
    """Any text as HTML that shows it; signs that reorder or steer a line are left out."""
    return html.escape(plain(text))


def _element(tag: str, inside: str | Iterable[str], *, class_: str = "", **attributes: str) -> str:
    """An element around HTML. Attributes are any text; empty ones are left out."""
    given = {"class": class_, **attributes}
    said = "".join(
        f' {name}="{html.escape(_steady(value))}"' for name, value in given.items() if value
    )
    body = inside if isinstance(inside, str) else "".join(inside)
    return f"<{tag}{said}>{body}</{tag}>" + ("\n" if tag in _LINES else "")


_LINES = ("caption", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "p", "div")
"""Elements that end a line, for whoever reads the source."""


def _steady(text: str) -> str:
    """Text of several lines without what could steer or reorder them."""
    return "\n".join(plain(line) for line in text.split("\n"))
