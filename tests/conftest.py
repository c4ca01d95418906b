"""What tests of several files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A mirror of the real data sets: PREFBENCH_MIRROR, or shared/data beside the repository."""
    named = os.environ.get("PREFBENCH_MIRROR")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not named and not folder.is_dir():
        pytest.skip("no real data: set PREFBENCH_MIRROR to a mirror of the data sets")
    return folder
