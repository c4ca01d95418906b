"""The verb `push`: the scores of each training run to an experiment tracker."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefbench.report.options import Confidence, Everything, OnlyTasks, ResultsFolder

if TYPE_CHECKING:
    from prefbench.trackers.pushing import Pushed

EXAMPLES = (
    "Examples: prefbench push --to tensorboard · "
    "prefbench push results/ --to wandb --project dpo · "
    "prefbench push --to mlflow --tracking-uri http://127.0.0.1:5000 --task gsm8k_5shot"
)


class To(StrEnum):
    wandb = "wandb"
    trackio = "trackio"
    mlflow = "mlflow"
    tensorboard = "tensorboard"


def push(
    to: Annotated[To, typer.Option(help="The tracker.")],
    results: ResultsFolder = Path("results"),
    project: Annotated[str, typer.Option(help="What it files runs under.")] = "prefbench",
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir", help="Of what it keeps on this machine [trackers/TRACKER in the results]."
        ),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="For mlflow: a server's or a database's address.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Into files here, also if you are logged in.")
    ] = False,
    task: OnlyTasks = [],  # noqa: B006  # typer's way
    everything: Everything = False,
    confidence: Confidence = 0.95,
    anew: Annotated[
        bool, typer.Option("--anew", help="Everything again, to new runs beside the old ones.")
    ] = False,
) -> None:
    """The scores of each training run to W&B, trackio, MLflow or TensorBoard, by training step.

    One run there for each training run here, with its checkpoints as points: `task/metric`, with
    `_low`, `_high` and `_n`. Again, it sends only what is new. Without a login or an address,
    everything stays in files on this machine.
    """
    from prefbench.errors import InputError, StoreError
    from prefbench.report.collect import collect
    from prefbench.report.layout import plain
    from prefbench.store import Store
    from prefbench.trackers import TRACKERS
    from prefbench.trackers.base import Place
    from prefbench.trackers.curves import curves_of
    from prefbench.trackers.pushing import push as push_curves

    if not project or not project.isprintable():
        raise InputError(f"a project has a name in one line, not {project!r}")
    if tracking_uri and to is not To.mlflow:
        raise InputError(f"--tracking-uri is MLflow's; {to} has none")
    place = Place(
        folder or results / "trackers" / to, project, tracking_uri, offline, own=folder is None
    )
    tracker = TRACKERS[to](place)
    curves, notes = curves_of(
        collect(results, tasks=task, confidence=confidence), everything=everything
    )
    if not curves:
        raise InputError(f"{results}: nothing is measured here that could be pushed")
    pushed = push_curves(curves, tracker, results, anew=anew)
    left = Store(results).close()  # with the record of what was pushed
    print("\n".join(map(plain, [*notes, *lines_of(pushed), tracker.look])))
    if left:
        raise StoreError(left)


def lines_of(pushed: Sequence[Pushed]) -> list[str]:
    """What became of each curve, and what differs from what was sent before."""
    lines = []
    for one in pushed:
        points = "1 step" if one.n_points == 1 else f"{one.n_points} steps"
        said = f"{points} pushed" if one.n_points else "nothing new"
        known = f", {one.n_known} scores were there" if one.n_known else ""
        lines.append(f"{one.name}: {said}{known}; run {one.id}")
        if one.changed:
            more = f" and {len(one.changed) - 1} others" if len(one.changed) > 1 else ""
            lines.append(
                f"{one.name}: {one.changed[0]}{more} had another value when pushed, which stays "
                "there; --anew pushes everything to new runs"
            )
    return lines
