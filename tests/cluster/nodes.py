"""A real Ray cluster on this machine: nodes that come and go, each with processes of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from prefbench.parallel.local import PROGRAM
from prefbench.processes import end_group

MARK = "PREFBENCH_TEST_CLUSTER"
"""A variable that all processes of a test's cluster have."""
STORE_BYTES = 80_000_000
QUICKLY = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 3000,  # busy nodes answer late
    "health_check_failure_threshold": 6,
}
"""How soon a node that is gone counts as such."""


@contextmanager
def ray_cluster(*cores: int) -> Iterator[Any]:
    """A cluster whose nodes have so many cores each; the first is its head."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ[MARK] = uuid.uuid4().hex
    from ray.cluster_utils import Cluster

    head = {
        "num_cpus": cores[0],
        "object_store_memory": STORE_BYTES,
        "include_dashboard": False,
        "_system_config": QUICKLY,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for n in cores[1:]:
            cluster.add_node(num_cpus=n, object_store_memory=STORE_BYTES)
        yield cluster
    finally:
        cluster.shutdown()


def raylet(node: Any) -> psutil.Process:
    """The process of a node that all its workers are children of."""
    (info,) = node.all_processes["raylet"]
    return psutil.Process(info.process.pid)


def kill(cluster: Any, node: Any) -> None:
    """Ends a node as a power cut would: all its processes at once, those of its workers too."""
    gone = [raylet(node), *raylet(node).children(recursive=True)]
    for one in gone:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(gone, timeout=60)
    cluster.remove_node(node, allow_graceful=False)


@contextmanager
def blind_node(cluster: Any, folder: Path) -> Iterator[None]:
    """A node of one core that sees an empty folder where all others see `folder`."""
    join = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"),
        *(f"--address={cluster.address}", f"--object-store-memory={STORE_BYTES}"),
        *("--disable-usage-stats", '--resources={"blind": 1}'),
    ]
    hide = f"mount -t tmpfs none {shlex.quote(str(folder))} && exec {shlex.join(join)}"
    node = subprocess.Popen(
        ["unshare", "-rm", "sh", "-c", hide],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        started = psutil.Process(node.pid).children(recursive=True)
        end_group(node)
        for one in started:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(started, timeout=60)


def workers() -> list[psutil.Process]:
    """The processes that measure, on all nodes of this machine that are ours."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if PROGRAM in one.cmdline() and os.environ[MARK] == one.environ().get(MARK):
                found.append(one)
    return found
