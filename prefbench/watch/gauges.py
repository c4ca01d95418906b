"""A watch's numbers for Prometheus: the file that a node exporter's textfile collector reads."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from prefbench import __version__
from prefbench.files import replace
from prefbench.watch.events import State
from prefbench.watch.status import Row

Labels = Mapping[str, str]


def write_gauges(
    file: Path, rows: Sequence[Row], *, watcher: str, when: float, seconds: float, n_unsent: int
) -> None:
    """Writes the file as a whole.

    Args:
        file: named `….prom` where a node exporter is to find it.
        rows: all checkpoints.
        watcher: who looked.
        when: the look's end, in seconds since 1970.
        seconds: what it took.
        n_unsent: messages that the webhook has not taken yet.

    Raises:
        StoreError: it cannot be written.
    """
    text = as_text(rows, watcher=watcher, when=when, seconds=seconds, n_unsent=n_unsent)
    replace(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def as_text(
    rows: Sequence[Row], *, watcher: str, when: float, seconds: float, n_unsent: int
) -> str:
    """Prometheus' text format, version 0.0.4."""
    states = Counter(row.state for row in rows)
    n_left = sum(len(row.cells) - row.n_measured for row in rows if row.state == "failed")
    ended = [_seconds(row.since) for row in rows if row.state in ("measured", "judged")]
    newest = max((row for row in rows if row.gate), key=lambda row: row.since or "", default=None)
    told: list[tuple[str, str, list[tuple[Labels, float]]]] = [
        ("info", "Which watcher wrote this.", [({"watcher": watcher, "version": __version__}, 1)]),
        (
            "checkpoints",
            "Checkpoints by state.",
            [({"state": state}, states[state]) for state in get_args(State)],
        ),
        ("cells", "Cells of all checkpoints.", [({}, sum(len(r.cells) for r in rows))]),
        ("cells_measured", "Those that are measured.", [({}, sum(r.n_measured for r in rows))]),
        ("cells_failed", "Cells left open by checkpoints that failed.", [({}, n_left)]),
        ("tries_failed", "Tries that failed.", [({}, sum(r.tries + r.ended for r in rows))]),
        ("look_seconds", "What the last look took.", [({}, seconds)]),
        ("look_timestamp_seconds", "When the last look ended.", [({}, when)]),
        (
            "success_timestamp_seconds",
            "When a checkpoint was last measured or judged; 0 where none was.",
            [({}, max(ended, default=0.0))],
        ),
        ("webhook_unsent", "Messages that the webhook has not taken yet.", [({}, n_unsent)]),
        (
            "gate",
            "What the gate says of a checkpoint.",
            [
                ({"checkpoint": row.name, "outcome": str(row.gate["outcome"])}, 1)
                for row in rows
                if row.gate
            ],
        ),
        ("score", "Values of the checkpoint that was gated last.", list(_scores(newest))),
    ]
    return "".join(line for name, help_, samples in told for line in _family(name, help_, samples))


def _scores(row: Row | None) -> Iterator[tuple[Labels, float]]:
    seen = set()
    for check in row.gate["checks"] if row and row.gate else ():
        labels = {
            "checkpoint": row.name if row else "",
            **{name: str(check[name] or "") for name in ("task", "conditions", "metric")},
            **{name: str(check[name] or "") for name in ("judge", "opponent")},
        }
        if check["value"] is not None and tuple(labels.values()) not in seen:
            seen.add(tuple(labels.values()))
            yield labels, check["value"]


def _family(name: str, help_: str, samples: Sequence[tuple[Labels, float]]) -> Iterator[str]:
    if samples:
        yield f"# HELP prefbench_watch_{name} {help_}\n"
        yield f"# TYPE prefbench_watch_{name} gauge\n"
    for labels, value in samples:
        inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"prefbench_watch_{name}{{{inner}}} {float(value)!r}\n"


def _escaped(text: str) -> str:
    """A label's value; half a character, as in the name of a folder, becomes words for it."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return whole.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _seconds(when: str | None) -> float:
    try:
        return datetime.datetime.fromisoformat(when or "").timestamp()
    except ValueError:
        return 0.0
