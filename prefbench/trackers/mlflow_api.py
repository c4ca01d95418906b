"""MLflow: a database on this machine, or a server."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import time
from typing import Any
from urllib.parse import unquote, urlsplit

from prefbench.errors import InputError
from prefbench.trackers.base import Place, Tracker, need
from prefbench.trackers.curves import Curve

TAG = "prefbench.run"
"""The tag by which a curve's run is found again."""
AT_ONCE = 1000
"""Scores in one request, the most that MLflow takes."""
_UNKNOWN = re.compile(r"[^\w\-. :/]", re.ASCII)


class MlflowTracker(Tracker):
    """Runs of MLflow; by default in a SQLite database in the folder."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        need("mlflow", "mlflow")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        given = place.uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.uri = given or ""
        self._own = place.offline or not given
        if self._own:
            need("sqlalchemy", "mlflow")
            self.uri = f"sqlite:///{place.folder.resolve() / 'mlflow.db'}"
        self._mlflow: Any = importlib.import_module("mlflow")
        self._made: Any = None

    @property
    def destination(self) -> str:
        if self._own:
            return f"mlflow {self.place.here} {self.place.project}"
        place = urlsplit(self.uri)  # it may hold a password
        if not place.hostname:
            return f"mlflow {place.scheme}:{place.path} {self.place.project}"
        return f"mlflow {place.scheme}://{place.hostname}:{place.port} {self.place.project}"

    @property
    def look(self) -> str:
        if self._own:
            return f"mlflow ui --backend-store-uri {shlex.quote(self.uri)}"
        return f"see the experiment {self.place.project} there"

    @property
    def is_local(self) -> bool:
        return self._own

    def write(self, curve: Curve) -> None:
        try:
            self._write(curve)
        except (self._mlflow.exceptions.MlflowException, ImportError, OSError) as error:
            said = _without_password(str(error), self.uri)
            raise InputError(f"{self.destination}: MLflow refuses: {said}") from error

    def _write(self, curve: Curve) -> None:
        client = self._client()
        run = self._run(client, curve)
        now = int(1000 * time.time())
        metric = self._mlflow.entities.Metric
        names = _names(curve)
        metrics = [
            metric(names[name], value, now, point.step)
            for point in curve.points
            for name, value in point.scores.items()
        ]
        for start in range(0, len(metrics), AT_ONCE):
            client.log_batch(run, metrics=metrics[start : start + AT_ONCE])
        for name, value in _tags(curve):
            client.set_tag(run, name, value)
        client.set_terminated(run)

    def _client(self) -> Any:
        if self._made is None:
            if self._own:
                self.place.folder.mkdir(parents=True, exist_ok=True)
            self._made = self._mlflow.MlflowClient(tracking_uri=self.uri)
        return self._made

    def _run(self, client: Any, curve: Curve) -> str:
        """The id of the curve's run, which is found by its tag or made."""
        experiment = client.get_experiment_by_name(self.place.project)
        if experiment is None:
            # Nothing is put there; without it a folder would be made where the user is.
            artifacts = None
            if self._own:
                artifacts = (self.place.folder.resolve() / "artifacts").as_uri()
            number = client.create_experiment(self.place.project, artifact_location=artifacts)
        else:
            number = experiment.experiment_id
        found = client.search_runs([number], f"tags.`{TAG}` = '{curve.id}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        made = client.create_run(number, run_name=curve.name, tags={TAG: curve.id})
        return str(made.info.run_id)


def _without_password(text: str, uri: str) -> str:
    """What MLflow says, which may quote the whole address."""
    secret = urlsplit(uri).password
    for form in (secret, unquote(secret)) if secret else ():
        text = text.replace(form, "…")
    return text


def _names(curve: Curve) -> dict[str, str]:
    """The names of scores in the letters that MLflow takes, each its own."""
    names: dict[str, str] = {}
    for point in curve.points:
        for name in point.scores:
            # No part may be empty or dots: MLflow takes names for paths.
            parts = _UNKNOWN.sub("_", name).split("/")
            names.setdefault(name, "/".join(part if part.strip(".") else "_" for part in parts))
    taken: dict[str, str] = {}
    for name, written in names.items():
        if taken.setdefault(written, name) != name:
            raise InputError(f"MLflow writes {name!r} and {taken[written]!r} alike, as {written!r}")
    return names


def _tags(curve: Curve) -> list[tuple[str, str]]:
    """What is known of the curve; of checkpoints, a tag for each step."""
    tags: list[tuple[str, str]] = []
    for name, value in curve.about.items():
        if isinstance(value, dict):
            tags += [(f"prefbench.{name}.{step}", str(one)) for step, one in value.items()]
        else:
            tags.append(
                (f"prefbench.{name}", value if isinstance(value, str) else json.dumps(value))
            )
    return tags
