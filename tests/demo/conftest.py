from __future__ import annotations

from pathlib import Path

import pytest

from prefbench.demo.training import train_zoo

SCALE = 0.01


@pytest.fixture(scope="session")
def small_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo whose checkpoints are real and have learnt next to nothing. Leave it as it is."""
    folder = tmp_path_factory.mktemp("zoo") / "demo"
    train_zoo(folder, scale=SCALE)
    return folder
