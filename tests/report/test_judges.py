"""The verb `judges`: the list, the card in every format, and what its numbers are said to mean."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from prefbench.errors import PrefbenchError
from prefbench.examination.card import Card, Examination
from prefbench.examination.doubts import Warned
from prefbench.examination.evidence import Finding
from prefbench.judges.opening import PlannedJudge
from prefbench.judges.recipe import JudgeRecipe, judges_folder
from prefbench.report.card import SECTIONS, card_as_json, card_as_markdown, card_as_text
from prefbench.report.judges import judges
from prefbench.stats.estimates import Estimate
from tests.misbehaving import Misbehaving, wired

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(judges, name="judges")
HOSTILE = "evil\x1b[31m|`<script>alert(1)</script>\u202e"
LABELS = [
    {"prompt": f"Number {i}?", "first": "yes, it is", "second": "no", "preference": 1}
    for i in range(6)
]


def invoke(*arguments: object) -> Result:
    done = CliRunner().invoke(app, ["judges", *map(str, arguments)])
    if isinstance(done.exception, PrefbenchError):
        raise done.exception
    return done


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in LABELS))
    return path


def made(*findings: Finding, warnings: tuple[Warned, ...] = (), name: str = "one") -> Card:
    recipe = JudgeRecipe(judge=name, kind="reward", model=f"some/{name}")
    return Card(
        judge=PlannedJudge(recipe, Path("one.yaml")),
        examination=Examination(),
        sources={f"{name} against sft on t": 40},
        n_prompts=40,
        n_labelled=0,
        n_all=99,
        left_out={"too long": 3},
        trial=("t", "sft", 40),
        findings=findings,
        warnings=warnings,
        unheard={},
    )


def test_the_list_says_who_can_be_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    (tmp_path / "models" / "prefbench" / "demo-reward").mkdir(parents=True)
    done = invoke("--mirror", tmp_path)
    assert done.exit_code == 0
    assert "sk-very-secret" not in done.output
    # A path is not broken, so that it can be copied.
    assert all(len(line) <= 100 for line in done.output.splitlines() if " " in line.strip())
    lines = " ".join(done.output.split())
    assert "helpful_dialogue ready openai gpt-" in lines
    assert "the key is in OPENAI_API_KEY; judges/helpful_dialogue.yaml" in lines
    assert "demo_reward ready reward prefbench/demo-reward" in lines
    assert "local_dialogue lacking vllm" in lines
    monkeypatch.delenv("OPENAI_API_KEY")
    rows = {row["judge"]: row for row in json.loads(invoke("--json").output)}
    assert not rows["helpful_dialogue"]["there"]
    assert not rows["demo_reward"]["there"]
    assert rows["panel_dialogue"]["said"].endswith(
        "cannot be asked here: helpful_dialogue, structured"
    )
    assert all(Path(row["file"]).is_file() for row in rows.values())


def test_a_key_in_place_of_its_variables_name_is_not_shown(tmp_path: Path) -> None:
    text = (judges_folder() / "helpful_dialogue.yaml").read_text(encoding="utf-8")
    text = text.replace("judge: helpful_dialogue", "judge: mine", 1)
    (tmp_path / "mine.yaml").write_text(text.replace("OPENAI_API_KEY", "sk-very-secret"))
    for arguments in ((), ("--json",)):
        output = invoke("--judge-folder", tmp_path, *arguments).output
        assert "mine" in output
        assert "secret" not in output


def test_a_card_from_a_server_and_for_nothing_the_second_time(tmp_path: Path, labels: Path) -> None:
    server = Misbehaving(lambda asked: "So.\nMore helpful: A")
    with wired(server.answer) as (url, _):
        asked = ["check", "helpful_dialogue", "--judge-base-url", url, "--labels", labels]
        asked += ["-r", tmp_path / "results"]
        foreseen = invoke(*asked, "--dry-run").output
        assert not server.bodies
        assert not (tmp_path / "results").exists()
        once, again = invoke(*asked), invoke(*asked)
    assert len(server.bodies) == 12
    assert "12 calls, about" in foreseen
    assert once.exit_code == again.exit_code == 0
    assert "This command made 12 calls for $" in once.output
    assert "All verdicts were kept already" in again.output
    before_notes = [done.stdout.rpartition("\n\n")[0] for done in (once, again)]
    assert before_notes[0].split("Report card")[1] == before_notes[1].split("Report card")[1]
    assert "first place" in once.output
    assert "100.0% [" in once.output


def test_missing_verdicts_are_told_by_the_exit_code(tmp_path: Path, labels: Path) -> None:
    server = Misbehaving(lambda asked: "More helpful: A")
    with wired(server.answer) as (url, _):
        asked = ["check", "helpful_dialogue", "--judge-base-url", url, "--labels", labels]
        done = invoke(*asked, "-r", tmp_path / "results", "--max-calls", 5)
    assert done.exit_code == 1
    assert len(server.bodies) == 5
    assert "7 × not asked: the limit of 5 calls is reached. The same command asks" in " ".join(
        done.output.split()
    )


def test_a_card_to_the_letter() -> None:
    card = made(
        Finding("unheard", Estimate(0, 0, 0.09, 80)),
        Finding("unreadable", Estimate(0.025, 0, 0.05, 80), kinds={"the judge refused": 2}),
        Finding("split", reason="it rates each answer alone"),
        Finding("first", reason="it rates each answer alone"),
        Finding("longer", Estimate(0.75, 0.6, 0.9, 36, 2)),
        Finding("above", Estimate(0.1, 0.02, 0.2, 40), of="half above dpo"),
        warnings=(Warned("this is loud", loud=True), Warned("this is not")),
    )
    text, _, notes = card_as_text(card).rpartition("\n\n")
    assert (
        text
        == """\
Report card of one: reward, some/one
40 pairs of answers to 40 prompts, out of 99: 40 one against sft on t. Left out: 3 × too long.

WARNINGS (2)
!!  this is loud
 !  this is not

Replies
  no reply          0.0% [0.0, 9.0]     n 80          asks to which nothing came back
  unreadable        2.5% [0.0, 5.0]     n 80          replies without a verdict in the agreed form:
                                                      2 × the judge refused

Order of the two answers
  split, first place: it rates each answer alone

Length
  longer preferred  75.0% [60.0, 90.0]  n 36, 2 mis.  decided pairs that the longer answer wins; it
                                                      leans to longer answers

Controls, against sft on 40 prompts of t
  half above dpo    +10.0 [2.0, 20.0]   n 40          by so many percentage points, on the prompts
                                                      that both have"""
    )
    assert notes.startswith("In brackets 95% intervals")


def test_warnings_stand_first_and_lines_are_short() -> None:
    words = "many words about what is wrong " * 12
    findings = [
        Finding(name, Estimate(0.5, 0.25, 0.75, 1700, 1700), of="a" * 40 if i % 2 else "")
        for i, name in enumerate(name for lines in SECTIONS.values() for name in lines)
    ]
    card = made(*findings, warnings=(Warned(words, loud=True),))
    text = card_as_text(card)
    assert max(map(len, text.splitlines())) <= 100
    assert text.index("WARNINGS") < text.index("Replies")
    for lines in SECTIONS.values():
        for line in lines.values():
            assert line.says.split()[0] in text


def test_nothing_in_a_card_steers_a_terminal_or_a_page() -> None:
    card = made(
        Finding("attacked", Estimate(0.5, 0, 1, 4), of=HOSTILE),
        Finding("unheard", Estimate(0.5, 0, 1, 4), kinds={HOSTILE: 1}),
        warnings=(Warned(HOSTILE),),
        name=HOSTILE,
    )
    for text in (card_as_text(card), card_as_markdown(card), card_as_json(card)):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script>" not in card_as_markdown(card)


def test_json_holds_what_text_leaves_out() -> None:
    attacks = [Finding("attacked", Estimate(i / 9, 0, 1, 9), of=f"attack{i}") for i in range(9)]
    card = made(Finding("attacked", Estimate(0.4, 0.2, 0.6, 81)), *attacks)
    shown = re.findall(r"attack\d", card_as_text(card))
    assert shown == [f"attack{i}" for i in (8, 7, 6, 5, 4)]
    found = json.loads(card_as_json(card))
    assert len(found["findings"]) == 10
    assert found["findings"][1] == {
        "name": "attacked",
        "of": "attack0",
        "value": 0,
        "low": 0,
        "high": 1,
        "interval": "percentile",
        "n": 9,
        "n_missing": 0,
        "reason": None,
        "kinds": {},
    }
    table = card_as_markdown(card)
    assert "| all attacks | 40.0% \\[20.0, 60.0\\] | n 81 |" in table


def test_a_card_without_warnings_says_so() -> None:
    assert "No warnings: nothing that was looked at speaks against" in card_as_text(made())


@pytest.mark.parametrize(
    ("name", "low", "high", "said"),
    [
        ("longer", 0.6, 0.9, "it leans to longer answers"),
        ("longer", 0.1, 0.4, "it leans to shorter answers"),
        ("longer", 0.4, 0.6, "no leaning can be told"),
        ("first", 0.6, 0.9, "it leans to the first"),
        ("first", 0.1, 0.4, "it leans to the second"),
    ],
)
def test_what_a_leaning_comes_to(name: str, low: float, high: float, said: str) -> None:
    card = made(Finding(name, Estimate((low + high) / 2, low, high, 40)))
    assert said in " ".join(card_as_text(card).split())
