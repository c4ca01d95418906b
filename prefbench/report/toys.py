"""Toys whose answers are known: worked out, drawn, and said to agree or not."""

from __future__ import annotations

import sys
from pathlib import Path

import typer


def show_toys(folder: Path) -> None:
    """Draws the toys into a folder and says what came out; exit code 1 where one disagrees."""
    from rich.console import Console

    from prefbench.demo.toys.findings import findings, toys_as_text, work_out
    from prefbench.report.figures.toys.draw import draw_toys

    with Console(stderr=True).status("working out the toys, half a minute"):
        toys = work_out()
        files = draw_toys(folder, formats=("pdf", "png"), toys=toys)
    print(toys_as_text(toys))
    print("\n".join(map(str, files)), file=sys.stderr)
    if not all(one.agrees for one in findings(toys)):
        raise typer.Exit(1)
