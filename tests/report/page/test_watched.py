from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

from prefbench.report.collect import gather
from prefbench.report.page.page import write_page
from prefbench.watch.status import Row, write_status
from tests.browser import Visit
from tests.report.page.made import HOSTILE

WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 800}
CHECK = {"task": "gsm8k_5shot", "metric": "exact_match,strict-match.v1", "outcome": "regression"}
SINCE = "2026-01-02T03:04:05+00:00"
ROWS = (
    Row("dpo/checkpoint-100", "/r/1", "judged", since=SINCE, step=100, cells=("a", "b"),
        gate={"outcome": "regression", "baseline": "sft", "checks": [CHECK]}),
    Row("dpo/checkpoint-200", "/r/2", "ready", since=SINCE, cells=("c", "d"),
        reason="waits for 20 GiB free on cuda:0, 3.1 GiB now"),
    *(
        Row(text, f"/r/{text}", "failed", since=SINCE, tries=5, reason=f"{text} " * 3, cells=("e",))
        for text in HOSTILE
    ),
    Row("dpo/checkpoint-50", "/r/4", "pruned", since=SINCE, reason="deleted since"),
)  # fmt: skip


@pytest.fixture
def watched(made: Path, tmp_path: Path) -> Path:
    """Results that a watch has written to."""
    results = tmp_path / "results"
    shutil.copytree(made, results)
    write_status(results / "status.json", ROWS, SINCE)
    return results


def test_the_page_shows_each_state_and_why(watched: Path, tmp_path: Path, browser: Any) -> None:
    file = tmp_path / "page.html"
    write_page(file, gather(watched), watched)
    for scheme, viewport in itertools.product(("light", "dark"), (WIDE, NARROW)):
        with Visit(browser, file, color_scheme=scheme, viewport=viewport) as visit:
            lines = visit.page.locator("#watched tbody tr")
            states = [one.strip() for one in lines.locator(".state").all_text_contents()]
            assert states == ["judged", "ready", *["failed"] * len(HOSTILE), "pruned"]
            assert "2026-01-02 03:04 UTC" in lines.nth(0).inner_text()
            assert "gate beside sft: regression: gsm8k_5shot" in lines.nth(0).inner_text()
            assert "waits for 20 GiB free" in lines.nth(1).inner_text()
            assert "(tried 5 times)" in lines.nth(2).inner_text()
            assert "0 of 2" in lines.nth(1).inner_text()
            width = visit.page.evaluate("() => document.documentElement.scrollWidth")
            assert width <= viewport["width"]  # a wide table scrolls by itself
            assert visit.did_nothing_else()


def test_a_status_that_cannot_be_read_is_said(watched: Path, tmp_path: Path) -> None:
    (watched / "status.json").write_text("{")
    notes = write_page(tmp_path / "page.html", gather(watched), watched)
    assert any("the watch's status cannot be shown" in note for note in notes)
    assert 'id="watched"' not in (tmp_path / "page.html").read_text()
