"""Where a judge's weights come from, and what is said where they cannot be had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from prefbench.checkpoints import read_checkpoint
from prefbench.errors import JudgeError
from prefbench.judges.models import find_model, special_words
from prefbench.judges.recipe import JudgeRecipe
from tests.small_models import END, START, TURN, TURN_END, make, tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which itself is out of reach."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def recipe(model: str, **more: Any) -> JudgeRecipe:
    return JudgeRecipe(judge="mine", kind="reward", model=model, **more)


def test_a_directory_beside_the_yaml(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "judges" / "some" / "tiny")
    found = find_model(recipe("some/tiny"), tmp_path / "judges", [])
    assert found.path == tmp_path / "judges" / "some" / "tiny"
    assert found.name == "some/tiny"
    assert found.fingerprint == read_checkpoint(model).fingerprint
    assert find_model(recipe(str(model)), tmp_path, []).fingerprint == found.fingerprint
    other = make(tmp_path / "judges" / "other", seed=8)
    assert find_model(recipe("other"), other.parent, []).fingerprint != found.fingerprint


def test_a_mirrors_model_comes_before_the_hubs(model: Path, tmp_path: Path) -> None:
    mirrors = [tmp_path / "one", tmp_path / "two"]
    mirrors[0].mkdir()
    shutil.copytree(model, mirrors[1] / "models" / "some" / "tiny")
    found = find_model(recipe("some/tiny"), tmp_path, mirrors)
    assert found.path == mirrors[1] / "models" / "some" / "tiny"
    with pytest.raises(JudgeError, match=r"no: no such mirror directory \(--mirror"):
        find_model(recipe("some/tiny"), tmp_path, [tmp_path / "no"])


def test_a_model_in_the_hubs_cache(model: Path, hub: Path, tmp_path: Path) -> None:
    snapshot = hub / "models--some--tiny" / "snapshots" / COMMIT
    shutil.copytree(model, snapshot)
    found = find_model(recipe("some/tiny", revision=COMMIT), tmp_path, [])
    assert found.path == snapshot
    assert found.name == "some/tiny"
    assert found.fingerprint == read_checkpoint(model).fingerprint


def test_a_model_from_the_hub_is_pinned(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"^mine: model: some/tiny is neither .*add `revision: <c"):
        find_model(recipe("some/tiny"), tmp_path, [])
    with pytest.raises(JudgeError, match=r"^mine: revision: 'main' can move: give the commit"):
        find_model(recipe("some/tiny", revision="main"), tmp_path, [])


def test_a_model_that_the_hub_does_not_give(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"to be had from the hub.*`hf download some/tiny --rev"):
        find_model(recipe("some/tiny", revision=COMMIT), tmp_path, [])


@pytest.mark.parametrize("name", ["./tiny", "../tiny", "a/b/c", "/no/such", "some/..", "~/no/such"])
def test_what_is_neither_a_directory_nor_an_id(name: str, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="is not a directory, and"):
        find_model(recipe(name), tmp_path / "judges", [tmp_path])


def test_what_must_not_be_loaded(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(JudgeError, match=r"^mine: .*pickled: pytorch_model.bin is pickled"):
        find_model(recipe("pickled"), tmp_path, [])
    assert find_model(recipe("pickled"), tmp_path, [], allow_pickle=True).fingerprint
    shutil.copytree(model, tmp_path / "coded")
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "own.Model"}
    (tmp_path / "coded" / "config.json").write_text(json.dumps(config))
    with pytest.raises(JudgeError, match="asks to run Python of its own"):
        find_model(recipe("coded"), tmp_path, [])
    assert find_model(recipe("coded"), tmp_path, [], trust_remote_code=True).fingerprint
    (tmp_path / "empty").mkdir()
    with pytest.raises(JudgeError, match=r"empty: "):
        find_model(recipe("empty"), tmp_path, [])


def test_words_that_are_tokens_of_their_own() -> None:
    assert special_words(tokenizer()) == sorted([END, START, TURN, TURN_END])
