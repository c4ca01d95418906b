"""Recipes: what a judge's YAML must say, what it must not, and what its key hangs on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from prefbench.errors import JudgeError
from prefbench.judges.recipe import JudgeRecipe, find_judge, load_judges, read_recipe

ASKED = {
    "judge": "asked",
    "kind": "openai",
    "model": "some-model",
    "endpoint": {"base_url": "http://127.0.0.1:9/v1"},
    "prompt": "{{ first }} {{ second }}",
    "verdict": {"by": "line", "marker": "Better:", "labels": {"A": 1, "B": 0}},
}
PANEL = {"judge": "two", "kind": "panel", "members": ["asked", "other"]}


def write(folder: Path, facts: object, name: str = "judge.yaml") -> Path:
    file = folder / name
    file.write_text(facts if isinstance(facts, str) else yaml.safe_dump(facts), encoding="utf-8")
    return file


def changed(**changes: object) -> JudgeRecipe:
    return JudgeRecipe.model_validate({**ASKED, **changes})


def test_a_judge_is_read(tmp_path):
    recipe = read_recipe(write(tmp_path, ASKED))
    assert recipe == JudgeRecipe.model_validate(ASKED)
    assert recipe.sampling.temperature == 0
    assert recipe.verdict.labels == {"A": 1.0, "B": 0.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"promt": "x"}, "promt: Extra inputs are not permitted"),
        ({"kind": "oracle"}, "kind: Input should be"),
        ({"model": None}, "a judge of kind openai names its model"),
        ({"endpoint": None}, "a judge of kind openai names its endpoint"),
        ({"endpoint": {"base_url": "x", "api_key": "k"}}, "endpoint.api_key: Extra inputs"),
        ({"endpoint": {"base_url": "x", "concurrency": 0}}, "endpoint.concurrency: Input should"),
        ({"prompt": None}, "a judge of kind openai needs prompt and verdict"),
        ({"verdict": None}, "a judge of kind openai needs prompt and verdict"),
        ({"kind": "vllm", "prompt": ""}, "a judge of kind vllm needs prompt and verdict"),
        ({"verdict": {"by": "line", "marker": "x"}}, "verdict.labels says what the judge may"),
        ({"verdict": {"by": "line", "labels": {"A": 2}}}, "verdict.labels.A: Input should be less"),
        ({"verdict": {"by": "line", "labels": {"A": float("nan")}}}, "verdict.labels.A: Input"),
        ({"verdict": {"by": "json", "labels": {"A": 1}}}, "verdict: Value error, marker names"),
        ({"verdict": {"by": "line", "labels": {"A*": 1}}}, "verdict: Value error, the label 'A*'"),
        ({"verdict": {"by": "line", "labels": {"A.": 1}}}, "verdict: Value error, the label 'A.'"),
        ({"verdict": {"by": "line", "labels": {"": 1}}}, "verdict: Value error, the label ''"),
        ({"verdict": {"by": "line", "labels": {"A ": 1}}}, "verdict: Value error, 'A ' is not one"),
        ({"verdict": {"by": "line", "marker": "x\ny"}}, "verdict: Value error, 'x\\ny' is not one"),
        ({"sampling": {"temperature": -1}}, "sampling.temperature: Input should"),
        ({"price": {"input": -1}}, "price.input: Input should"),
        ({"examples": [{"reply": "A", "preference": 3}]}, "examples.0.preference: Input should"),
        ({"kind": "panel", "members": ["a"]}, "a panel has two or more different members"),
        ({"kind": "panel", "members": ["a", "a"]}, "a panel has two or more different members"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(tmp_path, changes, message):
    file = write(tmp_path, {**ASKED, **changes})
    with pytest.raises(JudgeError) as raised:
        read_recipe(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n", "is not a mapping"), ("a: [", "cannot be read as YAML"), ("", "is not a mapping")],
)
def test_what_is_no_judge_says_so(tmp_path, text, message):
    with pytest.raises(JudgeError, match=message):
        read_recipe(write(tmp_path, text))


def test_a_key_in_the_file_is_not_repeated(tmp_path):
    file = write(tmp_path, {**ASKED, "endpoint": {"base_url": "x", "api_key": "sk-secret"}})
    with pytest.raises(JudgeError) as raised:
        read_recipe(file)
    assert "sk-secret" not in str(raised.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "{{ second }} {{ first }}"},
        {"system": "Be fair."},
        {"model": "another"},
        {"kind": "vllm"},
        {"revision": "main"},
        {"endpoint": {"base_url": "http://127.0.0.1:10/v1"}},
        {"sampling": {"temperature": 0.5}},
        {"sampling": {"reasoning": "low"}},
        {"verdict": {**ASKED["verdict"], "labels": {"A": 0, "B": 1}}},
        {"verdict": {**ASKED["verdict"], "marker": "Verdict:"}},
        {"verdict": {**ASKED["verdict"], "schema": {"type": "object"}}},
    ],
)
def test_the_key_hangs_on_what_can_change_a_verdict(changes):
    assert changed(**changes).key != changed().key


@pytest.mark.parametrize(
    "changes",
    [
        {"judge": "renamed"},
        {"description": "One line."},
        {"price": {"input": 1, "output": 2}},
        {"examples": [{"reply": "Better: A", "preference": 1}]},
        {"endpoint": {**ASKED["endpoint"], "api_key_env": "KEY", "timeout": 1, "concurrency": 2}},
    ],
)
def test_the_key_does_not_hang_on_the_rest(changes):
    assert changed(**changes).key == changed().key


def test_a_later_folders_judge_replaces_one_of_its_name(tmp_path):
    shipped = set(load_judges())
    write(tmp_path, ASKED)
    write(tmp_path, "no judge", "_notes.yaml")
    (tmp_path / "later").mkdir()
    write(tmp_path / "later", {**ASKED, "model": "newer"})
    found = load_judges([tmp_path, tmp_path / "later"])
    assert set(found) == shipped | {"asked"}
    assert found["asked"].recipe.model == "newer"
    assert found["asked"].file == tmp_path / "later" / "judge.yaml"
    with pytest.raises(JudgeError, match="no such judges folder"):
        load_judges([tmp_path / "nowhere"])


def test_a_judge_is_found_by_name_with_the_nearest_names(tmp_path):
    write(tmp_path, ASKED)
    judges = load_judges([tmp_path])
    assert find_judge("asked", judges).recipe.judge == "asked"
    with pytest.raises(JudgeError, match="no judge is named 'aksed'; did you mean asked"):
        find_judge("aksed", judges)
    with pytest.raises(JudgeError, match="no judge is named 'zzz'; `prefbench judges` lists"):
        find_judge("zzz", judges)


def test_a_panels_members_are_judges_and_no_panels(tmp_path):
    write(tmp_path, ASKED)
    write(tmp_path, {**ASKED, "judge": "other"}, "other.yaml")
    write(tmp_path, PANEL, "panel.yaml")
    write(tmp_path, {**PANEL, "judge": "of panels", "members": ["two", "asked"]}, "panels.yaml")
    write(tmp_path, {**PANEL, "judge": "lost", "members": ["asked", "nobody"]}, "lost.yaml")
    judges = load_judges([tmp_path])
    assert find_judge("two", judges).recipe.members == ("asked", "other")
    with pytest.raises(JudgeError, match="members: two is a panel itself"):
        find_judge("of panels", judges)
    with pytest.raises(JudgeError, match="no judge is named 'nobody'"):
        find_judge("lost", judges)
