"""A real browser for tests: Chromium as the distribution has it, and all that a page does there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """Chromium without a window; the test is skipped where there is none."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    sync = pytest.importorskip(
        "playwright.sync_api", reason="no playwright here: pip install playwright"
    )
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page that is open, and everything it did that a page of ours must not do."""

    def __init__(self, browser: Any, file: Path, **settings: Any) -> None:
        """Opens a file; `settings` are those of playwright's contexts: viewport, color_scheme, …"""
        self.context = browser.new_context(**{"reduced_motion": "reduce", **settings})
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.requests: list[str] = []
        self.refused: dict[str, str] = {}
        self.said: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.context.on(
            "requestfailed", lambda request: self.refused.update({request.url: request.failure})
        )
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("popup", lambda popup: self.said.append(f"opened {popup.url}"))
        self.page.on("download", lambda download: self.said.append(f"saved {download.url}"))
        self.page.on("dialog", self._dialog)
        self.url = file.resolve().as_uri()
        self.page.goto(self.url)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *raised: Any) -> None:
        self.context.close()

    def _dialog(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def did_nothing_else(self) -> bool:
        """Nothing was loaded but the file, nothing was said, no dialog, nothing ran."""
        ran = self.page.evaluate("() => Object.keys(window).filter((name) => /^ran/.test(name))")
        assert self.requests == [self.url]
        assert self.said == []
        assert ran == []
        return True
