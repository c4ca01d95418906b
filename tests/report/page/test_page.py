from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prefbench.errors import InputError
from prefbench.judges.verdicts import Verdicts
from prefbench.judging import VERDICTS
from prefbench.report.collect import gather
from prefbench.report.page.chunks import MOST, SIZE, chunked, packed
from prefbench.report.page.embedded import embed
from prefbench.report.page.page import write_page
from prefbench.report.page.targets import roles_of, target_of
from prefbench.report.page.visible import visible
from prefbench.report.publish import report
from prefbench.store import Store
from tests.report.page.made import HOSTILE, Made, N, quiz, results

WHEN = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)


class Parts(HTMLParser):
    """What a parser finds in a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self.text = ""
        self._open = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.tags.append((tag, facts))
        self._open = str(facts.get("id") or tag) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[self._open] = self.inside.get(self._open, "") + data
        else:
            self.text += data

    def unpacked(self, name: str) -> Any:
        return json.loads(gzip.decompress(base64.b64decode(self.inside[name])))

    def rows(self, task: int) -> list[Any]:
        """All samples of a task."""
        n = len(self.unpacked(f"index-{task}")["chunks"])
        return [row for i in range(n) for row in self.unpacked(f"chunk-{task}-{i}")]


@pytest.fixture(scope="module")
def parts(page: Path) -> Parts:
    return Parts(page)


def test_the_page_has_our_elements_only(parts: Parts) -> None:
    tags = {tag for tag, _ in parts.tags}
    assert not tags & {"img", "iframe", "object", "embed", "base", "form", "a:href", "template"}
    assert [facts.get("href") for tag, facts in parts.tags if tag == "link"] == []
    hrefs = {str(facts["href"]) for tag, facts in parts.tags if tag == "a"}
    assert all(href.startswith("#") for href in hrefs)
    for tag, facts in parts.tags:
        assert not [name for name in facts if name.startswith("on") or name in ("style", "src")]
        if tag == "script":
            assert facts.get("type") == "application/octet-stream" or not facts
    running = [facts for tag, facts in parts.tags if tag == "script" and not facts]
    assert len(running) == 1


def test_the_policy_names_the_one_script_and_the_one_style(parts: Parts) -> None:
    (policy,) = (
        str(facts["content"])
        for tag, facts in parts.tags
        if tag == "meta" and facts.get("http-equiv") == "Content-Security-Policy"
    )
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(parts.inside[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_no_sign_that_acts_is_in_the_file(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(
        r"[^\n\t\x20-\x7e\xa0-\u200a\u2010-\u2027\u2030-\u205f\u2070-\uffff]", text
    )


def test_packed_samples_are_what_was_answered(parts: Parts) -> None:
    index = parts.unpacked("index-2")
    rows = parts.rows(2)
    assert len(rows) == sum(index["chunks"]) == len(index["items"]) == N
    assert index["checkpoints"] == ["SFT (baseline)", "DPO (dpo)"]
    assert rows[11]["answers"][1]["texts"] == ["dpo says 11"]
    assert rows[7]["answers"][1]["reason"].startswith("too long")
    assert index["flags"][7] & 2
    said = rows[11]["judged"][1]["verdicts"]
    assert [(one["first"], one["preference"]) for one in said] == [(True, 1.0), (False, 0.0)]
    assert said[0]["reply"].endswith("Verdict: A")
    assert rows[11]["judged"][1]["win"] == 0.5
    assert rows[2]["judged"][1]["verdicts"] == [{"sample": 0, "identical": True}]
    assert "no label" in rows[5]["judged"][1]["verdicts"][0]["reason"]


def test_prompts_that_begin_alike_are_told_once(parts: Parts) -> None:
    index = parts.unpacked("index-1")
    assert index["shared"] == "p" * 300 + "\n"
    assert parts.rows(1)[3]["prompt"] == "ask 3"


def test_warnings_come_first_and_name_what_is_missing(parts: Parts) -> None:
    text = " ".join(parts.text.split())
    first = text[text.index("What to know first") : text.index("Checkpoint quiz")]
    assert "refused broken: pickled <script>" in first
    assert "pairs, first 60 items: evil" in first
    assert "out of memory" in first
    assert "limited not the whole standard task (first 60 items): pairs" in first


def test_tables_and_figures_stand_there_without_scripts(parts: Parts) -> None:
    titles = [facts["title"] for tag, facts in parts.tags if tag == "td" and "title" in facts]
    dpo = [str(title) for title in titles if str(title).startswith("DPO (dpo) · quiz · acc")]
    assert "difference to sft: +50.0" in dpo[0]
    assert "n = 60 items" in dpo[0]
    assert "corrected (Holm" in dpo[0]
    assert sum(facts.get("class") == "drawing" for tag, facts in parts.tags) > 5
    text = " ".join(parts.text.split())
    for kind in (
        "Perplexity and agility",
        "Win rates",
        "Accuracy",
        "Training steps",
        "Differences",
    ):
        assert kind in text


def test_the_origin_of_every_number_is_told(parts: Parts) -> None:
    text = " ".join(parts.text.split())
    told = text[text.index("How it was measured quiz") :]
    for fact in ("data of quiz", "abc", "bytes of dpo", "float32", "judge's modelm", "seconds1.5"):
        assert fact in told


def test_samples_are_limited_and_the_page_says_so(made: Path, tmp_path: Path) -> None:
    notes = write_page(tmp_path / "p.html", gather(made), made, samples=5, when=WHEN)
    assert notes[0] == "quiz: the sample browser has the first 5 of 60 items"
    few = Parts(tmp_path / "p.html")
    assert few.unpacked("index-0")["items"] == [0, 1, 2, 3, 4]
    assert "the first 5 of 60 items" in few.text
    assert write_page(tmp_path / "q.html", gather(made), made, samples=0, when=WHEN) == []
    assert "made without samples" in Parts(tmp_path / "q.html").text


def test_without_a_limit_all_tasks_share_what_a_page_can_hold(made: Path) -> None:
    gathered, store = gather(made), Store(made)
    sets, _ = embed(store, gathered, labels={}, limit=None, budget=12_000)
    assert [one.n_items for one in sets] == [N, N, N]
    assert all(0 < one.n_shown <= N for one in sets)
    assert min(one.n_shown for one in sets) < N
    every, _ = embed(store, gathered, labels={}, limit=N, budget=12_000)
    assert [one.n_shown for one in every] == [N, N, N]  # who asks for them gets them


def test_equal_results_give_equal_bytes(made: Path, page: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    write_page(again, gather(made), made, when=WHEN)
    assert again.read_bytes() == page.read_bytes()


def test_verdicts_that_do_not_give_the_numbers_are_not_shown(tmp_path: Path) -> None:
    folder = results(tmp_path / "results")
    with Verdicts(folder / VERDICTS) as kept:
        kept._connection.execute("UPDATE verdicts SET preference = 1 - preference")
        kept._connection.commit()
    notes = write_page(tmp_path / "p.html", gather(folder), folder, when=WHEN)
    assert notes == ["talk: no verdicts of careful that give these numbers are kept here"]
    row = Parts(tmp_path / "p.html").rows(2)[11]
    assert row["judged"][1] == {"comparison": 1, "win": 0.5, "reason": None, "verdicts": []}


def test_results_that_cannot_be_written_are_read(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(made, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_page(tmp_path / "p.html", gather(folder), folder, when=WHEN)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_many_steps_and_one_task_are_no_hindrance(tmp_path: Path) -> None:
    made = Made(tmp_path / "results")
    for i in range(40):
        who = made.checkpoint(f"run{i}", "dpo", step=i)
        quiz(made, who, [1] * i + [0] * (40 - i), n=40)
    folder = made.write()
    write_page(tmp_path / "p.html", gather(folder), folder, when=WHEN)
    assert Parts(tmp_path / "p.html").text.count("DPO (run") >= 40


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "⟨ESC⟩[2J"),
        ("a\x00\x7f\n", "a⟨NUL⟩⟨DEL⟩⟨LF⟩"),
        ("\u202eabc\u2066", "⟨U+202E⟩abc⟨U+2066⟩"),
        ("\ud800\U000e0041\ue000", "⟨U+D800⟩⟨U+E0041⟩⟨U+E000⟩"),
        ("é 日本 👩\u200d🔬 می\u200cروم", "é 日本 👩\u200d🔬 می\u200cروم"),
        ("<b>&amp;", "<b>&amp;"),
    ],
)
def test_what_would_act_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_chunks_hold_every_row_and_stay_small() -> None:
    rows = [{"text": "x" * (3 * SIZE)}, *({"text": HOSTILE[i % len(HOSTILE)]} for i in range(999))]
    chunks = list(chunked(rows))
    found = [r for c in chunks for r in json.loads(gzip.decompress(base64.b64decode(c.text)))]
    assert found == rows
    assert chunks[0].n_rows == 1
    assert max(chunk.n_rows for chunk in chunks) == MOST
    assert packed({"half": "\ud800"}).isascii()


@pytest.mark.parametrize(
    ("config", "fields", "roles", "target"),
    [
        ({}, {"chosen": ["a"], "rejected": ["b", "c"]}, ["chosen", "rejected", "rejected"], None),
        ({"doc_to_target": "gold"}, {"gold": 1}, ["", "right", ""], "1"),
        ({"doc_to_target": "{{ok.index('b')}}"}, {"ok": ["a", "b"]}, ["", "right", ""], "1"),
        ({"doc_to_target": 0}, {}, ["right", "", ""], "0"),
        ({"doc_to_target": "{{ nothing.there }}"}, {}, ["", "", ""], None),
        ({"doc_to_target": "{{ ''.__class__.__mro__ }}"}, {}, ["", "", ""], None),
        ({"doc_to_target": "{{ x | regex_replace('a', 'b') }}"}, {"x": "a"}, ["", "", ""], None),
        ({}, {}, ["", "", ""], None),
    ],
)
def test_what_the_data_know_of_an_item(
    config: dict[str, Any], fields: dict[str, Any], roles: list[str], target: str | None
) -> None:
    assert roles_of(config, fields, 3) == roles
    assert target_of(config, fields, []) == target
    assert target_of(config, fields, ["a text"]) is None


def test_the_verb_writes_the_page_and_says_what_it_lacks(made: Path, tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(report)
    file = tmp_path / "deep" / "p.html"
    done = CliRunner().invoke(app, [str(made), "--html", str(file), "--samples", "3"])
    assert done.exit_code == 0, done.output
    assert f"{file}: " in done.output
    assert "note: quiz: the sample browser has the first 3 of 60 items" in done.output
    for wrong in ([], ["--html", "x", "--format", "pdf"]):
        refused = CliRunner().invoke(app, [str(made), *wrong])
        assert isinstance(refused.exception, InputError)
