"""What tests of engines share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefbench.engines import Engines
from tests.small_models import make


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """Opens engines; the one vLLM of this test process goes on running in it."""
    with Engines() as opened:
        yield opened


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the directory of a small model by its architecture. Leave it as it is."""
    folder = tmp_path_factory.mktemp("models")

    def made(architecture: str) -> Path:
        if not (folder / architecture).exists():
            make(folder / architecture, architecture)
        return folder / architecture

    return made
