"""One process that has imported everything, for all tests of this folder on a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reliability.commands import Commands


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    with Commands() as made:
        yield made
