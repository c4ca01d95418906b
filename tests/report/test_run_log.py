"""What is said of a run's log, at the end and in lines that fit."""

from __future__ import annotations

import pytest

from prefbench.doctor.findings import Finding
from prefbench.report.doctor import as_text
from prefbench.report.run_log import verdict

LOG = Finding("log", "trainer_state.json", "ok", "12 entries")
SAME = Finding("measured", "pairs, dpo", "ok", "all agree", facts={"logged": {}})
AGAINST = Finding("measured", "pairs, ipo", "broken", "not", needed=True, facts={"logged": {}})
OTHER = Finding("measured", "more, dpo", "unknown", "other sign")
NOTHING = Finding("measured", "results", "missing", "nothing", "prefbench run x")


def told(findings, width=100):
    return as_text(findings, width=width, closing=verdict(findings))


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ([LOG], "The log does not contradict itself. Nothing was measured beside it."),
        ([LOG, NOTHING], "The log does not contradict itself. Nothing was measured beside it."),
        (
            [Finding("log", "margins", "broken", "x", needed=True), SAME],
            "The log cannot be right as it is: margins. "
            "Of 1 measurements on as many pairs 1 agree.",
        ),
        (
            [LOG, SAME, AGAINST, OTHER],
            "The log does not contradict itself. Of 2 measurements on as many pairs 1 agree, 1 "
            "contradict it. Of 1 on other pairs, by signs and trends alone, 0 go with it.",
        ),
        ([Finding("log", "s", "unused", "")], "The log has nothing of pairs."),
    ],
)
def test_the_last_line_says_what_matters(findings, said):
    assert verdict(findings) == said
    text = told(findings, width=60)
    assert " ".join(text.split()).endswith(said)
    assert "No engine" not in text
    assert all(len(line) <= 60 for line in text.splitlines() if "fix:" not in line)


def test_findings_stand_above_it():
    text = told([LOG, SAME, NOTHING])
    assert text.startswith("log\n  ok       trainer_state.json  12 entries\n\nmeasured\n  ok  ")
    assert "           fix: prefbench run x\n\nThe log" in text


def test_nothing_in_it_can_steer_a_terminal():
    evil = "x\x1b[2J\u202ey"
    text = told([Finding("log", evil, "broken", evil, evil)])
    assert not set("\x1b\u202e") & set(text)
