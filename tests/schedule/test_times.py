from __future__ import annotations

import shutil
import subprocess
from datetime import datetime, timedelta

import pytest

from prefbench.errors import InputError
from prefbench.schedule.times import at, every


@pytest.mark.parametrize(
    ("text", "cron"),
    [
        ("1m", "* * * * *"),
        ("15m", "*/15 * * * *"),
        ("1h", "0 * * * *"),
        ("6h", "0 */6 * * *"),
        ("24h", "0 0 * * *"),
        ("1d", "0 0 * * *"),
        ("1w", "0 0 * * 0"),
    ],
)
def test_what_divides_evenly(text: str, cron: str) -> None:
    assert every(text).cron == cron


@pytest.mark.parametrize("text", ["7m", "60m", "5h", "2d", "0h", "-1h", "", "1", "1 hour", "１h"])
def test_what_cron_cannot_say(text: str) -> None:
    with pytest.raises(InputError, match=r"^--every: "):
        every(text)


@pytest.mark.parametrize(
    "text",
    [
        "0 3 * *",
        "0 3 * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 7",
        "*/0 * * * *",
        "5/10 * * * *",
        "9-3 * * * *",
        "a * * * *",
        "1,,2 * * * *",
        "@daily",
        "* * * * * rm",
        "² * * * *",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InputError, match=r"^--at: "):
        at(text)


def matches(cron: str, moment: datetime) -> bool:
    """Whether cron runs then: by crontab(5), value by value."""
    minute, hour, day, month, weekday = cron.lower().split()
    days = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
    months = {"jan": 1, "jul": 7}

    def fits(text: str, value: int, low: int, names: dict[str, int]) -> bool:
        for part in text.split(","):
            span, _, step = part.partition("/")
            first, _, last = span.partition("-")
            numbers = [int(names.get(one, one)) for one in (first, last or first) if one != "*"]
            begin, end = numbers or (low, 99)
            if begin <= value <= end and (value - begin) % int(step or 1) == 0:
                return True
        return False

    by_day = fits(day, moment.day, 1, {})
    by_weekday = fits(weekday, moment.isoweekday() % 7, 0, days)
    either = not (day.startswith("*") or weekday.startswith("*"))
    return (
        fits(minute, moment.minute, 0, {})
        and fits(hour, moment.hour, 0, {})
        and fits(month, moment.month, 1, months)
        and (by_day or by_weekday if either else by_day and by_weekday)
    )


@pytest.mark.parametrize(
    "cron",
    [
        "*/20 * * * *",
        "7-59/25 */9 * * *",
        "30 4 1,15 * 5",  # either
        "0 12 */10 * mon-fri",  # both
        "0 0 31 * *",
        "5 0 * jan,jul *",
        "59 23 * * SUN,3",
    ],
)
def test_systemd_starts_when_cron_does(cron: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here: apt-get install systemd")
    begin = datetime(2026, 1, 30, 22, 30)
    moments = (begin + timedelta(minutes=n) for n in range(1, 60 * 24 * 45))
    expected = [moment for moment in moments if matches(cron, moment)][:12]
    found: set[datetime] = set()
    for calendar in at(cron).calendars():
        done = subprocess.run(
            ["systemd-analyze", "calendar", "--iterations=12", f"--base-time={begin}", calendar],
            capture_output=True,
            text=True,
            check=True,
            env={"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        )
        for line in done.stdout.splitlines():
            name, _, value = line.strip().partition(": ")
            if name == "Next elapse" or name.startswith("Iter"):
                found.add(datetime.strptime(value, "%a %Y-%m-%d %H:%M:%S UTC"))
    assert expected
    assert sorted(found)[: len(expected)] == expected
