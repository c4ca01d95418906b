"""From a results directory to one HTML file that holds all it shows and runs nothing else."""

from __future__ import annotations

import base64
import datetime
import hashlib
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from prefbench import __version__
from prefbench.boards.scored import board_of
from prefbench.boards.shown import Shown, show
from prefbench.claims.readings import readings
from prefbench.errors import InputError, PrefbenchError
from prefbench.leaderboard import Gathered
from prefbench.report.page.drawings import figures_of
from prefbench.report.page.effects import effects_of
from prefbench.report.page.embedded import embed
from prefbench.report.page.looks import class_of, mark, method_of, style_of
from prefbench.report.page.origins import origins_of
from prefbench.report.page.remarks import remarks_of
from prefbench.report.page.svg import element
from prefbench.report.page.table import CORRECTIONS, table_of
from prefbench.report.page.visible import visible
from prefbench.report.page.watched import watched_of
from prefbench.report.tables import label
from prefbench.stats.corrections import Correction
from prefbench.store import Store

SCRIPTS = ("text.js", "table.js", "samples.js")
"""Parts of the page's one script, in order."""


def write_page(
    file: Path,
    gathered: Gathered,
    results: Path,
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
    correction: Correction = "holm",
    everything: bool = False,
    samples: int | None = None,
    when: datetime.datetime | None = None,
) -> list[str]:
    """Writes the page and returns what its reader is told of missing samples.

    Args:
        file: the HTML file.
        gathered: what is shown of the results.
        results: where they are.
        baseline: a checkpoint's name or a method; None means SFT where there is exactly one.
        confidence: of the intervals.
        correction: of the comparisons that are shown, for their number.
        everything: all metrics, not the main ones.
        samples: items of each task in the sample browser, the first ones; None for as many as a
            page can well hold.
        when: what the page says it was made; None for now.

    Raises:
        InputError: the baseline is unknown, or the file cannot be written.
        StoreError: results cannot be read.
    """
    board = board_of(
        gathered,
        baseline=baseline,
        confidence=confidence,
        everything=everything,
        hidden=everything,
    )
    shown = show(board, everything=everything, correction=correction)
    store = Store(results, create=False)
    labels = {row.name: label(row, board) for row in board.rows}
    embedded, notes = embed(store, gathered, labels=labels, limit=samples)
    effects, more = effects_of(gathered, shown, store, readings(gathered, board))
    notes += more
    watched, why = watched_of(results)
    notes += [why] if why else []
    cut = [
        f"{one.title}: the sample browser has the first {one.n_shown} of {one.n_items} items"
        for one in embedded
        if one.n_shown < one.n_items
    ]
    made = when or datetime.datetime.now(datetime.UTC)
    text = _rendered(
        shown,
        title="Results: " + "/".join(results.resolve().parts[-2:]),
        made=made.isoformat(sep=" ", timespec="minutes")[:16] + " UTC",
        remarks=remarks_of(shown, [*notes, *cut]),
        figures=[
            (kind, list(them)) for kind, them in groupby(figures_of(shown), lambda one: one.kind)
        ],
        effects=effects,
        labels=labels,
        origins=origins_of(store, gathered, shown),
        samples=embedded,
        watched=watched,
        suites=_suites(gathered),
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {error.strerror or error}") from error
    return [*notes, *cut]


def _rendered(shown: Shown, **facts: Any) -> str:
    """The template with everything in it."""
    style = Markup(_part("page.css") + style_of(map(method_of, shown.board.rows)))
    script = Markup('"use strict";\n' + "".join(map(_part, SCRIPTS)))
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_final,
    )
    rows = {row.name: row for row in shown.board.rows}

    def look(name: str) -> Markup:
        """A checkpoint's mark, as figures have it."""
        row = rows[name]
        return element(
            "svg",
            mark(method_of(row), 6, 6, 4.2),
            viewBox="0 0 12 12",
            class_=f"look {class_of(method_of(row))}",
            aria_hidden="true",
        )

    return environment.from_string(_part("page.html.jinja")).render(
        policy=policy(style, script),
        style=style,
        script=script,
        shown=shown,
        table=table_of(shown),
        n_checkpoints=len(shown.board.rows),
        level=f"{100 * shown.board.confidence:.6g}%",
        correction=CORRECTIONS[shown.correction],
        version=__version__,
        look=look,
        **facts,
    )


def policy(style: str, script: str) -> str:
    """What the page may do: run its one script, apply its one style, and nothing else.

    Nothing is loaded, nothing is sent, no text becomes markup; a text that says `<script>` would
    not run even if it were in the page as one.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _part(name: str) -> str:
    return (files("prefbench.report.page") / name).read_text(encoding="utf-8")


def _final(value: Any) -> Any:
    """What the template puts out: markup of ours as it is, any other text made visible."""
    return value if isinstance(value, Markup) else visible(str(value))


def _suites(gathered: Gathered) -> list[tuple[str, list[str]]]:
    """The shipped suites that have tasks here, each with the names of these."""
    from prefbench.tasks import load_index, tasks_folder

    there = list(dict.fromkeys(group.task for group in gathered.groups))
    try:
        tasks, suites = load_index([tasks_folder()])
    except PrefbenchError:
        return []  # without them there is still a choice of tasks
    found = []
    for suite in suites.values():
        members = [
            name
            for name in there
            if name in suite.tasks or (name in tasks and tasks[name].sweep in suite.tasks)
        ]
        if members:
            found.append((suite.name, members))
    return found
