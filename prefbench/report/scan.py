"""What a scan found and which tasks there are, as text."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Mapping, Sequence

from prefbench.records import METHODS, Checkpoint
from prefbench.report.layout import plain
from prefbench.tasks import Suite, Task


def as_text(checkpoints: Sequence[Checkpoint]) -> str:
    """A line per checkpoint, and below it where its facts were learnt or why it is not ready."""
    head = ("checkpoint", "state", "method", "step", "size", "dtype", "architecture", "reference")
    names = {str(checkpoint.path): checkpoint.name for checkpoint in checkpoints}
    rows = [head, *(_row(checkpoint, names) for checkpoint in checkpoints)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = []
    for i, row in enumerate(rows):
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
        if i:
            lines.append(f"    {_remark(checkpoints[i - 1])}")
    counts = {
        state: sum(c.state == state for c in checkpoints)
        for state in ("ready", "incomplete", "refused")
    }
    lines.append(", ".join(f"{n} {state}" for state, n in counts.items() if n))
    return "\n".join(lines) + "\n"


def _row(one: Checkpoint, names: Mapping[str, str]) -> tuple[str, ...]:
    size = f"{one.n_bytes / 1e6:.1f} MB" if one.n_bytes < 1e9 else f"{one.n_bytes / 1e9:.1f} GB"
    facts = (
        one.name,
        one.state,
        METHODS.get(one.method or "", one.method or "?"),
        "?" if one.step is None else str(one.step),
        size,
        one.dtype or "?",
        (one.architecture or "?") + (" + adapter" if one.adapter else ""),
        names.get(one.reference or "", one.reference or "-"),
    )
    return tuple(plain(fact) for fact in facts)


def _remark(one: Checkpoint) -> str:
    if one.reason:
        return plain(one.reason)
    learnt = ", ".join(f"{key} from {source}" for key, source in one.origins.items())
    return plain(f"{learnt or 'nothing is known of its training'}; {one.fingerprint[:12]}")


def as_json(checkpoints: Sequence[Checkpoint]) -> str:
    """Everything that is known of each."""
    rows = [dataclasses.asdict(checkpoint) for checkpoint in checkpoints]
    return json.dumps(rows, indent=1, default=str) + "\n"


def tasks_as_text(tasks: Mapping[str, Task], suites: Mapping[str, Suite]) -> str:
    """Suites with their members, then tasks with what they ask and show, sweeps with theirs."""
    lines = ["suites"]
    for suite in suites.values():
        limit = f" (first {suite.recipe.limit} items)" if suite.recipe.limit else ""
        members = textwrap.wrap(", ".join(suite.tasks), 90)
        lines += [f"  {suite.name}{limit}: {suite.title}", *(f"      {line}" for line in members)]
    lines += ["", "tasks"]
    listed: dict[str, list[Task]] = {}
    for task in tasks.values():
        listed.setdefault(task.sweep or task.name, []).append(task)
    width = max(map(len, listed), default=0)
    for name, (task, *_) in listed.items():
        asked = "pairs" if task.recipe.pairs else task.kind
        shots = f"{task.n_shots}-shot" if task.n_shots else "0-shot"
        shown = ", ".join(task.recipe.metrics)
        facts = f"{asked:22} {shots:8} {task.config['dataset_path']}: {shown}"
        lines.append(f"  {name.ljust(width)}  {facts}")
        if task.sweep:
            members = textwrap.wrap(", ".join(one.name for one in listed[name]), 90)
            lines += [f"      {line}" for line in members]
    return "\n".join(lines) + "\n"
