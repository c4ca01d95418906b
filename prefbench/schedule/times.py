"""When a schedule runs: cron's five fields, and the same for systemd."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prefbench.errors import InputError

DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Field(NamedTuple):
    """One of the five, with what it may hold."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of the month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of the week", 0, 6, DAYS),
)
_PART = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)
_EVERY = re.compile(r"([1-9]\d{0,4}) ?(m|min|h|d|w)", re.ASCII)


@dataclass(frozen=True)
class Timing:
    """Minute, hour, day of the month, month and day of the week, as cron reads them."""

    fields: tuple[str, str, str, str, str]

    def __post_init__(self) -> None:
        for text, field in zip(self.fields, FIELDS, strict=True):
            _values(text, field)

    @property
    def cron(self) -> str:
        return " ".join(self.fields)

    def calendars(self) -> list[str]:
        """The same as systemd's OnCalendar; any of several.

        Where both days are restricted, cron takes either, and systemd only both; unless one of them
        begins with `*`, where cron takes both, too (crontab(5)).
        """
        minute, hour, day, month, weekday = self.fields
        if day.startswith("*") or weekday.startswith("*"):
            return [_calendar(minute, hour, day, month, weekday)]
        return [
            _calendar(minute, hour, day, month, "*"),
            _calendar(minute, hour, "*", month, weekday),
        ]


def at(text: str) -> Timing:
    """Cron's own words for when: "0 3 * * *".

    Raises:
        InputError: they are not five fields that every cron reads alike.
    """
    words = text.split()
    if len(words) != 5:
        raise InputError(
            f"--at: {text!r:.80} is not cron's five fields: minute, hour, day of the month, month, "
            'day of the week, such as "0 3 * * *"'
        )
    minute, hour, day, month, weekday = words
    return Timing((minute, hour, day, month, weekday))


def every(text: str) -> Timing:
    """Every 15m, 1h, 6h, 1d or 1w, as long as it divides the hour or the day evenly.

    Raises:
        InputError: it does not, so that cron cannot say it.
    """
    found = _EVERY.fullmatch(text.strip())
    if found:
        n, unit = int(found[1]), found[2]
        if unit in ("m", "min") and n < 60 and 60 % n == 0:
            return at(f"{'*' if n == 1 else f'*/{n}'} * * * *")
        if unit == "h" and n < 24 and 24 % n == 0:
            return at(f"0 {'*' if n == 1 else f'*/{n}'} * * *")
        if (n, unit) in ((1, "d"), (24, "h")):
            return at("0 0 * * *")
        if (n, unit) in ((1, "w"), (7, "d")):
            return at("0 0 * * 0")
    raise InputError(
        f"--every: {text!r:.40} is not 1m to 30m or 1h to 12h that divide the hour or the day "
        'evenly, 1d or 1w; say other times by --at, such as "0 3,15 * * *"'
    )


def _calendar(minute: str, hour: str, day: str, month: str, weekday: str) -> str:
    """One OnCalendar expression; values in full, as systemd counts steps in another way."""
    minutes, hours, days, months, weekdays = (
        _values(text, field)
        for text, field in zip((minute, hour, day, month, weekday), FIELDS, strict=True)
    )
    named = ",".join(DAYS[each] for each in weekdays)
    date = f"*-{_listed(months, 12)}-{_listed(days, 31)}"
    clock = f"{_listed(hours, 24)}:{_listed(minutes, 60)}:00"
    return " ".join(([] if len(weekdays) == 7 else [named]) + [date, clock])


def _listed(values: Sequence[int], n_all: int) -> str:
    return "*" if len(values) == n_all else ",".join(f"{each:02d}" for each in values)


def _values(text: str, field: Field) -> list[int]:
    """What a field stands for, ascending."""
    found: set[int] = set()
    for part in text.split(","):
        read = _PART.fullmatch(part)
        if not read:
            raise _wrong(text, field)
        star, first, last, step = read.groups()
        low = field.low if star else _value(first, text, field)
        high = field.high if star else _value(last, text, field) if last else low
        # Crons differ in what `5/10` and `5-1` say.
        if low > high or (step and (int(step) == 0 or not (star or last))):
            raise _wrong(text, field)
        found.update(range(low, high + 1, int(step or 1)))
    return sorted(found)


def _value(word: str, text: str, field: Field) -> int:
    if word.title() in field.names:
        return field.names.index(word.title()) + field.low
    if not word.isdigit() or not field.low <= int(word) <= field.high:
        raise _wrong(text, field)
    return int(word)


def _wrong(text: str, field: Field) -> InputError:
    more = " (0 is Sunday)" if field.names is DAYS else ""
    return InputError(
        f"--at: {text!r:.40} is no {field.name}: numbers from {field.low} to {field.high}{more}, "
        "ranges a-b, lists a,b and steps */n or a-b/n"
    )
