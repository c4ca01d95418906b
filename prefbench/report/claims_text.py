"""Checked claims as text or JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prefbench.claims.checking import Checked
from prefbench.claims.claim import VERDICTS, Alike, Claim, Finding, Line, Verdict, Zero
from prefbench.claims.wording import numbers_of, sentence_of, told
from prefbench.report.layout import padded, plain, width_of
from prefbench.stats.estimates import Estimate

MARKS: Mapping[Verdict, str] = {
    "holds": "✓",
    "does not hold": "✗",
    "not shown": "?",
    "cannot be checked": "–",
}
INDENT = max(map(len, VERDICTS)) + 6


def as_text(
    checked: Checked,
    width: int,
    *,
    everything: bool = False,
    readings: Mapping[str, str] | None = None,
) -> str:
    """Claims one by one, each with what came of it for every row and task, and the count last.

    Args:
        checked: what came of them.
        width: in characters.
        everything: every line; else what is said of all methods is told once for rows of one
            verdict, and of what cannot be checked only the claims of which nothing can, together.
        readings: a paragraph for each row, to stand before the count.
    """
    lines: list[str] = []
    unchecked: dict[str, list[Claim]] = {}
    for claim, found in _by_claim(checked.lines):
        if not everything and all(one.why for one in found):
            unchecked.setdefault(found[0].why, []).append(claim)
            continue
        lines += wrapped(f"{claim.sentence}.", width)
        source = claim.source + (f"; {claim.remark}" if claim.remark else "")
        lines += wrapped(f"({source})", width, indent=2)
        shown = found if everything else [one for one in found if not one.why]
        for told_of in _together(shown, everything=everything or bool(claim.methods)):
            lines += _entry(told_of, checked, width)
        lines.append("")
    if unchecked:
        lines += ["Cannot be checked:"]
        for why, claims in unchecked.items():
            lines += wrapped(f"{MARKS['cannot be checked']} {why}:", width, indent=2)
            for claim in claims:
                lines += wrapped(f"{claim.sentence} ({claim.id}).", width, indent=6)
        lines.append("")
    if readings:
        for text in readings.values():
            lines += [*wrapped(text, width), ""]
        lines += [
            *wrapped("These paragraphs follow each interval alone, uncorrected.", width),
            "",
        ]
    lines += [*in_short(checked, width), ""]
    for note in notes_of(checked, everything=everything):
        lines += wrapped(note, width)
    return "\n".join(lines) + "\n"


def in_short(checked: Checked, width: int) -> list[str]:
    """A line for each claim: for how many rows and tasks it came out how."""
    counted = [
        (claim, Counter(line.verdict for line in found))
        for claim, found in _by_claim(checked.lines)
    ]
    columns = {
        verdict: max(len(str(counts[verdict])) for _, counts in counted)
        for verdict in VERDICTS
        if any(counts[verdict] for _, counts in counted)
    }
    heads = [
        "  ".join(
            f"{MARKS[verdict]} {counts[verdict]:{size}}" if counts[verdict] else " " * (size + 2)
            for verdict, size in columns.items()
        )
        for _, counts in counted
    ]
    lines = ["In short, by row and task:"] if counted else []
    for head, (claim, _) in zip(heads, counted, strict=True):
        told_of = wrapped(f"{claim.sentence}.", width, indent=len(head) + 4)
        lines += [f"  {head}  {told_of[0].lstrip()}", *told_of[1:]]
    return lines


def notes_of(checked: Checked, *, everything: bool = True) -> list[str]:
    """How to read the verdicts, what was left out, and the count."""
    level = f"{100 * checked.confidence:.6g}%"
    alpha = f"{100 - 100 * checked.confidence:.6g}%"
    n = checked.n_tested
    family = "one test" if n == 1 else f"{n} tests"
    lines = [
        f"Values with {level} bootstrap intervals over items; differences between rows are paired "
        f"on the same items. {family[0].upper()}{family[1:]}, at {alpha} with Holm's correction "
        "for all of them together: a claim holds where the numbers show it, does not hold where "
        "they show the contrary, and is not shown where they leave it open. Intervals are not "
        "corrected."
    ]
    hidden = _hidden(checked)
    if hidden and not everything:
        lines.append(f"{hidden} more could not be checked, for rows or tasks; --all tells why.")
    lines.append(count_of(checked))
    return lines


def count_of(checked: Checked) -> str:
    """How many claims and lines came out how."""
    counts = Counter(line.verdict for line in checked.lines)
    parts = [f"{counts[verdict]} × {verdict}" for verdict in VERDICTS if counts[verdict]]
    n = len({line.claim.id for line in checked.lines})
    return f"{n} claim{'' if n == 1 else 's'}, by row and task: {', '.join(parts) or 'nothing'}."


def _hidden(checked: Checked) -> int:
    """Lines that cannot be checked, of claims of which something can, or after the first."""
    return sum(
        sum(bool(one.why) for one in found) - all(one.why for one in found)
        for _, found in _by_claim(checked.lines)
    )


def _by_claim(lines: Sequence[Line]) -> Iterator[tuple[Claim, list[Line]]]:
    by_id: dict[str, list[Line]] = {}
    for line in lines:
        by_id.setdefault(line.claim.id, []).append(line)
    for found in by_id.values():
        order = list(VERDICTS)
        yield found[0].claim, sorted(found, key=lambda one: order.index(one.verdict))


def _together(lines: Sequence[Line], *, everything: bool) -> list[list[Line]]:
    """Lines that are told at once: of one verdict, task and comparison, unless all are wanted."""
    groups: dict[Any, list[Line]] = {}
    for at, line in enumerate(lines):
        others = tuple(one.other for one in line.findings)
        key = at if everything else (line.verdict, line.task, others, line.why, line.about)
        groups.setdefault(key, []).append(line)
    return list(groups.values())


def _entry(lines: Sequence[Line], checked: Checked, width: int) -> list[str]:
    """One line of a claim, or several rows that came out alike."""
    first = lines[0]
    who = ", ".join(checked.title(one.row) for one in lines if one.row)
    where = ": ".join(part for part in (who, first.task) if part)
    numbers = _numbers(first, checked) if len(lines) == 1 else _ranges(lines)
    said = sentence_of(first, checked.title, checked.n_tested)
    if len(lines) > 1 and not first.why:
        said = f"Each of the {len(lines)} rows: {said[0].lower()}{said[1:]}"
    head = f"  {MARKS[first.verdict]} {first.verdict}"
    text = f"{where} — {numbers}" if where and numbers else where or numbers
    body = [line for part in (text, said) if part for line in wrapped(part, width, indent=INDENT)]
    return [padded(head, INDENT) + body[0][INDENT:], *body[1:]]


def _numbers(line: Line, checked: Checked) -> str:
    parts = [numbers_of(one, checked.title) for one in line.findings]
    parts += [f"{number.name} {told(value, number.metric.unit)}" for number, value in line.shown]
    return "; ".join(part for part in parts if part)


def _ranges(lines: Sequence[Line]) -> str:
    """From the least to the largest value of each question, with the outermost bounds."""
    parts = []
    for at, first in enumerate(lines[0].findings):
        question = first.question
        if isinstance(question, Zero | Alike):
            continue
        each = [line.findings[at].estimate for line in lines]
        values = [one.value for one in each]
        unit, gap = question.number.metric.unit, bool(first.values)
        ends = (Estimate(value, math.nan, math.nan, 0) for value in (min(values), max(values)))
        low, high = (told(one, unit, signed=gap) for one in ends)
        bounds = Estimate(
            min(values), min(one.low for one in each), max(one.high for one in each), 0
        )
        outer = told(bounds, unit, neutral=first.neutral, signed=gap).partition("[")[2]
        what = f"difference of {question.number.name}" if gap else question.number.name
        parts.append(f"{what} from {low} to {high}, intervals within [{outer}")
    return "; ".join(parts)


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """A text in lines of at most so many columns, where no word is longer; nothing in it acts."""
    lines, line = [], ""
    for word in plain(text).split(" "):
        if line and indent + width_of(f"{line} {word}") > width:
            lines.append(" " * indent + line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, " " * indent + line]


def as_json(
    checked: Checked,
    width: int = 0,
    *,
    everything: bool = True,
    readings: Mapping[str, str] | None = None,
) -> str:
    """Everything, shares from 0 to 1."""
    whole = {
        "baseline": checked.baseline,
        "confidence": checked.confidence,
        "correction": "holm",
        "n_tested": checked.n_tested,
        "counts": dict(Counter(line.verdict for line in checked.lines)),
        "claims": [
            {
                "id": claim.id,
                "sentence": claim.sentence,
                "source": claim.source,
                "remark": claim.remark or None,
                "methods": list(claim.methods),
                "lines": [_line(one, checked) for one in found],
            }
            for claim, found in _by_claim(checked.lines)
        ],
        "readings": dict(readings) if readings is not None else None,
    }
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"  # ASCII: it cannot steer a terminal


def _line(line: Line, checked: Checked) -> dict[str, Any]:
    return {
        "row": line.row or None,
        "task": line.task or None,
        "verdict": line.verdict,
        "sentence": sentence_of(line, checked.title, checked.n_tested),
        "missing": line.why or None,
        "findings": [_finding(one) for one in line.findings],
        "shown": {number.name: _estimate(value) for number, value in line.shown},
    }


def _finding(found: Finding) -> dict[str, Any]:
    question = found.question
    assert not isinstance(question, Zero)
    alike = isinstance(question, Alike)
    number = question.predicted if isinstance(question, Alike) else question.number
    return {
        "number": number.name,
        "minus": question.seen.name if isinstance(question, Alike) else None,
        "compared_with": found.other or None,
        "claimed": "within" if isinstance(question, Alike) else question.side,
        "neutral": found.neutral,
        **_estimate(found.estimate),
        "p_corrected": _number(found.p),
        "verdict": found.verdict,
        "values": [_estimate(one) for one in found.values],
        "statement": "a difference" if found.values or alike else "a value",
    }


def _estimate(one: Estimate) -> dict[str, Any]:
    return {
        "value": _number(one.value),
        "low": _number(one.low),
        "high": _number(one.high),
        "n": one.n,
        "n_missing": one.n_missing,
        "p": _number(one.p),
        "interval": one.method,
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


STYLES: Mapping[str, Callable[..., str]] = {"text": as_text, "json": as_json}
