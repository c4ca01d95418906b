"""What the doctor found of a training run's log, in a line or two."""

from __future__ import annotations

from collections.abc import Sequence

from prefbench.doctor.findings import Finding


def verdict(findings: Sequence[Finding]) -> str:
    """What matters of a run's log, in a line or two."""
    log = [one for one in findings if one.group == "log"]
    beside = [one for one in findings if one.group == "measured" and one.state != "missing"]
    if any(one.state == "unused" for one in log):
        return "The log has nothing of pairs."
    if faults := [one.name for one in log if one.state in ("missing", "broken")]:
        said = f"The log cannot be right as it is: {', '.join(faults)}."
    else:
        said = "The log does not contradict itself."
    if not beside:
        return f"{said} Nothing was measured beside it."
    exact = [one for one in beside if "logged" in one.facts]
    agree = sum(one.state == "ok" for one in exact)
    against = sum(one.state == "broken" for one in exact)
    others = len(beside) - len(exact)
    if exact:
        said += f" Of {len(exact)} measurements on as many pairs {agree} agree"
        said += f", {against} contradict it." if against else "."
    if others:
        alike = sum(one.state == "ok" for one in beside if one not in exact)
        said += f" Of {others} on other pairs, by signs and trends alone, {alike} go with it."
    return said
