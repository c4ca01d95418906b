"""What tests of several files share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before torch comes: workers and engines beside each other wait for each other's threads, and the
# models here are too small to gain from several.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filelock import FileLock

from prefbench.demo.training import train_zoo

# A background job of a shell has Ctrl-C ignored, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A mirror of the real data sets: PREFBENCH_MIRROR, or shared/data beside the repository."""
    named = os.environ.get("PREFBENCH_MIRROR")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not named and not folder.is_dir():
        pytest.skip("no real data: set PREFBENCH_MIRROR to a mirror of the data sets")
    return folder


@pytest.fixture(scope="session")
def small_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo whose checkpoints are real and have learnt next to nothing. Leave it as it is."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):  # one zoo for all workers
        shared = shared.parent
    with FileLock(shared / "zoo.lock"):
        train_zoo(shared / "zoo", scale=0.01)
    return shared / "zoo"
