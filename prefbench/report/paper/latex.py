"""The table as LaTeX, for a paper: its floats, with caption and notes, or a whole document."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from prefbench import __version__
from prefbench.boards.shown import Shown
from prefbench.errors import InputError
from prefbench.report.paper.caption import Conditions, IntervalStyle, Missing, caption, footnotes
from prefbench.report.paper.tabular import STYLES, Panel, panels_of
from prefbench.report.paper.tex import tex, width_of

PAGE, TWO_COLUMNS, ONE_OF_TWO = 86, 96, 48
"""Digits of \\small type that fit beside each other in 5.5, 6.2 and 3.1 inches: the text of many
papers in one column, in two, and one of the two."""

LEAST = 40
"""Digits that a name and one column need."""

INCHES = 0.0643
"""Width of such a digit."""

MOST_LINES = 55
"""Of a page."""

_LABEL = re.compile(r"[A-Za-z0-9:._-]+")


def latex(
    shown: Shown,
    *,
    conditions: Mapping[str, Conditions] | None = None,
    interval_style: IntervalStyle = "bracket",
    letters: bool = False,
    width: int | None = None,
    paper_columns: int = 1,
    name: str = "tab:prefbench",
    standalone: bool = False,
) -> str:
    """A table to put into a paper; it needs the packages array and booktabs.

    Args:
        shown: what to print.
        conditions: how each group was measured, of `conditions_of`, for the notes.
        interval_style: `bracket` value [low, high]; `pm` value ± the distance to the farther
            bound; `subscript` the bounds below and above, which takes the least room.
        letters: letter groups beside the values.
        width: of the text in digits of \\small type, INCHES each where the paper's is 10 points;
            what is wider is set in several blocks. None means PAGE or TWO_COLUMNS.
        paper_columns: of the paper, 1 or 2. In two, a table that is wider than one spans both.
        name: of the \\label.
        standalone: a whole document, to be compiled as it is.

    Raises:
        InputError: the label would not be one, or the style, the width or the paper is none.
    """
    if interval_style not in STYLES:
        raise InputError(f"intervals are {', '.join(STYLES)}, not {interval_style!r}")
    if paper_columns not in (1, 2):
        raise InputError(f"a paper has 1 or 2 columns, not {paper_columns}")
    if not _LABEL.fullmatch(name):
        raise InputError(f"a label is made of letters, digits and :._-, not {name!r}")
    room = width or (PAGE if paper_columns == 1 else TWO_COLUMNS)
    if room < LEAST:
        raise InputError(f"a width of {room} digits holds no table; {LEAST} is the least")
    tables = _floats(
        panels_of(shown, interval_style, letters=letters, room=room),
        tex(" ".join(caption(shown, style=interval_style, letters=letters)), breaks=True),
        _notes(shown, conditions),
        room,
        spans=_spans_both(room, paper_columns),
        name=name,
    )
    if not standalone:
        needs = f"% Made by prefbench {__version__}. Needs \\usepackage{{array,booktabs}}.\n"
        return needs + "\n".join(tables)
    return _document("\\clearpage\n".join(tables), room, paper_columns)


def _spans_both(room: int, paper_columns: int) -> bool:
    """Whether a table goes across both columns of a paper."""
    return paper_columns == 2 and room > ONE_OF_TWO + 4


def _document(body: str, room: int, paper_columns: int) -> str:
    """A document whose text is wide enough for the tables in it."""
    n = 2 if paper_columns == 2 and not _spans_both(room, paper_columns) else 1
    text = n * INCHES * room + (n - 1) * 0.25
    option = "[twocolumn]" if paper_columns == 2 else ""
    return (
        f"\\documentclass{option}{{article}}\n"
        f"\\usepackage[paperwidth={text + 2:.2f}in,paperheight=11in,margin=1in,columnsep=0.25in]"
        "{geometry}\n"
        "\\usepackage[T1]{fontenc}\n"
        "\\usepackage{lmodern}\n"
        "\\usepackage{array,booktabs}\n"
        "\\begin{document}\n"
        f"{body}"
        "\\end{document}\n"
    )


def _notes(shown: Shown, conditions: Mapping[str, Conditions] | None) -> list[str]:
    """The source of each note below the table."""
    notes = [tex(note, breaks=True) for note in footnotes(shown, conditions)]
    missing = Missing(shown).notes()
    return notes + [rf"$^{{{number}}}$ {tex(why, breaks=True)}" for number, why in missing]


def _floats(
    panels: Sequence[Panel],
    about: str,
    notes: Sequence[str],
    room: int,
    *,
    spans: bool,
    name: str,
) -> list[str]:
    """Panels, then notes, in as many floats as they need: LaTeX cuts off what exceeds a page."""
    below = [(0.9 * math.ceil(width_of(note) / (1.05 * room)), note) for note in notes]
    first = math.ceil(width_of(about) / room) + 2.0
    pages: list[tuple[list[str], list[str]]] = [([], [])]
    used = first
    for i, (source, lines) in enumerate(panels):
        # The notes stand below the last panel, if need be on a page of these two.
        under = sum(height for height, _ in below) if i == len(panels) - 1 else 0.0
        if used + lines + min(under, MOST_LINES - lines - 3) > MOST_LINES and pages[-1][0]:
            pages.append(([], []))
            used = 3.0
        pages[-1][0].append(source)
        used += lines
    for lines, source in below:
        if used + lines > MOST_LINES:
            pages.append(([], []))
            used = 3.0
        pages[-1][1].append(source)
        used += lines
    return [
        _float(*page, about, first=not i, spans=spans, name=name) for i, page in enumerate(pages)
    ]


def _float(
    panels: Sequence[str],
    notes: Sequence[str],
    about: str,
    *,
    first: bool,
    spans: bool,
    name: str,
) -> str:
    kind = "table*" if spans else "table"
    head = f"\\caption{{{about}}}\n\\label{{{name}}}\n" if first else "\\caption{(continued)}\n"
    text = "\n\\par\\medskip\n".join(panels)
    if notes:
        text += (
            "\n\\par\\smallskip\n\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright\n"
            + "\\par\n".join(notes)
            + "\n\\end{minipage}"
        )
    again = "" if first else "\\addtocounter{table}{-1}\n"
    return (
        f"\\begin{{{kind}}}[tbp]\n{again}\\centering\\small\n"
        "\\setlength{\\tabcolsep}{4pt}\\setlength{\\belowcaptionskip}{6pt}\n"
        f"{head}{text.lstrip()}\n\\end{{{kind}}}\n"
    )
