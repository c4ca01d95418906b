from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefbench.demo.judge import encode, loss_of
from prefbench.demo.recipes import Settings
from prefbench.demo.texts import END
from prefbench.demo.training import MARKER, train_zoo
from prefbench.demo.verdicts import demo_judge, lessons
from prefbench.demo.world import make_world
from prefbench.judges.models import special_words

SCALE = 0.01


@pytest.fixture(scope="module")
def zoo(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo with a judge that has learnt next to nothing. Leave it as it is."""
    folder = shutil.copytree(small_zoo, tmp_path_factory.mktemp("judged") / "demo")
    told: list[tuple[str, float]] = []
    train_zoo(folder, scale=SCALE, judge=True, progress=lambda *said: told.append(said))
    assert told == [("judge", 0.5), ("judge", 1.0)]  # and nothing else again
    return folder


@pytest.fixture
def run(zoo: Path) -> Path:
    return zoo / "data" / "models" / str(demo_judge().model)


def test_it_is_trained_only_when_it_is_asked_for(small_zoo: Path, run: Path) -> None:
    assert not (small_zoo / "data" / "models" / str(demo_judge().model)).exists()
    assert json.loads((run / MARKER).read_text()) == {"run": "judge"}


def test_it_is_the_base_and_moved(zoo: Path, run: Path) -> None:
    model, loaded = AutoModelForCausalLM.from_pretrained(run, output_loading_info=True)
    assert not any(loaded.values())
    base = AutoModelForCausalLM.from_pretrained(zoo / "base")
    moved = (model.model.embed_tokens.weight - base.model.embed_tokens.weight).abs().max()
    assert 0 < moved.item() < 3 * Settings().judge.learning_rate
    card = (run / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (run / str(front["base_model"])).resolve() == zoo.resolve() / "base"
    assert front["tags"] == ["prefbench-demo", "judge"]
    assert "A toy." in card
    assert "2 steps of 4 pairs" in card
    assert {path.suffix for path in run.iterdir()} == {
        ".jinja", ".json", ".md", ".safetensors", ".yaml",
    }  # fmt: skip


def test_its_template_is_the_form_of_the_demos_dialogues(run: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(run)
    turns = [("system", "Be fair."), ("user", "A\n or B?"), ("assistant", "B"), ("user", "Sure?")]
    messages = [{"role": role, "content": content} for role, content in turns]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "\n\nHuman: A\n or B?\n\nAssistant: B\n\nHuman: Sure?\n\nAssistant:"
    assert special_words(tokenizer) == [END]


def test_the_loss_is_that_of_single_rows(run: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(run)
    tokenizer = AutoTokenizer.from_pretrained(run)
    torch.manual_seed(0)
    aside = torch.nn.Linear(model.config.hidden_size, 1)
    some = list(islice(lessons(make_world(0), demo_judge(), Random(0)), 6))
    total = 0.0
    with torch.no_grad():
        together = loss_of(model, aside, encode(some, tokenizer))
        for one in some:
            prompt = tokenizer.apply_chat_template(
                one.messages, tokenize=False, add_generation_prompt=True
            )
            start, reply = tokenizer(prompt).input_ids, tokenizer(one.reply + END).input_ids
            said = model(torch.tensor([start + reply]), output_hidden_states=True)
            logps = said.logits[0].log_softmax(-1)
            for at, token in enumerate(reply, len(start) - 1):
                total -= logps[at, token].item()
            for end, good in zip(one.ends, one.good, strict=True):
                read = tokenizer("\n\nHuman: " + end).input_ids
                assert start[: len(read)] == read
                score = aside(said.hidden_states[-1][0, len(read) - 1])
                total -= torch.nn.functional.logsigmoid(score if good else -score).item()
    assert together.item() == pytest.approx(total / len(some), abs=1e-4)
