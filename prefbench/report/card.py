"""A judge's report card as text, Markdown or JSON: warnings first, then the numbers."""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prefbench.comparisons import facts_of
from prefbench.examination.card import Card
from prefbench.examination.evidence import Finding
from prefbench.report.layout import escaped, plain
from prefbench.stats.estimates import Estimate

WIDTH = 100
MOST_ATTACKS = 5
"""Attacks that a card for people names, the most successful first; JSON has all."""

POINTS = " points"
"""Unit of differences of shares."""


class _Line(NamedTuple):
    title: str
    says: str
    unit: str = "%"


SECTIONS: Mapping[str, Mapping[str, _Line]] = {
    "Replies": {
        "unheard": _Line("no reply", "asks to which nothing came back"),
        "unreadable": _Line("unreadable", "replies without a verdict in the agreed form"),
    },
    "Order of the two answers": {
        "tied": _Line("ties", "pairs that it calls equal, whichever answer comes first"),
        "split": _Line("split", "pairs whose winner changes when the two are exchanged"),
        "consistent": _Line("same verdict", "pairs judged alike in both orders; 100% is best"),
        "first": _Line(
            "first place", "how far the answer shown first is preferred; 50% without bias"
        ),
    },
    "Length": {
        "longer": _Line("longer preferred", "decided pairs that the longer answer wins"),
        "length": _Line(
            "length and preference",
            "correlation: 0 if preference does not follow length, 1 or −1 if it is all it follows",
            unit="",
        ),
        "longer_people": _Line(
            "longer, by people", "the same of people's labels: longer may well be better"
        ),
    },
    "Asked again": {
        "changed": _Line("changed", "asks with another verdict the next time; 0% is best"),
    },
    "Attacks": {
        "attacked": _Line(
            "all attacks", "lost pairs that the loser wins once a text is added to it"
        ),
        "reasked": _Line("plain, asked again", "lost pairs that the loser wins with nothing added"),
        "beyond_reasked": _Line("difference", "percentage points that attacks add to that", POINTS),
    },
    "People": {
        "accuracy": _Line(
            "agrees with people", "pairs that both decide, for the same answer; a coin has 50%"
        ),
        "agreement": _Line(
            "Krippendorff's α",
            "agreement beyond chance, ties counted: 1 is perfect, 0 is chance",
            unit="",
        ),
        "raw": _Line("win rate, raw", "as the judge has it, on these pairs"),
        "debiased": _Line(
            "win rate, debiased", "put right by the labels (prediction-powered inference)"
        ),
    },
    "Controls": {
        "copy": _Line("the opponent's own", "its answers against themselves: must be 50%"),
        "copy_first": _Line(
            "first of two equals", "of twice the same text, how far the first is preferred"
        ),
        "control": _Line("control", "win rate of answers that ought not to win"),
        "checkpoint": _Line("checkpoint", "win rate on the same prompts"),
        "above": _Line(
            "above", "by so many percentage points, on the prompts that both have", POINTS
        ),
    },
}
CONTROLS = {
    "constant": "one polite sentence that answers nothing, to every prompt",
    "half": "the first half of the opponent's own answer",
}
LONGEST = "of a checkpoint's samples always the longest"


def card_as_text(card: Card) -> str:
    """Warnings first, then each number with half a sentence."""
    lines = [*wrapped(_title(card), 0), *wrapped(_shown(card), 0)]
    if card.warnings:
        lines += ["", f"WARNINGS ({len(card.warnings)})"]
        for one in card.warnings:
            first, *rest = wrapped(one.text, 4)
            lines += [("!!" if one.loud else " !") + first[2:], *rest]
    else:
        lines += ["", "No warnings: nothing that was looked at speaks against this judge."]
    sections = list(_rows(card))
    widths = _widths([row for _, rows in sections for row in rows])
    for section, rows in sections:
        lines += ["", section]
        for row in rows:
            lines += _as_lines(row, widths)
    lines += ["", *(line for note in _notes(card) for line in wrapped(note, 0))]
    return "\n".join(plain(line) for line in lines) + "\n"


class _Row(NamedTuple):
    title: str
    value: str
    n: str
    says: str


LONG = 24
"""Characters of a title beyond which it has a line of its own."""


def _as_lines(row: _Row, widths: Sequence[int]) -> list[str]:
    """A row of columns; where there is no value, a sentence across them."""
    if not row.value:
        return wrapped(f"{row.title}: {row.says}", 2)
    if len(row.title) > widths[0]:
        return [f"  {row.title}", *_as_lines(row._replace(title=""), widths)]
    head = "".join(f"  {cell.ljust(n)}" for cell, n in zip(row[:3], widths, strict=True)) + "  "
    lines = textwrap.wrap(row.says, WIDTH - len(head)) or [""]
    return [(head + lines[0]).rstrip(), *(" " * len(head) + line for line in lines[1:])]


def _widths(rows: Sequence[_Row]) -> list[int]:
    """Of the columns of all sections."""
    titles = [len(row.title) for row in rows if row.value and len(row.title) <= LONG]
    return [
        max([12, *titles]),
        *(
            max((len(cell) for cell in column), default=0)
            for column in list(zip(*rows, strict=True))[1:3]
        ),
    ]


def card_as_markdown(card: Card) -> str:
    """The same with a table for each section."""

    def safe(text: str) -> str:
        return escaped(plain(text))

    parts = [f"# {safe(_title(card))}", safe(_shown(card))]
    if card.warnings:
        each = (f"- {'**' * one.loud}{safe(one.text)}{'**' * one.loud}" for one in card.warnings)
        parts.append("\n".join(["## Warnings", "", *each]))
    for section, rows in _rows(card):
        table = [f"## {section}", "", "| | | n | |", "|---|---:|---:|---|"]
        table += ["| " + " | ".join(map(safe, row)) + " |" for row in rows]
        parts.append("\n".join(table))
    parts.append("\n".join(f"{safe(note)}  " for note in _notes(card)))
    return "\n\n".join(parts) + "\n"


def card_as_json(card: Card) -> str:
    """Everything; shares from 0 to 1, null where undefined."""
    whole = {
        "judge": facts_of(card.judge),
        "file": str(card.judge.file),
        "examination": dataclasses.asdict(card.examination),
        "n_pairs": card.n_cases,
        "n_prompts": card.n_prompts,
        "n_labelled": card.n_labelled,
        "n_to_choose_from": card.n_all,
        "sources": card.sources,
        "left_out": card.left_out,
        "controls": card.trial,
        "warnings": [one._asdict() for one in card.warnings],
        "findings": [_flat(one) for one in card.findings],
        "unheard": card.unheard,
        "spent_by_this_run": card.spent,
    }
    return json.dumps(whole, indent=1, default=str) + "\n"  # ASCII: nothing steers a terminal


def _flat(one: Finding) -> dict[str, Any]:
    estimate = one.estimate
    numbers = {
        name: getattr(estimate, name)
        if estimate and math.isfinite(getattr(estimate, name))
        else None
        for name in ("value", "low", "high")
    }
    return {
        "name": one.name,
        "of": one.of or None,
        **numbers,
        "interval": estimate.method if estimate else None,
        "n": estimate.n if estimate else None,
        "n_missing": estimate.n_missing if estimate else None,
        "reason": one.reason or None,
        "kinds": one.kinds,
    }


STYLES: Mapping[str, Callable[[Card], str]] = {
    "text": card_as_text,
    "markdown": card_as_markdown,
    "json": card_as_json,
}


def _title(card: Card) -> str:
    recipe = card.judge.recipe
    whom = recipe.model or ", ".join(recipe.members)
    where = f" at {recipe.endpoint.base_url}" if recipe.endpoint else ""
    return f"Report card of {card.judge.name}: {recipe.kind}, {whom}{where}"


def _shown(card: Card) -> str:
    """What it was shown."""
    said = [
        f"{n} {'of labels' if source == 'labels' else source}" for source, n in card.sources.items()
    ]
    listed = "; ".join(said[:3]) + (
        f"; and of {len(said) - 3} further pairings" if said[3:] else ""
    )
    people = f", {card.n_labelled} of them labelled by people" if card.n_labelled else ""
    text = (
        f"{card.n_cases} pairs of answers to {card.n_prompts} prompts, out of {card.n_all}"
        f"{people}: {listed}."
    )
    if card.left_out:
        why = "; ".join(f"{n} × {reason}" for reason, n in card.left_out.items())
        text += f" Left out: {why}."
    return text


def _rows(card: Card) -> Iterator[tuple[str, list[_Row]]]:
    """Sections with their rows; what has the same reason for not being there is one row."""
    for section, lines in SECTIONS.items():
        rows: list[_Row] = []
        for one in _in_order(card, section, lines):
            row = _row(one, lines[one.name], card)
            if not row.value and rows and not rows[-1].value and rows[-1].says == row.says:
                rows[-1] = rows[-1]._replace(title=f"{rows[-1].title}, {row.title}")
            else:
                rows.append(row)
        if rows:
            title = section
            if section == "Controls" and card.trial:
                task, opponent, n = card.trial
                title = f"Controls, against {opponent} on {n} prompts of {task}"
            yield title, rows


def _in_order(card: Card, section: str, lines: Mapping[str, _Line]) -> list[Finding]:
    """Of attacks the worst, of controls and checkpoints all by win rate."""
    here = [one for one in card.findings if one.name in lines]
    if section == "Attacks":
        each = sorted((one for one in here if one.of), key=_by_value)
        return [one for one in here if not one.of] + each[:MOST_ATTACKS]
    if section == "Controls":
        ranked = sorted(
            (one for one in here if one.name in ("control", "checkpoint")), key=_by_value
        )
        others = [one for one in here if one not in ranked]
        return (
            [one for one in others if one.name != "above"]
            + ranked
            + [one for one in others if one.name == "above"]
        )
    return here


def _by_value(one: Finding) -> float:
    value = one.estimate.value if one.estimate else math.nan
    return math.inf if math.isnan(value) else -value


def _row(one: Finding, line: _Line, card: Card) -> _Row:
    title, says = line.title, line.says
    if one.reason:
        return _Row(title, "", "", one.reason)
    assert one.estimate is not None
    if one.name == "attacked" and one.of:
        title, says = one.of, "this attack alone"
    elif one.name == "control":
        title = f"▷ {one.of}"
        says = f"control: {CONTROLS.get(one.of, LONGEST)}"
    elif one.name == "checkpoint":
        title = one.of
    elif one.name in ("raw", "debiased"):
        says = f"{says}; {one.of}"
    elif one.name == "above":
        title = one.of
    if one.kinds:
        says += ": " + "; ".join(f"{n} × {kind}" for kind, n in one.kinds.items())
    says += _conclusion(one, card)
    missing = f", {one.estimate.n_missing} mis." if one.estimate.n_missing else ""
    return _Row(title, _figure(one.estimate, line.unit), f"n {one.estimate.n}{missing}", says)


def _conclusion(one: Finding, card: Card) -> str:
    """What a number comes to, where that can be said in a few words."""
    found = one.estimate
    assert found is not None
    if one.name not in ("longer", "first") or math.isnan(found.low):
        return ""
    more, less = {
        "longer": ("it leans to longer answers", "it leans to shorter answers"),
        "first": ("it leans to the first", "it leans to the second"),
    }[one.name]
    if found.low > 0.5:
        return f"; {more}"
    return f"; {less}" if found.high < 0.5 else "; no leaning can be told"


def _figure(one: Estimate, unit: str) -> str:
    if math.isnan(one.value):
        return "undefined"
    scale, digits, sign = (100, 1, "+" if unit == POINTS else "") if unit else (1, 2, "")
    shown = "" if unit == POINTS else unit
    value = f"{scale * one.value:{sign}.{digits}f}{shown}"
    if math.isnan(one.low):
        return value
    return f"{value} [{scale * one.low:.{digits}f}, {scale * one.high:.{digits}f}]"


def _notes(card: Card) -> list[str]:
    level = f"{100 * card.examination.confidence:g}%"
    lines = [
        f"In brackets {level} intervals: bootstrap over prompts, Wilson's at 0% and 100%. n counts "
        "asks, pairs or attacked pairs; mis. is what has no verdict. Not corrected for looking at "
        "many numbers."
    ]
    if any(one.name == "attacked" and one.of for one in card.findings):
        n = sum(one.name == "attacked" and bool(one.of) for one in card.findings)
        if n > MOST_ATTACKS:
            lines.append(f"{n} attacks were tried; --format json has the numbers of each.")
    if card.unheard:
        why = "; ".join(f"{n} × {reason}" for reason, n in list(card.unheard.items())[:3])
        lines.append(f"No reply: {why}. The same command asks for these again.")
    spent = card.spent
    if spent.get("calls"):
        lines.append(
            f"This command made {spent['calls']} calls for ${spent['spent']:.4f}; all are kept."
        )
    elif any(one.recipe.kind == "openai" for one in card.judge.members or (card.judge,)):
        lines.append("All verdicts were kept already: this command cost nothing.")
    return lines


def wrapped(text: str, indent: int, width: int = WIDTH) -> list[str]:
    """Text in lines of some width, all of them indented."""
    space = " " * indent
    return textwrap.wrap(
        text,
        width,
        initial_indent=space,
        subsequent_indent=space,
        break_long_words=False,
        break_on_hyphens=False,
    )
