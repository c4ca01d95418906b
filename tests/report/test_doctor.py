from __future__ import annotations

import json

import pytest

from prefbench.doctor.findings import Finding
from prefbench.report.doctor import as_json, as_text, summary, waiting

LONG = "pip install --no-deps -r constraints.txt -e .   # " + "a remark that goes on " * 8
FINDINGS = [
    Finding("engines", "hf", "ok", "torch 2.13.0", needed=True),
    Finding("engines", "vllm", "missing", "not installed; " + "and many words " * 12, LONG),
    Finding("data", "gsm8k", "missing", "in no mirror", "prefbench mirror data/"),
    Finding("data", "arc", "missing", "in no mirror", "prefbench mirror data/"),
    Finding("data", "a name that is longer than a third of the line", "ok", "here"),
]


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_and_fixes_stay_whole(width: int) -> None:
    text = as_text(FINDINGS, width=width)
    lines = text.splitlines()
    assert f"           fix: {LONG}".rstrip() in [line.rstrip() for line in lines]
    assert all(len(line) <= width for line in lines if "fix:" not in line)
    assert text.count("prefbench mirror data/") == 1
    assert lines[:2] == ["engines", "  ok       hf    torch 2.13.0"]
    assert "data" in lines


def test_several_lines_of_a_fix_stand_below_each_other() -> None:
    text = as_text([Finding("a", "b", "broken", "c", "first\nsecond")])
    assert "           fix: first\n                second\n" in text


def test_the_last_line_says_what_works() -> None:
    assert summary(FINDINGS) == "Ready: hf. Not ready: vllm, gsm8k, arc."
    broken = Finding("engines", "vllm", "broken", "", needed=True)
    assert summary([FINDINGS[0], broken]) == "Needed, and not working: vllm."
    assert summary([Finding("engines", "hf", "unknown", "")]) == "No engine was tried."


def test_nothing_in_it_can_steer_a_terminal() -> None:
    evil = "x\x1b[2J\u202ey\rz"
    one = Finding("data", evil, "missing", evil, f"export A={evil}\n{evil}", facts={"m": [evil]})
    for text in (as_text([one]), as_json([one])):
        assert not set("\x1b\u202e\r") & set(text)
    assert json.loads(as_json([one]))["findings"][0]["facts"]["m"] == [evil]


def test_colours_are_the_only_escapes() -> None:
    coloured = as_text(FINDINGS, colours=True)
    assert "\x1b[32mok     \x1b[0m" in coloured
    assert coloured.replace("\x1b[32m", "").replace("\x1b[33m", "").replace(
        "\x1b[0m", ""
    ) == as_text(FINDINGS)


def test_json_says_whether_all_works() -> None:
    whole = json.loads(as_json(FINDINGS))
    assert whole["ok"] is True
    assert [one["name"] for one in whole["findings"]][:2] == ["hf", "vllm"]
    failing = [Finding("engines", "hf", "broken", "", needed=True)]
    assert json.loads(as_json(failing))["ok"] is False


def test_waiting_is_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting() as told:
        told("starting vLLM")
    assert capsys.readouterr() == ("", "starting vLLM …\n")
