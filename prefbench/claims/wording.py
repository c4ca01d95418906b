"""Numbers and findings in words; none says more than its interval or its test shows."""

from __future__ import annotations

import math
from collections.abc import Callable

from prefbench.claims.claim import Alike, Between, Beyond, Change, Finding, Line, Zero
from prefbench.metrics import Unit
from prefbench.stats.estimates import Estimate

DIGITS = 4
"""Most that follow the point."""


def told(
    estimate: Estimate, unit: Unit, *, neutral: float | None = None, signed: bool = False
) -> str:
    """A value with its interval, e.g. `83 % [79, 87]`; shares in percent, their gaps in points.

    With as many digits as it takes that no bound reads as a neutral value which it is not.
    """
    scale = 100.0 if unit == "percent" else 1.0
    known = [estimate.value, estimate.low, estimate.high]
    scaled = [value * scale for value in known]
    least = 0 if unit == "percent" else 2
    digits = next(
        (
            n
            for n in range(least, DIGITS)
            if neutral is None
            or all(
                round(value, n) != round(neutral * scale, n) or value == neutral * scale
                for value in scaled
                if math.isfinite(value)
            )
        ),
        DIGITS,
    )
    value, low, high = (_figure(one, digits, signed=signed) for one in scaled)
    if unit == "percent" and math.isfinite(estimate.value):
        value += " points" if signed else " %"
    return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def _figure(value: float, digits: int, *, signed: bool) -> str:
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.3e}" if abs(value) >= 1e4 else f"{value:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")
    return f"+{text}" if signed and value > 0 and float(text) != 0 else text


def numbers_of(found: Finding, title: Callable[[str], str]) -> str:
    """A finding's numbers with intervals, and what they are held against."""
    question = found.question
    match question:
        case Beyond():
            unit = question.number.metric.unit
            percent = unit == "percent"
            neutral = f"{found.neutral:g}"
            if percent and found.neutral:
                neutral = f"{100 * found.neutral:g} %"
            # Beside 0 stand differences: of shares they are points.
            points = percent and not found.neutral
            value = told(found.estimate, unit, neutral=found.neutral, signed=points)
            return f"{question.number.name} {value}, beside {neutral}"
        case Change() | Between():
            unit = question.number.metric.unit
            own, other = (told(one._replace(low=math.nan), unit) for one in found.values)
            gap = told(found.estimate, unit, neutral=0.0, signed=True)
            where = title(found.other) if isinstance(question, Change) else found.other
            return f"{question.number.name} {own}, {other} of {where}: {gap}"
        case Alike():
            predicted, seen = (told(one, "percent") for one in found.values)
            gap = told(found.estimate, "percent", signed=True)
            return f"predicted {predicted} of {title(found.other)}, seen {seen}: {gap}"
        case Zero():
            return ""


def sentence_of(line: Line, title: Callable[[str], str], n_tested: int) -> str:
    """What a line says, plainly."""
    if line.why:
        return f"{_capital(line.why)}."
    said = [_said(one, title, n_tested) for one in line.findings] or [line.about]
    return f"{_capital('; '.join(said))}."


def _said(found: Finding, title: Callable[[str], str], n_tested: int) -> str:
    question = found.question
    if isinstance(question, Alike):
        margin = f"{100 * question.within:g} points"
        words = {
            "holds": f"prediction and observation lie within {margin} of each other",
            "does not hold": f"prediction and observation lie more than {margin} apart",
        }
        return words.get(
            found.verdict, f"whether they lie within {margin} of each other cannot be told"
        )
    assert not isinstance(question, Zero)
    words_of = question.number.words.rstrip(",")
    comma = "," if question.number.words.endswith(",") else ""
    above = found.estimate.value > found.neutral
    match question:
        case Beyond():
            half = question.neutral == 0.5
            neutral = "one half" if half else f"{question.neutral:g}"
            sure = f"{words_of}{comma} lies {'above' if above else 'below'} {neutral}"
            open_ = f"{words_of}{comma} cannot be told from {neutral}"
        case Change():
            who = title(found.other)
            sure = f"{words_of} is {'higher' if above else 'lower'} than that of {who}"
            open_ = f"{words_of} cannot be told from that of {who}"
        case Between():
            sure = f"{words_of} is {'higher' if above else 'lower'} than on {found.other}"
            open_ = f"{words_of} cannot be told from that on {found.other}"
    if found.verdict != "not shown":
        return sure
    if math.isnan(found.estimate.low):
        return f"{open_}, for want of an interval"
    if found.beyond:
        return (
            f"{open_} once all {n_tested} tests are counted, though its own interval leaves it out"
        )
    return open_


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
