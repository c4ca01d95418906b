"""The page in a real browser: nothing that a text says runs, and everything it offers works."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from prefbench.report.page.visible import visible
from tests.browser import Visit
from tests.report.page.made import HOSTILE, LONG, N

EQUAL = {10, 20, 40, 50}
"""Items on which both give the same answer, so that no judge was asked."""
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 800}


def open_samples(visit: Visit, task: int = 0) -> None:
    page = visit.page
    page.locator("#samples").scroll_into_view_if_needed()
    page.locator("#sample-task").select_option(index=task)
    page.locator("#sample-count", has_text="samples").wait_for()


def names(visit: Visit) -> list[str]:
    """The rows that are to be seen, in their order."""
    rows = visit.page.locator("#board tbody tr:not([hidden]) th bdi")
    return [str(text) for text in rows.all_text_contents()]


@pytest.mark.parametrize(
    ("scheme", "viewport"), list(itertools.product(("light", "dark"), (WIDE, NARROW)))
)
def test_hostile_texts_do_nothing(
    page: Path, browser: Any, scheme: str, viewport: dict[str, int]
) -> None:
    with Visit(browser, page, color_scheme=scheme, viewport=viewport) as visit:
        shown = visit.page
        for details in shown.locator("details:not([open]) > summary").all():
            if details.is_visible():
                details.click()
        for task in range(3):
            open_samples(visit, task)
            for row in range(0, 34, 3):
                shown.locator("#sample-list button").nth(row).click()
                shown.locator("#sample h3", has_text=f"Item {row}").wait_for()
        for cell in shown.locator("#board td").all():
            cell.focus()
        assert visit.did_nothing_else()
        width = shown.evaluate("() => document.documentElement.scrollWidth")
        assert width <= viewport["width"]  # only tables scroll sideways, not the page


def test_the_policy_stops_what_would_run(page: Path, browser: Any) -> None:
    """What the other tests do not see would not run either: the page itself forbids it."""
    with Visit(browser, page) as visit:
        shown = visit.page
        shown.evaluate(
            """() => {
                const script = document.createElement("script");
                try { script.textContent = "window.ran = 1"; } catch (error) { window.said = 1; }
                document.body.append(script);
                const image = document.createElement("img");
                image.src = "http://127.0.0.1:9/x";
                document.body.append(image);
            }"""
        )
        refused = shown.evaluate(
            """() => {
                try { document.body.innerHTML = "<img onerror=1>"; return ""; }
                catch (error) { return String(error); }
            }"""
        )
        assert "TrustedHTML" in refused
        assert shown.evaluate("() => window.ran") is None
        assert visit.refused == {"http://127.0.0.1:9/x": "csp"}
        assert any("Content Security Policy" in text for text in visit.said)


def test_signs_that_would_act_are_written_out(page: Path, browser: Any) -> None:
    with Visit(browser, page) as visit:
        open_samples(visit, task=2)
        shown = visit.page
        text = shown.evaluate("() => document.documentElement.textContent")
        assert not set("\x1b\x9b\x07\x00\u202e\u2066\u200b\ufeff\U000e0041") & set(text)
        for item, wanted in ((21, "⟨ESC⟩[31mred⟨ESC⟩]0;title⟨BEL⟩"), (24, "⟨U+202E⟩evil⟨U+2066⟩")):
            shown.locator("#sample-list button").nth(item).click()
            shown.locator("#sample h3", has_text=f"Item {item}").wait_for()
            assert wanted in shown.locator("#sample .card").first.inner_text()
        marked = shown.locator("#sample .card").first.locator(".sign").first
        assert marked.inner_text() == "⟨U+202E⟩"


def test_scripts_and_python_write_the_same(page: Path, browser: Any) -> None:
    texts = [*HOSTILE, "é 日本 α\u200d\ud800x\udfff", "\U0010fffd\u2029", *map(chr, range(0x250))]
    coded = json.dumps(texts)  # as the page has its samples: halves of pairs survive
    with Visit(browser, page) as visit:
        found = visit.page.evaluate(
            """(coded) => JSON.parse(coded).map((text) => visible(text)
                .replaceAll("\\n", "⟨LF⟩").replaceAll("\\t", "⟨TAB⟩"))""",
            coded,
        )
    assert found == [visible(text) for text in texts]


def test_the_board_is_sorted_by_any_column(page: Path, browser: Any) -> None:
    with Visit(browser, page) as visit:
        shown = visit.page
        at_first = names(visit)
        head = shown.locator("th[data-column]", has_text="acc ↑")
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"  # the better end first
        assert names(visit)[:3] == ["DPO (dpo)", "DPO (dpo-early)", "SFT (baseline)"]
        assert names(visit)[-1] == "IPO"  # has no value, so it is last either way
        head.locator("button").focus()
        shown.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert names(visit)[1:3] == ["SFT (baseline)", "DPO (dpo-early)"]
        assert names(visit)[-1] == "IPO"
        shown.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") is None
        assert names(visit) == at_first
        down = shown.locator("th[data-column]", has_text="perplexity ↓")
        down.locator("button").click()
        assert down.get_attribute("aria-sort") == "ascending"
        assert visit.did_nothing_else()


def test_the_board_is_filtered(page: Path, browser: Any) -> None:
    with Visit(browser, page) as visit:
        shown = visit.page
        everything = names(visit)
        shown.locator("#filter-method").select_option("dpo")
        assert names(visit) == ["DPO (dpo-early)", "DPO (dpo)"]
        assert shown.locator("#filter-count").inner_text() == "2 of 5 checkpoints"
        shown.locator("#filter-method").select_option(index=0)
        shown.locator("#filter-text").fill("PICKLED")
        assert names(visit) == ["IPO"]
        shown.locator("#filter-text").fill("")
        assert names(visit) == everything
        n_columns = shown.locator("#board tbody tr:first-child td:visible").count()
        shown.locator("#filter-tasks").select_option(label="quiz")
        assert shown.locator("#board tbody tr:first-child td:visible").count() == 1 < n_columns
        heads = shown.locator("#board thead th:visible").all_text_contents()
        assert not any("agility" in head for head in heads)


def test_a_value_is_explained_and_reached_by_keys(page: Path, browser: Any) -> None:
    with Visit(browser, page) as visit:
        shown = visit.page
        detail = shown.locator("#detail")
        assert not detail.is_visible()
        shown.locator("#board tbody td").first.focus()
        assert "quiz" in detail.inner_text()
        assert f"n = {N} items" in detail.inner_text()
        shown.keyboard.press("ArrowDown")
        text = detail.inner_text()
        assert "difference to sft" in text
        assert "corrected (Holm" in text
        shown.keyboard.press("End")
        assert "talk" in detail.inner_text()
        tab_stops = shown.locator("#board tbody td[tabindex='0']").count()
        assert tab_stops == 1  # the table is one stop of the Tab key, not one for each value


def test_samples_are_found_and_opened(page: Path, browser: Any) -> None:
    with Visit(browser, page) as visit:
        open_samples(visit, task=2)
        shown = visit.page
        count, buttons = shown.locator("#sample-count"), shown.locator("#sample-list button")
        assert count.inner_text() == f"{N} samples"
        assert buttons.count() == 50
        shown.locator("#page-on").click()
        assert buttons.count() == N - 50
        shown.locator("#sample-missing").check()
        shown.locator("#sample-list button", has_text="question 7").wait_for()
        missing = [int(text) for text in shown.locator("#sample-list .n").all_text_contents()]
        assert missing == sorted({7, *range(0, N, 5)} - EQUAL)
        shown.locator("#sample-missing").uncheck()
        shown.locator("#sample-text").fill("Dpo Says 11")
        shown.locator("#sample-count", has_text="1 samples with “Dpo Says 11”").wait_for()
        buttons.first.click()
        shown.locator("#sample h3", has_text="Item 11").wait_for()
        text = shown.locator("#sample").inner_text()
        assert "dpo says 11" in text
        assert "sft says 11" in text
        assert "good 11" in text  # what the data have
        assert "shown first: preferred\nread as A" in text
        assert "shown second: not preferred\nread as A" in text
        assert "Verdict: A" in text  # the judge's own words
        shown.locator("#sample-text").fill("no label <script>")
        shown.locator("#sample-count", has_text="samples with “no label <script>”").wait_for()
        buttons.first.click()
        shown.locator("#sample .verdict", has_text="no verdict (no label <script>").first.wait_for()
        assert visit.did_nothing_else()


def test_log_probs_of_pairs_stand_side_by_side(page: Path, browser: Any) -> None:
    with Visit(browser, page) as visit:
        open_samples(visit, task=1)
        shown = visit.page
        shown.locator("#sample-list button").nth(2).click()
        table = shown.locator("#sample table")
        table.wait_for()
        heads = table.locator("thead th").all_text_contents()
        assert heads[:3] == ["checkpoint", "A chosen", "B rejected"]
        rows = table.locator("tbody tr")
        assert rows.count() == 3
        assert rows.first.locator("td").first.inner_text().startswith("−3.03333")
        assert "how all prompts of this task begin" in shown.locator("#sample").inner_text()


def test_disagreement_is_a_filter(page: Path, browser: Any) -> None:
    with Visit(browser, page) as visit:
        open_samples(visit, task=0)
        shown = visit.page
        shown.locator("#sample-differ").check()
        shown.locator("#sample-count", has_text=f"{N} samples").wait_for()  # one is always wrong
        open_samples(visit, task=1)
        shown.locator("#sample-count", has_text="0 samples").wait_for()


def test_a_long_answer_is_shortened(page: Path, browser: Any) -> None:
    with Visit(browser, page) as visit:
        open_samples(visit, task=2)
        shown = visit.page
        shown.locator("#sample-list button").nth(4).click()
        more = shown.locator("#sample .more")
        more.wait_for()
        assert "1,050,000 characters" in more.inner_text()
        before = len(shown.locator("#sample").inner_text())
        more.click()
        more.wait_for(state="detached")
        after = shown.evaluate("() => document.getElementById('sample').textContent.length")
        assert before < 10_000 < len(LONG.strip()) < after


def test_without_scripts_there_is_still_the_table(page: Path, browser: Any) -> None:
    with Visit(browser, page, java_script_enabled=False) as visit:
        shown = visit.page
        assert len(names(visit)) == 5
        assert shown.locator("#board td .bar").first.is_visible()
        assert shown.locator("#figures svg").first.is_visible()
        assert not shown.locator("#filters").is_visible()
        assert "needs JavaScript" in shown.locator("#samples").inner_text()


CONTRAST = """() => {
    const style = getComputedStyle(document.documentElement);
    const light = (name) => {
        const hex = style.getPropertyValue(name).trim().slice(1);
        const parts = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
            .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const found = {};
    for (const text of ["--ink", "--muted", "--accent", "--better", "--worse", "--other", "--warn"])
        for (const ground of ["--paper", "--raised", "--band"]) {
            const [a, b] = [light(text), light(ground)];
            found[text + " on " + ground] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }
    return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_and_controls_have_names(page: Path, browser: Any, scheme: str) -> None:
    with Visit(browser, page, color_scheme=scheme) as visit:
        ratios = visit.page.evaluate(CONTRAST)
        assert {what: ratio for what, ratio in ratios.items() if ratio < 4.5} == {}
        nameless = visit.page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, [role=region]")]
                .filter((e) => !(e.textContent.trim() || e.labels?.length || e.ariaLabel
                                 || e.getAttribute("aria-labelledby")))
                .map((e) => e.outerHTML)"""
        )
        assert nameless == []
