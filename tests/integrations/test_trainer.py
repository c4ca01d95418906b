"""The callback in real trainings, by transformers and by TRL."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from prefbench.checkpoints import read_checkpoint
from prefbench.integrations import PrefbenchCallback
from prefbench.requests import REQUEST, is_whole, read_request
from tests.integrations.training import KINDS, trainer

# TRL and peft still use names that transformers 5 has renamed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*use_return_dict:FutureWarning"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_each_checkpoint_that_is_kept_has_its_request(
    small_zoo: Path, tmp_path: Path, kind: str
) -> None:
    run, start = tmp_path / "run", small_zoo / "base"
    callback = PrefbenchCallback()
    secret = "hf_a_secret_token"
    training = trainer(
        kind, start, run, callbacks=[callback], save_total_limit=2, seed=7, hub_token=secret
    )
    training.train()
    assert read_request(run).files == {}  # no model was saved there yet
    training.save_model()
    callback.saved(run)

    assert {path.name for path in run.glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}
    trained = {"plain": None, "sft": "sft", "dpo": "dpo", "lora": "dpo"}[kind]
    for folder, step in ((run / "checkpoint-4", 4), (run / "checkpoint-6", 6), (run, 6)):
        request = read_request(folder)
        assert request is not None
        assert is_whole(folder, request)
        assert (request.step, request.seed) == (step, 7)
        assert request.start == str(start)
        assert request.beta == (0.1 if kind in ("dpo", "lora") else None)
        assert not any("optimizer" in name or "rng" in name for name in request.files)
        assert secret not in (folder / REQUEST).read_text()
        if kind == "lora":
            assert "adapter_config.json" in request.files

        cache = tmp_path / "cache.sqlite"
        found = read_checkpoint(folder, cache=cache)
        assert (found.state, found.method, found.seed) == ("ready", trained, 7)
        if trained == "dpo":
            assert found.reference == str(start)
        assert "prefbench_request.json" in found.origins.values()
        (folder / REQUEST).unlink()
        assert read_checkpoint(folder, cache=cache).fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("said", "folder", "method"),
    [
        ({"loss_type": ["ipo"]}, "run", "ipo"),
        ({"loss_type": ["ipo"]}, "dpo", "ipo"),
        # A trainer of one's own may have the arguments of TRL's: a folder that says so is believed.
        ({}, "dpop", "dpop"),
        ({"method": "DPO-positive"}, "run", "dpop"),
        ({"method": "mine"}, "dpo", "mine"),
    ],
)
def test_the_method_is_what_was_trained(
    small_zoo: Path, tmp_path: Path, said: dict[str, Any], folder: str, method: str
) -> None:
    callback = PrefbenchCallback(method=said.pop("method", None), reference="org/model")
    run = tmp_path / folder
    trainer(
        "dpo", small_zoo / "base", run, steps=1, save_steps=1, callbacks=[callback], **said
    ).train()
    found = read_checkpoint(run / "checkpoint-1", cache=tmp_path / "cache.sqlite")
    assert (found.method, found.reference) == (method, "org/model")


class Spoiler(TrainerCallback):
    """Does something to a checkpoint before the next callback sees it."""

    def __init__(self, spoil: Any) -> None:
        self.spoil = spoil

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.spoil(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


def make_a_folder_of_the_request(folder: Path) -> None:
    (folder / REQUEST / "inside").mkdir(parents=True)


@pytest.mark.parametrize("spoil", [shutil.rmtree, replace_by_file, make_a_folder_of_the_request])
def test_training_goes_on_where_no_request_can_be_left(
    small_zoo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Any
) -> None:
    callbacks = [Spoiler(spoil), PrefbenchCallback()]
    training = trainer("plain", small_zoo / "base", tmp_path / "run", callbacks=callbacks)
    with caplog.at_level(logging.WARNING, logger="prefbench"):
        training.train()
    assert training.state.global_step == 6
    said = [record for record in caplog.records if record.name.startswith("prefbench")]
    assert len(said) == 1
    assert "training is not concerned" in said[0].getMessage()
    if spoil is shutil.rmtree:
        assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_an_old_request_does_not_vouch_for_a_new_training(small_zoo: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    callback = PrefbenchCallback()
    first = trainer("plain", small_zoo / "base", run, steps=2, callbacks=[callback])
    first.train()
    first.save_model()
    callback.saved(run)
    old = {folder: read_request(folder) for folder in (run, run / "checkpoint-2")}
    assert all(is_whole(folder, request) for folder, request in old.items())

    # The same sizes at the same places: saved, but not yet told of.
    trainer("plain", small_zoo / "base", run, steps=2, seed=1).train()
    assert read_request(run / "checkpoint-2") == old[run / "checkpoint-2"]
    assert not is_whole(run / "checkpoint-2", old[run / "checkpoint-2"])
    assert is_whole(run, old[run])  # the model of the first training still lies there
    third = trainer(
        "plain", small_zoo / "base", run, steps=2, seed=2, callbacks=[PrefbenchCallback()]
    )
    third.train()
    assert is_whole(run / "checkpoint-2", read_request(run / "checkpoint-2"))
    assert not is_whole(run, read_request(run))


class Saver(TrainerCallback):
    """Saves the model in the run's own folder before training ends."""

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        others["model"].save_pretrained(args.output_dir)


def test_a_model_saved_in_the_runs_folder_by_the_end_of_training(
    small_zoo: Path, tmp_path: Path
) -> None:
    callbacks = [Saver(), PrefbenchCallback()]
    trainer("plain", small_zoo / "base", tmp_path / "run", callbacks=callbacks).train()
    request = read_request(tmp_path / "run")
    assert request.step == 6
    assert is_whole(tmp_path / "run", request)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_imports_nothing_else_of_prefbench() -> None:
    said = python(
        "import sys, json\n"
        "import prefbench.integrations\n"
        "light = sorted(sys.modules)\n"
        "from prefbench.integrations import PrefbenchCallback\n"
        "PrefbenchCallback()\n"
        "own = [name for name in sys.modules if name.startswith('prefbench')]\n"
        "print(json.dumps([light, own]))\n"
    )
    light, own = json.loads(said)
    assert not {"torch", "transformers", "pydantic", "numpy", "prefbench.requests"} & set(light)
    assert set(own) == {
        "prefbench",
        "prefbench.integrations",
        "prefbench.integrations.trainer",
        "prefbench.requests",
    }


def test_without_transformers() -> None:
    said = python(
        "import sys\n"
        "sys.modules['transformers'] = None\n"
        "import prefbench.integrations\n"
        "try:\n"
        "    prefbench.integrations.PrefbenchCallback\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert "pip install transformers" in said
