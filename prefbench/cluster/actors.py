"""The actors that measure on a Ray cluster, as their driver sees them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from prefbench import __version__
from prefbench.cells import Unit
from prefbench.cluster import relay
from prefbench.parallel.devices import THREADS, VISIBLE
from prefbench.parallel.job import Job
from prefbench.parallel.worker import Hear

CARRIED = (
    THREADS,
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "PREFBENCH_LEASE_SECONDS",
)
"""Variables of the driver's that a node must have, too."""
LOOK_EVERY = 2.0
"""Seconds between two looks whether a node has come that fits."""


def fitting_nodes(needs: Mapping[str, float], unfit: Sequence[str] = ()) -> list[dict[str, float]]:
    """What each node has in all that lives and has enough."""
    import ray

    nodes: Callable[[], list[dict[str, Any]]] = ray.nodes
    return [
        node["Resources"]
        for node in nodes()
        if node["Alive"]
        and node["NodeID"] not in unfit
        and all(node["Resources"].get(name, 0) >= n for name, n in needs.items())
    ]


class Cluster:
    """A workplace on all nodes of the cluster that is connected."""

    def __init__(
        self, job: Job, needs: Mapping[str, float], max_workers: int | None, patience: float
    ) -> None:
        rooms = [
            min(int(node.get(name, 0) // n) for name, n in needs.items())
            for node in fitting_nodes(needs)
        ]
        # Engines on processors divide a node's memory by how many there are.
        settings = dataclasses.replace(job.settings, data_parallel_size=max([1, *rooms]))
        self.job = dataclasses.replace(job, settings=settings, far=True)
        self.n_first = max_workers or max(1, sum(rooms))
        self.n_most = max_workers or 10**6
        self.needs = needs
        self.patience = patience
        self.unfit: list[str] = []

    def start(self, number: int, hear: Hear) -> ActorWorker:
        """Asks for one more actor; it may have to wait for a node."""
        return ActorWorker(number, self, hear)

    def leave(self, place: str) -> bool:
        """Starts no more workers at a node that is unfit; whether another may do."""
        self.unfit.append(place)
        return bool(fitting_nodes(self.needs, self.unfit))

    def environment(self) -> dict[str, str]:
        """Variables of the worker's process on a node."""
        found = {name: os.environ[name] for name in CARRIED if name in os.environ}
        threads = {THREADS: str(max(1, int(self.needs["CPU"])))}
        # An engine that has asked for no GPU must not find one.
        hidden = {} if "GPU" in self.needs else {VISIBLE: ""}
        return {**threads, **hidden, **found}


class ActorWorker:
    """An actor, as the driver sees it."""

    def __init__(self, number: int, cluster: Cluster, hear: Hear) -> None:
        import ray

        self.number = number
        self.stopped = False
        self.lost = False
        self._how = "before it began"
        self._cluster = cluster
        self._hear = hear
        self._title = ""
        by_value: Callable[[ModuleType], None] = ray.cloudpickle.register_pickle_by_value
        by_value(relay)
        options: dict[str, Any] = {
            "num_cpus": cluster.needs["CPU"],
            "num_gpus": cluster.needs.get("GPU", 0),
            "max_concurrency": 3,  # listening beside being handed work
            "max_restarts": 0,
        }
        if cluster.unfit:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(cluster.unfit)})"}
        self._actor: Any = (
            ray.remote(relay.Relay)
            .options(**options)
            .remote(
                number,
                cluster.job.as_json(),
                (__version__, platform.python_version()),
                cluster.environment(),
            )
        )
        self._thread = threading.Thread(target=self._follow, daemon=True, name="actor's events")
        self._thread.start()

    def measure(self, unit: Unit, *, wait: bool) -> None:
        """Hands it a unit; it is ready again when it is through with it."""
        self._actor.measure.remote(unit.group, [cell.cell for cell in unit.cells], wait)

    def stop(self) -> None:
        """Tells it to end, which it does as soon as it has closed its engines."""
        self.stopped = True
        self._actor.stop.remote()

    def end(self) -> str:
        """Ends the actor, and with it all that it started; says how it ended."""
        import ray

        with contextlib.suppress(Exception):  # it may be gone, or the cluster with it
            ray.kill(self._actor, no_restart=True)
        self._thread.join()
        return self._how

    def _follow(self) -> None:
        """Passes on what the actor tells until it is gone."""
        import ray

        try:
            if not self._is_placed():
                return
            while True:
                for event in ray.get(self._actor.listen.remote()):
                    if event["event"] == "gone":
                        self._how = f"{event['how']} on {self._title}"
                        return
                    if event["event"] == "unfit":
                        event["reason"] = f"{self._title}: {event['reason']}"
                    self._hear(self, event)
        except ray.exceptions.RayError as error:
            self.lost = True
            where = f" on {self._title}" if self._title else ""
            self._how = f"with its node or actor{where}: {brief(error)}"
        finally:
            # Its cores and GPUs go back before anybody hears of its end and starts another.
            with contextlib.suppress(Exception):
                ray.kill(self._actor, no_restart=True)
            self._hear(self, None)

    def _is_placed(self) -> bool:
        """Waits until the actor runs; not for ever where no node is large enough."""
        import ray

        placed = self._actor.place.remote()
        lacking_since: float | None = None
        while not ray.wait([placed], timeout=LOOK_EVERY)[0]:
            cluster = self._cluster
            if fitting_nodes(cluster.needs, cluster.unfit):
                lacking_since = None
                continue
            if lacking_since is None:
                lacking_since = time.monotonic()
                if self.number == 0:
                    self._hear(self, {"event": "notice", "text": f"waiting: {self._lacking()}"})
            if time.monotonic() - lacking_since >= cluster.patience:
                lacking = {"event": "error", "kind": "ClusterError", "text": self._lacking()}
                self._hear(self, lacking)
                return False
        place, self._title = ray.get(placed)
        self._hear(self, {"event": "placed", "place": place, "title": self._title})
        return True

    def _lacking(self) -> str:
        wanted = " and ".join(f"{n:g} {name}" for name, n in self._cluster.needs.items())
        there = Counter(
            ", ".join(f"{node.get(name, 0):g} {name}" for name in self._cluster.needs)
            for node in fitting_nodes({})
        )
        said = ", ".join(f"{n} with {what}" for what, n in sorted(there.items()))
        return f"no node has {wanted}; there are {said or 'none'}"


def brief(error: Exception) -> str:
    """The end of what Ray says of an actor's end: its cause stands there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith(("The actor", "The node"))]
    return " ".join(causes[-2:] or lines[:1])[:300]
