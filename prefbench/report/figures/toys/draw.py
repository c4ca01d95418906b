"""All figures of the toys, as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from prefbench.demo.toys.findings import Toys, compared, findings, work_out
from prefbench.errors import InputError
from prefbench.report.figures.draw import CAPTIONS
from prefbench.report.figures.sheet import FORMATS, Drawing, save, typeset
from prefbench.report.figures.toys.actions import three_actions
from prefbench.report.figures.toys.entangled import one_differing_token
from prefbench.report.figures.toys.losses import gradients, landscapes, losses
from prefbench.report.figures.toys.shared_token import shared_token

FAMILIES: tuple[Callable[[Toys], Drawing], ...] = (
    three_actions,
    shared_token,
    losses,
    gradients,
    landscapes,
    one_differing_token,
)


def draw_toys(
    folder: Path,
    *,
    formats: Sequence[str] = ("pdf",),
    seed: int = 0,
    toys: Toys | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Path]:
    """Writes every figure of the toys and their captions; the same seed gives the same bytes.

    Args:
        folder: where the figures go; made where it is missing.
        formats: of each figure, out of pdf, svg and png.
        seed: of the mini-batches, where the toys are not given.
        toys: what came out of them, where that is known already; working them out takes half a
            minute.
        tell: is given a sentence for each finding that differs from what is known.

    Returns:
        The files, and last that of the captions.

    Raises:
        InputError: a format is unknown.
    """
    for kind in formats:
        if kind not in FORMATS:
            raise InputError(f"no figure format is named {kind!r}; there are: {', '.join(FORMATS)}")
    toys = toys or work_out(seed)
    drawings = figures_of_toys(toys)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for drawing in drawings:
        for kind in formats:
            path = folder / f"{drawing.name}.{kind}"
            save(drawing, path)
            paths.append(path)
    captions = folder / CAPTIONS
    lines = [f"{drawing.name}: {drawing.caption}\n" for drawing in drawings]
    captions.write_text("\n".join(lines), encoding="utf-8")
    for finding in findings(toys) if tell else ():
        if tell and not finding.agrees:
            tell(f"{finding.toy}: {finding.what}: {compared(finding)}")
    return [*paths, captions]


def figures_of_toys(toys: Toys) -> list[Drawing]:
    """Every figure of the toys."""
    with typeset():
        return [family(toys) for family in FAMILIES]
