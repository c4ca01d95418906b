"""Blocks of a table as tabulars of LaTeX: what is in a cell, and which columns stand together."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from prefbench.boards.shown import Shown
from prefbench.leaderboard import Column
from prefbench.metrics import Metric
from prefbench.records import Checkpoint
from prefbench.report.layout import plain
from prefbench.report.paper.caption import DAGGERS, IntervalStyle, Missing, items, reach
from prefbench.report.paper.heads import heads_of, levels
from prefbench.report.paper.tex import fitted, in_math, tex, width_of
from prefbench.report.tables import figure, label
from prefbench.stats.estimates import Estimate

MOST_ROWS = 36
"""Of a block; further rows stand in blocks of their own."""


ESTIMATED = 0.975
"""Of the room that may be used up: widths are estimated, to about 2 %."""


class Panel(NamedTuple):
    """One tabular."""

    source: str
    height: float
    """In lines."""


class _Cell(NamedTuple):
    """An entry's source, in parts that each make a column of their own: so all of them align."""

    value: str
    marks: str = ""
    interval: str = ""


@dataclass(frozen=True)
class _Printed:
    """A column ready to print."""

    column: Column
    cells: tuple[_Cell | str, ...]
    """By row; text alone where a value is missing and in the rows at the foot."""
    parts: tuple[str, ...]
    """Those of a cell's parts that any row has, in the order in which they are printed."""
    layout: str
    """What tabular is told of the parts."""
    width: float
    """In digits, heads included."""

    @property
    def group(self) -> str:
        return self.column.group.name

    def line(self, row: int) -> str:
        """A row's source in this column."""
        cell = self.cells[row]
        if isinstance(cell, str):
            return _over(len(self.parts), cell)
        return " & ".join(getattr(cell, part) for part in self.parts)


def panels_of(shown: Shown, style: IntervalStyle, *, letters: bool, room: int) -> list[Panel]:
    """A table in blocks that are no wider than a room in digits.

    It needs the packages array and booktabs, \\small type and a \\tabcolsep of 4pt.
    """
    feet = ["Items"]
    if any(shown.detectable(column) is not None for column in shown.columns):
        feet.append("Detectable")
    names = [*_names(shown, max(16, 2 * room // 5)), *feet]
    missing = Missing(shown)
    columns = [
        _printed(shown, column, style, letters, missing, with_detectable=len(feet) > 1)
        for column in shown.columns
    ]
    n, n_feet, named = len(shown.board.rows), len(feet), max(map(width_of, names))
    blocks = _blocks(columns, named, ESTIMATED * room)
    # As wide as the text, so that blocks above each other align; but not with a gulf in between.
    least = (0.5 if len(blocks) > 1 else 0.75) * room
    starts = range(0, max(n, 1), MOST_ROWS)
    panels = []
    for start in starts:
        at = list(range(start, min(start + MOST_ROWS, n)))
        foot = list(range(n, n + n_feet)) if start == starts[-1] and columns else []
        for block in blocks:
            lines = [*_head_lines(block), "\\midrule", *(_line(names, block, row) for row in at)]
            lines += ["\\midrule", *(_line(names, block, row) for row in foot)] if foot else []
            height = sum(line.count("\\\\") for line in lines) + 2.5
            source = _tabular(block, lines, fills=named + _needed(block) > least)
            if style == "subscript":  # two small lines in one
                height *= 1.25
                source = f"\\renewcommand{{\\arraystretch}}{{1.25}}\n{source}"
            panels.append(Panel(source, height))
    return panels


def _tabular(block: Sequence[_Printed], lines: Sequence[str], *, fills: bool) -> str:
    kind, to = ("tabular*", "{\\linewidth}") if fills else ("tabular", "")
    layout = "".join(column.layout for column in block)
    body = "\n".join(["\\toprule", *lines, "\\bottomrule"])
    return f"\\begin{{{kind}}}{to}{{@{{}}l{layout}@{{}}}}\n{body}\n\\end{{{kind}}}"


def _line(names: Sequence[str], block: Sequence[_Printed], row: int) -> str:
    return " & ".join([names[row], *(column.line(row) for column in block)]) + " \\\\"


def _names(shown: Shown, longest: int) -> list[str]:
    """A name for each row, no two alike, in source."""
    names = [fitted(plain(label(row, shown.board)), longest) for row in shown.board.rows]
    counts = Counter(names)
    return [
        tex(name if counts[name] == 1 else f"{name} ({i})") for i, name in enumerate(names, start=1)
    ]


def _printed(
    shown: Shown,
    column: Column,
    style: IntervalStyle,
    letters: bool,
    missing: Missing,
    *,
    with_detectable: bool,
) -> _Printed:
    cells: list[_Cell | str] = []
    for row in shown.board.rows:
        if shown.entry(row, column) is None:
            cells.append(f"---$^{{{missing.number(row, column)}}}$")
        else:
            cells.append(_cell(shown, row, column, style, letters))
    cells.append(tex(items(shown, column)))
    if with_detectable:
        least = shown.detectable(column)
        cells.append("" if least is None else _number(figure(least, column.metric)))
    full = [cell for cell in cells if isinstance(cell, _Cell)]
    parts = tuple(p for p in _Cell._fields if p == "value" or any(getattr(c, p) for c in full))
    widths = [
        {"value": 1.0, "marks": 0.76}.get(part, STYLES[style][1])
        * max((width_of(getattr(cell, part)) for cell in full), default=0)
        for part in parts
    ]
    alone = max((width_of(cell) for cell in cells if isinstance(cell, str)), default=0)
    body = max(sum(widths) + 0.5 * (len(widths) - 1), alone)
    head = max(width_of(tex(line)) for line in _broken(column.metric.title, body))
    layout = "".join(_LAYOUTS.get(part, STYLES[style][0]) for part in parts)
    return _Printed(column, tuple(cells), parts, layout, max(body, head))


STYLES: Mapping[str, tuple[str, float]] = {
    "bracket": (r"@{\extracolsep{0pt} }>{\scriptsize}l", 0.86),
    "pm": (r"@{\extracolsep{0pt}\,}>{\scriptsize}l", 0.86),
    "subscript": (r"@{\extracolsep{0pt}\,}l", 0.76),
}
"""What tabular is told of the interval's part, and how wide a digit in it is beside the value's."""

_LAYOUTS: Mapping[str, str] = {
    "value": r"!{\extracolsep{\fill}}r",
    "marks": r"@{\extracolsep{0pt}}l",
}


def _cell(
    shown: Shown, row: Checkpoint, column: Column, style: IntervalStyle, letters: bool
) -> _Cell:
    entry = shown.board.entries[row.name, column.key]
    estimate, metric = entry.score.estimate, column.metric
    value = _number(figure(estimate.value, metric))
    if shown.in_best_group(row, column):
        value = rf"\textbf{{{value}}}"
    mark = in_math(DAGGERS[shown.verdict(row, column)])
    letter = shown.letters(row, column) if letters else ""
    marks = (rf"\mathrm{{{letter}}}" if letter else "") + mark
    interval = "" if math.isnan(estimate.low) else _INTERVALS[style](estimate, metric)
    return _Cell(value, f"$^{{{marks}}}$" if marks else "", interval)


def _bracket(estimate: Estimate, metric: Metric) -> str:
    low, high = (_number(figure(bound, metric)) for bound in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def _plus_minus(estimate: Estimate, metric: Metric) -> str:
    return rf"$\pm$\,{_number(figure(reach(estimate), metric))}"


def _bounds(estimate: Estimate, metric: Metric) -> str:
    low, high = (
        _number(figure(bound, metric)).replace("$", "") for bound in (estimate.low, estimate.high)
    )
    return f"$_{{{low}}}^{{{high}}}$"


_INTERVALS: Mapping[str, Callable[[Estimate, Metric], str]] = {
    "bracket": _bracket,
    "pm": _plus_minus,
    "subscript": _bounds,
}


def _number(text: str) -> str:
    """A figure's source: a true minus sign, and powers of ten as such."""
    mantissa, has_power, power = text.partition("e")
    if has_power and power[:1] in "+-":
        return rf"${mantissa}\cdot10^{{{int(power)}}}$"
    return text.replace("-", "$-$")


def _head_lines(block: Sequence[_Printed]) -> list[str]:
    """The heads of a block, outermost first, with a rule under whatever stands over others."""
    found = levels([column.column for column in block])
    lines = []
    for level, spans in enumerate(found):
        innermost = level == len(found) - 1
        # Of two heads over the same columns, the lower has the rule.
        below = {span[:2] for span in found[level + 1]} if level < len(found) - 2 else set()
        cells, rules = ["Method" if innermost else ""], []
        first = 2
        for start, end, text in spans:
            over = block[start:end]
            last = first + sum(len(column.parts) for column in over) - 1
            cells.append(_over(last - first + 1, _stack(text, _room(over))))
            if text and not innermost and (start, end) not in below:
                rules.append(rf"\cmidrule(lr){{{first}-{last}}}")
            first = last + 1
        lines.append(" & ".join(cells) + r" \\" + "".join(rules))
    return lines


def _over(n_parts: int, text: str) -> str:
    """Source in the middle of some parts."""
    return rf"\multicolumn{{{n_parts}}}{{c}}{{{text}}}"


def _room(columns: Sequence[_Printed]) -> float:
    """What a head over some columns may take without widening them, in digits."""
    return sum(column.width + _SEPARATION for column in columns) - _SEPARATION


_SEPARATION = 1.75
"""Between two columns, in digits: twice the \\tabcolsep of 4pt."""


def _stack(text: str, room: float) -> str:
    """A head's source, in lines above each other where it is wider than its room."""
    lines = [tex(line.strip()) for line in _broken(text, room)]
    together = r"\\".join(lines)
    return together if len(lines) == 1 else rf"\shortstack{{{together}}}"


def _broken(text: str, room: float) -> list[str]:
    """A head in lines that are as wide as the room, or as NARROWEST; what is longer is cut."""
    widest = max(room, NARROWEST)
    lines = [""]
    for word in re.findall(r"[^ _,/-]*[ _,/-]+|[^ _,/-]+", text):
        fits = width_of(tex(lines[-1] + word)) <= widest
        if lines[-1] and not fits and word not in ("↑", "↓"):
            lines.append("")
        lines[-1] += word
    return [fitted(line, max(widest, LONGEST_WORD)) for line in lines]


NARROWEST, LONGEST_WORD = 16, 20
"""Digits that a head may take in any case, and that a word of it may."""


def _blocks(columns: Sequence[_Printed], names: float, room: float) -> list[Sequence[_Printed]]:
    """Columns in the fewest blocks that fit; of these, blocks alike, and tasks not torn apart."""
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(columns) + 1):
        found = (math.inf, end - 1)
        for start in range(end - 1, -1, -1):
            used = names + _SEPARATION + _needed(columns[start:end])
            if used > room and start < end - 1:
                break
            torn = start > 0 and columns[start - 1].group == columns[start].group
            cost = best[start][0] + 4 + 2 * torn + max(0.0, 1 - used / room) ** 2
            found = min(found, (cost, start))
        best.append(found)
    blocks, end = [], len(columns)
    while end:
        start = best[end][1]
        blocks.append(columns[start:end])
        end = start
    return blocks[::-1] or [[]]


def _needed(columns: Sequence[_Printed]) -> float:
    """Width of columns with the heads over them, in digits."""
    total = 0.0
    for _, run in groupby(columns, lambda column: column.group):
        members = list(run)
        room = _room(members)
        over = [line for head in heads_of(members[0].column)[:-1] for line in _broken(head, room)]
        total += max([room, *(width_of(tex(line)) for line in over)]) + _SEPARATION
    return total - _SEPARATION
