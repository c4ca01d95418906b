"""Weights & Biases, and trackio, which has its interface."""

from __future__ import annotations

import contextlib
import importlib
import io
import netrc
import os
import shlex
import sqlite3
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefbench.errors import InputError
from prefbench.trackers.base import Place, Tracker, need
from prefbench.trackers.curves import Curve

STEP = "training_step"
"""The x of every score. W&B's own step only rises; this lets scores be added to earlier steps."""
ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Variables that send trackio's runs to another machine."""
API = "https://api.wandb.ai"


class WandbTracker(Tracker):
    """Runs of Weights & Biases; offline, in files, unless somebody is logged in."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.unless_told_by("WANDB_DIR"))
        need("wandb", "wandb")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._wandb: Any = importlib.import_module("wandb")
        asked = os.environ.get("WANDB_MODE", "online" if is_logged_in() else "offline")
        self.mode = "online" if asked == "online" and not place.offline else "offline"
        if asked == "disabled":
            raise InputError(
                "WANDB_MODE is disabled, by which W&B would write nothing: unset it, or say offline"
            )

    @property
    def destination(self) -> str:
        if self.mode == "offline":
            return f"wandb {self.place.project} offline {self.place.here}"
        server = os.environ.get("WANDB_BASE_URL", API)
        entity = os.environ.get("WANDB_ENTITY", "")
        return f"wandb {server} {entity}/{self.place.project}"

    @property
    def look(self) -> str:
        if self.mode == "offline":
            return f"wandb sync {shlex.quote(str(self.place.folder / 'wandb'))}/offline-run-*"
        return f"see the project {self.place.project} of Weights & Biases"

    @property
    def is_local(self) -> bool:
        return self.mode == "offline"

    def write(self, curve: Curve) -> None:
        try:
            self._write(curve)
        except (self._wandb.errors.Error, OSError) as error:
            raise InputError(f"{self.destination}: W&B refuses: {error}") from error

    def _write(self, curve: Curve) -> None:
        self.place.folder.mkdir(parents=True, exist_ok=True)
        run = self._wandb.init(
            project=self.place.project,
            id=curve.id,
            name=curve.name,
            dir=str(self.place.folder),
            config=curve.about,
            mode=self.mode,
            job_type="evaluation",
            resume="allow" if self.mode == "online" else None,
            # Scores and what they are of, nothing of this machine, its files or its command lines.
            settings=self._wandb.Settings(
                console="off",
                silent=True,
                host="",
                program="prefbench",
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
            ),
        )
        try:
            run.define_metric(STEP)
            run.define_metric("*", step_metric=STEP)
            for point in curve.points:
                run.log({STEP: point.step, **point.scores})
        finally:
            run.finish()
            # Its process may not have written everything yet; it ends when it has.
            self._wandb.teardown()


class TrackioTracker(Tracker):
    """Runs of trackio: in its database on this machine, or where its own variables say."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.unless_told_by("TRACKIO_DIR"))
        need("trackio", "trackio")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        # Read when it is imported.
        os.environ["TRACKIO_DIR"] = str(self.place.folder.resolve())
        if place.offline:
            for name in ELSEWHERE:
                os.environ.pop(name, None)
        self._trackio: Any = importlib.import_module("trackio")
        kept_in = Path(importlib.import_module("trackio.utils").TRACKIO_DIR)
        if kept_in.resolve() != self.place.folder.resolve():
            raise InputError(
                f"trackio was imported before, and keeps its runs in {kept_in}: a process has one "
                "directory of trackio's; push there, or from a process of its own"
            )
        self.elsewhere = next((os.environ[name] for name in ELSEWHERE if os.environ.get(name)), "")

    @property
    def destination(self) -> str:
        server = urlsplit(self.elsewhere)  # its query may hold a token
        place = f"{server.hostname}{server.path}" if server.hostname else self.elsewhere
        return f"trackio {place or self.place.here} {self.place.project}"

    @property
    def look(self) -> str:
        if self.elsewhere:
            return f"see the project {self.place.project} there"
        folder = shlex.quote(str(self.place.folder))
        return f"TRACKIO_DIR={folder} trackio show --project {shlex.quote(self.place.project)}"

    @property
    def is_local(self) -> bool:
        return not self.elsewhere

    def write(self, curve: Curve) -> None:
        try:
            self._write(curve)
        except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
            raise InputError(f"{self.destination}: trackio refuses: {error}") from error

    def _write(self, curve: Curve) -> None:
        if not self.is_local:  # what does not arrive it keeps, tells and sends the next time
            self._send(curve)
            return
        # What it cannot keep, it only warns of.
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            run = self._send(curve)
        said = [str(one.message) for one in warned]
        # On a network file system what it keeps shows only later.
        shows = importlib.import_module("trackio.utils").get_storage_mode() != "jsonl"
        if not self._has(curve, run) if shows else said:
            raise InputError(
                f"{self.destination}: trackio refuses: {'; '.join(said) or 'it does not say why'}"
            )
        for text in said:
            warnings.warn(text, stacklevel=2)

    def _has(self, curve: Curve, run: Any) -> bool:
        """Whether all that was sent is there."""
        storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
        rows = storage.get_logs(self.place.project, curve.name, run_id=run.id)
        kept = {(row["step"], name) for row in rows for name in row}
        return all((point.step, name) in kept for point in curve.points for name in point.scores)

    def _send(self, curve: Curve) -> Any:
        """The run, which is over."""
        with contextlib.redirect_stdout(io.StringIO()):  # it says much, with colours
            run = self._trackio.init(
                project=self.place.project,
                name=curve.name,
                config=curve.about,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            try:
                for point in curve.points:
                    run.log(dict(point.scores), step=point.step)
            finally:
                self._trackio.finish()
            return run


def is_logged_in() -> bool:
    """Whether Weights & Biases would find a key; asks nobody and reads none out."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", API)).hostname or ""
    file = os.environ.get("NETRC")
    files = [Path(file)] if file else [Path.home() / name for name in (".netrc", "_netrc")]
    for one in files:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if host in netrc.netrc(str(one)).hosts:
                return True
    return False
