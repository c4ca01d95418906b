"""What runs in a Ray actor: starts a worker's process on its node, and passes on what is said.

The work is done in the process and not in the actor, so that a checkpoint which takes its process
down is told from a node that is gone, and so that what libraries print stays in the log. Ray
brings this file to the node by value: it imports prefbench only there, if it can.
"""

from __future__ import annotations

import os
import platform
import queue
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LISTEN_FOR = 5.0
"""Seconds in which a driver that hears nothing asks again."""


class Relay:
    """An actor; methods run beside each other, in two threads."""

    def __init__(
        self, number: int, job: str, versions: tuple[str, str], environment: Mapping[str, str]
    ) -> None:
        """Starts the worker, unless the node cannot do the work.

        Args:
            number: which of the workers it is.
            job: of the run, as JSON.
            versions: of prefbench and of Python on the driver's side.
            environment: variables that the process has besides the node's.
        """
        self._heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._worker: Any = None
        try:
            self._start(number, job, versions, environment)
        except Exception as error:  # noqa: BLE001  # told to the driver, whatever it is
            self._heard.put({"event": "unfit", "reason": str(error), "cell": None})
            self._heard.put(None)

    def _start(
        self, number: int, text: str, versions: tuple[str, str], environment: Mapping[str, str]
    ) -> None:
        try:
            import prefbench
        except ImportError as error:
            raise RuntimeError(
                f"its Python cannot import prefbench: {error}; "
                f"pip install prefbench=={versions[0]} on each node"
            ) from error
        here = prefbench.__version__, platform.python_version()
        for name, own, theirs in zip(("prefbench", "Python"), here, versions, strict=True):
            if minor(own) != minor(theirs) or (name == "prefbench" and own != theirs):
                raise RuntimeError(f"it has {name} {own}, and the run was started by {theirs}")
        from prefbench.parallel.job import Job
        from prefbench.parallel.local import LocalWorker

        job = Job.from_json(text)
        if job.folder.is_dir():
            os.chdir(job.folder)
        shared = job.results.is_dir()
        logs = job.results / "logs" if shared else Path(tempfile.gettempdir()) / "prefbench-logs"
        self._worker = LocalWorker(
            number, job, environment, lambda _, event: self._heard.put(event), logs=logs
        )

    def place(self) -> tuple[str, str]:
        """The node, by its id and for people."""
        import ray

        node = str(ray.get_runtime_context().get_node_id())
        return node, f"{socket.gethostname()} ({node[:6]})"

    def listen(self) -> list[dict[str, Any]]:
        """What the worker has told since, as soon as there is something; `gone` is the last."""
        events: list[dict[str, Any]] = []
        try:
            event = self._heard.get(timeout=LISTEN_FOR)
            while event is not None:
                events.append(event)
                event = self._heard.get_nowait()
        except queue.Empty:
            return events
        how = "" if self._worker is None else self._worker.end()
        return [*events, {"event": "gone", "how": how}]

    def measure(self, group: tuple[str, ...], cells: list[str], wait: bool) -> None:
        """Hands it cells by name."""
        if self._worker is not None:
            self._worker.measure_named(group, cells, wait=wait)

    def stop(self) -> None:
        """Tells it to end."""
        if self._worker is not None:
            self._worker.stop()


def minor(version: str) -> list[str]:
    """The first two numbers of a version."""
    return version.split(".")[:2]
