"""A gate's verdicts as continuous integration reads them: JUnit XML, and GitHub's commands."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree

from prefbench.gate.gating import Gate, Verdict
from prefbench.report.gate_text import notes_of, sentence_of, summary_of, title_of
from prefbench.report.layout import plain

LEVELS = {"regression": "error", "error": "error", "inconclusive": "warning"}


def as_junit(gate: Gate) -> str:
    """JUnit XML: a suite per checkpoint, a test per check.

    A regression is a failure. What could not be decided is an error, as is what could not be
    compared, told apart by `type`: a skipped test would look like one that is not needed.
    """
    root = ElementTree.Element("testsuites", _counts("prefbench gate", gate.verdicts))
    for name, members in groupby(gate.verdicts, key=lambda one: one.check.checkpoint):
        verdicts = list(members)
        suite = ElementTree.SubElement(root, "testsuite", _counts(plain(name), verdicts))
        facts = ElementTree.SubElement(suite, "properties")
        for key, value in (("baseline", gate.baseline), ("confidence", f"{gate.confidence:g}")):
            ElementTree.SubElement(facts, "property", {"name": key, "value": plain(value)})
        for one in verdicts:
            suite.append(_case(one))
        told = ElementTree.SubElement(suite, "system-out")
        told.text = "\n".join(plain(line) for line in (summary_of(gate), *notes_of(gate)))
    ElementTree.indent(root)
    # Without control characters, which `plain` took out, whatever is left may stand in XML.
    body = ElementTree.tostring(root, encoding="unicode")
    return f"<?xml version='1.0' encoding='utf-8'?>\n{body}\n"


def _counts(name: str, verdicts: Sequence[Verdict]) -> dict[str, str]:
    outcomes = [one.outcome for one in verdicts]
    return {
        "name": name,
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count("regression")),
        "errors": str(outcomes.count("inconclusive") + outcomes.count("error")),
        "skipped": "0",
        "time": "0",
    }


def _case(one: Verdict) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        {
            "classname": plain(one.check.checkpoint),
            "name": plain(f"{title_of(one)} {one.check.asked}"),
            "time": "0",
        },
    )
    said = plain(sentence_of(one))
    if one.outcome == "pass":
        ElementTree.SubElement(case, "system-out").text = said
    else:
        kind = "failure" if one.outcome == "regression" else "error"
        message = {"type": one.outcome, "message": plain(one.reason)}
        ElementTree.SubElement(case, kind, message).text = said
    return case


def as_github(gate: Gate) -> str:
    """Workflow commands that GitHub shows beside a run: one for each check that did not pass.

    Source: docs.github.com/actions/reference/workflow-commands-for-github-actions; what is escaped
    is what github.com/actions/toolkit escapes.
    """
    lines = [
        f"::{LEVELS[one.outcome]} title={_property(_title(one))}::{_data(sentence_of(one))}"
        for one in gate.verdicts
        if one.outcome != "pass"
    ]
    if gate.outcome == "pass":
        lines.append(f"::notice title=prefbench gate::{_data(summary_of(gate))}")
    return "".join(f"{line}\n" for line in lines)


def _title(one: Verdict) -> str:
    return f"{one.outcome}: {one.check.checkpoint}, {title_of(one)}"


def _data(text: str) -> str:
    return plain(text).replace("%", "%25").replace("##[", "# #[")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def without_commands(text: str) -> str:
    """Text of whose lines GitHub takes none for a command, though a name were made to be one.

    A line is one if it begins with `::`, or if it holds `##[` anywhere.
    """
    lines = text.replace("##[", "# #[").split("\n")
    return "\n".join(": " + line if line.lstrip().startswith("::") else line for line in lines)
