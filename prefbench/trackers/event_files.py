"""TensorBoard: event files in a log directory."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

from prefbench.errors import InputError
from prefbench.trackers.base import Place, Tracker, need
from prefbench.trackers.curves import Curve

ABOUT = "prefbench/about"
LONGEST = 120
"""Bytes of a folder's name that come from a name of a user's."""
_UNSAFE = re.compile(r"[^\w.\-]+")


class TensorboardTracker(Tracker):
    """A folder of event files for each curve, under the project's; needs no TensorFlow."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        need("tensorboard", "tensorboard")
        self._event: Any = _found("compat.proto.event_pb2").Event
        self._summary: Any = _found("compat.proto.summary_pb2").Summary
        self._text: Any = _found("plugins.text.summary").text_pb
        self._writer: Any = _found("summary.writer.event_file_writer").EventFileWriter

    @property
    def destination(self) -> str:
        return f"tensorboard {self.place.here} {self.place.project}"

    @property
    def look(self) -> str:
        return f"tensorboard --logdir {shlex.quote(str(self.place.folder))}"

    @property
    def is_local(self) -> bool:
        return True

    def folder_of(self, curve: Curve) -> Path:
        """Where a curve's files are; its name, in letters that are safe in paths."""
        parts = [
            _UNSAFE.sub("_", part).encode()[:LONGEST].decode(errors="ignore").strip(".") or "_"
            for part in (self.place.project, curve.name)
        ]
        if parts[1] != curve.name:
            parts[1] += f"-{hashlib.sha256(curve.name.encode()).hexdigest()[:6]}"
        return self.place.folder.joinpath(*parts)

    def write(self, curve: Curve) -> None:
        try:
            writer = self._writer(str(self.folder_of(curve)))
        except OSError as error:
            raise InputError(
                f"{self.place.folder}: cannot be written: {error.strerror or error}"
            ) from error
        now = time.time()
        try:
            about = self._text(
                ABOUT, f"    {json.dumps(curve.about)}"
            )  # four spaces: taken as it is
            writer.add_event(self._event(wall_time=now, step=curve.points[-1].step, summary=about))
            for point in curve.points:
                values = [
                    self._summary.Value(tag=name, simple_value=value)
                    for name, value in point.scores.items()
                ]
                summary = self._summary(value=values)
                writer.add_event(self._event(wall_time=now, step=point.step, summary=summary))
        finally:
            writer.close()


def _found(module: str) -> Any:
    return importlib.import_module(f"tensorboard.{module}")
