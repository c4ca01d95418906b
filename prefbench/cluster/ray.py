"""Cells on a Ray cluster: each worker is an actor with processors and GPUs of one node."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefbench.cells import PlannedCell, Settings
from prefbench.cluster.actors import Cluster, fitting_nodes
from prefbench.errors import ClusterError, InputError
from prefbench.listener import Listener
from prefbench.parallel.executors import Measure
from prefbench.parallel.job import Job
from prefbench.parallel.together import measure_together
from prefbench.store import Store

USUAL_CORES = 4
"""Of an engine on processors, where nodes have that many."""
ANSWERS_WITHIN = 10.0
"""Seconds in which an address that is one takes a connection."""


@dataclass(frozen=True)
class OnRay:
    """Carries out a run's cells on a Ray cluster.

    Attributes:
        address: `auto`, `host:port` or `ray://host:port`; None is RAY_ADDRESS, else a cluster that
            runs on this machine, else one that is started here for the length of the run.
        max_workers: actors that are asked for at once; None is what the cluster has room for, and
            one more whenever the last one has found its place.
        cpus_each: processor cores of each actor; None: 1 beside GPUs, else 4 or a node's.
        patience: seconds to wait for a node that can do the work at all.
    """

    address: str | None = None
    max_workers: int | None = None
    cpus_each: int | None = None
    patience: float = 600.0

    def __post_init__(self) -> None:
        for name in ("max_workers", "cpus_each"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")
        if not self.patience >= 0:
            raise InputError(f"the patience cannot be {self.patience:g} seconds")

    @contextlib.contextmanager
    def opened(self, settings: Settings, listener: Listener) -> Iterator[Measure]:
        """Connects to the cluster.

        Raises:
            InputError: Ray is not installed, or the settings make no sense on a cluster.
            ClusterError: there is no cluster at the address.
        """
        if settings.data_parallel_size > 1:
            raise InputError("on Ray, --max-workers says how many engines measure at once")
        if settings.device.startswith("cuda:"):
            raise InputError(f"--device {settings.device}: Ray says which GPUs an engine gets")
        with _connected(self.address, listener):
            needs = needed(settings, self.cpus_each, fitting_nodes({}))

            def measure(
                cells: Sequence[PlannedCell], job: Job, store: Store, listener: Listener
            ) -> dict[str, str]:
                place = Cluster(job, needs, self.max_workers, self.patience)
                return measure_together(cells, place, store=store, listener=listener)

            yield measure


def needed(
    settings: Settings, cpus_each: int | None, nodes: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """What each engine needs of a node, by Ray's names.

    Args:
        settings: of the run.
        cpus_each: cores, if the user has said it.
        nodes: what each node has in all.
    """
    n_gpus = settings.tensor_parallel_size
    found = any(node.get("GPU", 0) >= n_gpus for node in nodes)
    on_gpus = settings.device == "cuda" or (settings.device == "auto" and (found or n_gpus > 1))
    if on_gpus and settings.engine != "server":
        return {"GPU": n_gpus, "CPU": cpus_each or 1}
    least = min((int(n["CPU"]) for n in nodes if n.get("CPU", 0) >= 1), default=USUAL_CORES)
    return {"CPU": cpus_each or min(USUAL_CORES, least)}


@contextlib.contextmanager
def _connected(address: str | None, listener: Listener) -> Iterator[None]:
    """Ray, connected; as it was where the caller is connected already."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # What raylets say of themselves would go to stdout, where the table goes.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"Ray cannot be imported: {error}; pip install 'prefbench[ray]', the same version as "
            "the cluster's"
        ) from error
    if ray.is_initialized():
        yield
        return
    try:
        started = _connect(address)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise ClusterError(
            f"no Ray cluster at {address or os.environ.get('RAY_ADDRESS') or 'this machine'}: "
            f"{error}; `ray status` shows where one runs, --ray-address says which to use"
        ) from error
    try:
        n = len(fitting_nodes({}))
        if started:
            listener.on_notice("no Ray cluster is named or runs here: one is started for this run")
        else:
            listener.on_notice(f"Ray: {n} node{'s' * (n != 1)}")
        yield
    finally:
        ray.shutdown()


def _connect(address: str | None) -> bool:
    """Connects to a cluster; whether it had to be started."""
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    named = address or os.environ.get("RAY_ADDRESS")
    known = _last_one() if named in (None, "auto") else named
    try:
        if found := re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d+)", known or ""):
            # Ray itself would try for minutes.
            socket.create_connection((found[1], int(found[2])), timeout=ANSWERS_WITHIN).close()
        ray.init(address=named or "auto", **quiet)
    except OSError:
        if named:
            raise
        ray.init(address="local", include_dashboard=False, **quiet)
        return True
    return False


def _last_one() -> str | None:
    """The address that `ray start` has left on this machine; its cluster may be gone."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    with contextlib.suppress(OSError, ValueError):
        return (folder / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    return None
