"""One results directory, one page and one browser for all tests of the page."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefbench.report.collect import gather
from prefbench.report.page.page import write_page
from tests.browser import chromium
from tests.report.page.made import results

WHEN = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results directory with hostile texts."""
    return results(tmp_path_factory.mktemp("made") / "results")


@pytest.fixture(scope="session")
def page(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of these results."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    write_page(file, gather(made), made, when=WHEN)
    return file


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium, or a skip with the package to install.

    Closed before tests of other folders run: its driver has an event loop running all the time.
    """
    with chromium() as opened:
        yield opened
