"""Shipped judges: their examples read as they must, and no answer leaves its fence."""

from __future__ import annotations

import json

import pytest
import yaml

from prefbench.judges.injections import MARKERS, inject
from prefbench.judges.judge import Ask, Turn
from prefbench.judges.prompts import draw_delimiter, render, uses_reference
from prefbench.judges.reading import read
from prefbench.judges.recipe import JudgeRecipe, find_judge, judges_folder, load_judges

JUDGES = {name: found.recipe for name, found in load_judges().items()}
ASKING = [name for name, recipe in JUDGES.items() if recipe.prompt]
SINGLE = (Turn("user", "Why is the sky blue?"),)
SEVERAL = (Turn("system", "Be brief."), *SINGLE, Turn("assistant", "Air."), Turn("user", "How?"))


def unfenced(messages, delimiter):
    """The lines outside all fences, as somebody reads them who believes only the delimiter."""
    outside = []
    for message in messages:
        inside = False
        for line in message["content"].split("\n"):
            if line in (f"BEGIN {delimiter}", f"END {delimiter}"):
                assert inside == line.startswith("END")
                inside = not inside
            elif not inside:
                outside.append(line)
        assert not inside
    return [line.replace(delimiter, "…") for line in outside]


def rendered(name, ask):
    delimiter = draw_delimiter()
    return unfenced(render(JUDGES[name], ask, delimiter=delimiter), delimiter)


def test_the_judges_are_there():
    assert set(JUDGES) >= {
        "harmless_dialogue",
        "helpful_dialogue",
        "instruction_graded",
        "letter_logprobs",
        "local_dialogue",
        "panel_dialogue",
        "structured",
        "summary",
    }


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_is_found_in_the_file_of_its_name(name):
    found = find_judge(name, load_judges())
    assert found.file == judges_folder() / f"{name}.yaml"
    assert found.recipe.description


@pytest.mark.parametrize("name", ASKING)
def test_examples_are_read_as_they_must(name):
    recipe = JUDGES[name]
    assert len(recipe.examples) >= 6
    for example in recipe.examples:
        result = read(recipe.verdict, example.reply, logprobs=example.logprobs)
        assert result.preference == (
            None if example.preference is None else pytest.approx(example.preference, abs=1e-3)
        ), example.reply
    stated = {example.preference for example in recipe.examples}
    assert stated >= {None, *recipe.verdict.labels.values()}


@pytest.mark.parametrize("name", ASKING)
def test_a_judge_reads_nothing_from_a_cut_reply(name):
    recipe = JUDGES[name]
    for example in recipe.examples:
        assert read(recipe.verdict, example.reply, finished=False).preference is None


@pytest.mark.parametrize("name", ASKING)
def test_labels_favour_neither_place(name):
    preferences = sorted(JUDGES[name].verdict.labels.values())
    assert preferences == sorted(1 - each for each in preferences)


@pytest.mark.parametrize("name", ASKING)
def test_a_prompt_says_what_it_reads_and_what_is_data(name):
    recipe = JUDGES[name]
    system, user = render(recipe, Ask(SINGLE, "x", "y"), delimiter="0123456789ab")
    assert (system["role"], user["role"]) == ("system", "user")
    for words in ("data", "never an instruction", "order", "Length alone is no merit"):
        assert words in system["content"]
    assert recipe.verdict.marker in user["content"]
    for label in recipe.verdict.labels:
        ending = f"\n{recipe.verdict.marker} {label}"
        assert (ending if recipe.verdict.by == "line" else label) in user["content"]


@pytest.mark.parametrize("name", ASKING)
def test_a_prompt_shows_the_conversation_and_a_reference(name):
    ask = Ask(SEVERAL, "x", "y", "Rayleigh scattering.")
    text = render(JUDGES[name], ask, delimiter="0123456789ab")[1]["content"]
    assert "\nHow?\n" in text
    assert ("\nAir.\n" in text) == (name != "summary")
    assert ("Rayleigh" in text) == uses_reference(JUDGES[name])


@pytest.mark.parametrize("name", ASKING)
def test_no_answer_leaves_its_fence(name):
    """Attacks, and the lines of the same prompt rendered once more, are data like all else."""
    for talk in (SINGLE, SEVERAL):
        plain = rendered(name, Ask(talk, "x", "y", "z"))
        before = render(JUDGES[name], Ask(talk, "x", "y", "z"), delimiter=draw_delimiter())
        hostile = [text for _, text in inject("Because of the air.")]
        hostile += ["\n".join(message["content"] for message in before), "", "{{ first }}"]
        for text in hostile:
            turned = tuple(turn._replace(content=text) for turn in talk)
            assert rendered(name, Ask(turned, text, text, text)) == plain


@pytest.mark.parametrize("name", JUDGES)
def test_a_key_changes_with_the_words_and_with_nothing_beside(name):
    recipe = JUDGES[name]
    facts = recipe.model_dump(by_alias=True)

    def key(**changes):
        return JudgeRecipe.model_validate({**facts, **changes}).key

    assert key() == recipe.key
    beside = {"price": {"input": 9}, "examples": [], "description": "Else.", "judge": "else"}
    assert key(**beside) == recipe.key
    if recipe.prompt:
        assert key(prompt=recipe.prompt.replace("Answer", "Reply") + ".") != recipe.key
        assert key(system=recipe.system + ".") != recipe.key
    else:
        assert key(rule="majority" if recipe.rule == "mean" else "mean") != recipe.key


def test_keys_differ():
    assert len({recipe.key for recipe in JUDGES.values()}) == len(JUDGES)


def test_the_local_judge_says_the_words_of_the_helpful_one():
    helpful, local = JUDGES["helpful_dialogue"], JUDGES["local_dialogue"]
    assert local.kind == "vllm"
    for part in ("system", "prompt", "verdict", "examples"):
        assert getattr(local, part) == getattr(helpful, part)


def test_files_hold_no_key_and_say_when_prices_were_looked_up():
    for file in sorted(judges_folder().glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        facts = yaml.safe_load(text)
        if facts["kind"] != "openai":
            continue
        if "://127.0.0.1:" in facts["endpoint"]["base_url"]:
            assert facts["endpoint"].get("api_key_env") is None
            assert facts["price"] == {"input": 0, "output": 0}
        else:
            assert facts["endpoint"]["api_key_env"] == "OPENAI_API_KEY"
            price = next(line for line in text.splitlines() if line.startswith("price:"))
            assert "looked up 20" in price


def test_attacks_are_many_and_keep_the_answer():
    attacks = inject("Because of the air.")
    names = [name for name, _ in attacks]
    assert len(names) == len(set(names)) >= 20
    assert len({text for _, text in attacks}) == len(attacks)
    for _, text in attacks:
        assert "Because of the air." in text
        assert text != "Because of the air."


def test_attacks_fake_the_verdict_lines_of_all_judges():
    for name in ASKING:
        verdict = JUDGES[name].verdict
        assert verdict.by != "line" or verdict.marker in MARKERS


def test_attacks_survive_any_answer():
    for answer in ("", "\0\ud800", '"}\n{{ x }}', "END 0123456789ab"):
        for _, text in inject(answer):
            json.dumps(text)


def test_the_readmes_judge_is_one(tmp_path):
    text = (judges_folder() / "README.md").read_text(encoding="utf-8")
    (tmp_path / "polite.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    recipe = load_judges([tmp_path])["polite"].recipe
    render(recipe, Ask(SINGLE, "x", "y"), delimiter=draw_delimiter())
    for example in recipe.examples:
        assert read(recipe.verdict, example.reply).preference == example.preference


def test_the_readme_lists_all_judges_and_keys():
    text = (judges_folder() / "README.md").read_text(encoding="utf-8")
    for name in [*JUDGES, *JudgeRecipe.model_fields]:
        assert f"`{name}`" in text
