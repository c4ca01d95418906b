"""That nothing which opens a door gets from lm-eval's files into results or exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefbench.interchange.imported import import_lm_eval
from prefbench.interchange.unsecret import unsecret, unsecret_arguments
from prefbench.report.exports import EXPORTS, export

ARGUMENTS = {
    "model": "org/dpo",
    "base_url": "http://alice:hunter2@machine:8000/v1?key=hunter2",
    "api_key": "hunter2",
    "token": "hunter2",
    "header": {"Authorization": "Bearer hunter2"},
    "pad_token": "<pad>",
    "max_tokens": 16,
}
KEPT = {
    "model": "org/dpo",
    "base_url": "http://machine:8000/v1",
    "pad_token": "<pad>",
    "max_tokens": 16,
}


def test_secrets_are_told_by_their_names() -> None:
    assert unsecret({"a": [ARGUMENTS], "keys": "of a keyboard"}) == {
        "a": [KEPT],
        "keys": "of a keyboard",
    }
    assert unsecret("see http://a?b=c or not") == "see http://a?b=c or not"


def test_arguments_in_every_way_that_lm_eval_writes_them() -> None:
    assert unsecret_arguments(ARGUMENTS) == KEPT
    assert json.loads(unsecret_arguments(json.dumps(ARGUMENTS))) == KEPT
    told = "pretrained=org/dpo, token=hunter2,HF_TOKEN=hunter2,add_bos_token=True,dtype=float32"
    assert unsecret_arguments(told) == "pretrained=org/dpo,add_bos_token=True,dtype=float32"
    assert unsecret_arguments(None) is None


@pytest.mark.parametrize("arguments", [ARGUMENTS, "model=org/dpo,api_key=hunter2,token=hunter2"])
def test_no_secret_is_kept_or_exported(arguments: Any, tmp_path: Path) -> None:
    path = tmp_path / "results_1.json"
    metadata = arguments if isinstance(arguments, dict) else {}
    whole = {
        "results": {"quiz": {"acc,none": 0.5, "acc_stderr,none": 0.1}},
        "configs": {"quiz": {"dataset_kwargs": {"token": "hunter2"}, "metadata": metadata}},
        "higher_is_better": {"quiz": {"acc": True}},
        "model_name": "org/dpo",
        "config": {"model": "local-completions", "model_args": arguments},
    }
    path.write_text(json.dumps(whole))
    import_lm_eval([path], tmp_path / "results")
    for form in EXPORTS:
        export(form, tmp_path / "results", tmp_path / "exports" / form)
    written = [
        *(tmp_path / "results").rglob("*"),
        *(tmp_path / "exports").rglob("*"),
    ]
    texts = [(file, file.read_bytes()) for file in written if file.is_file()]
    assert any(b"org/dpo" in text for _, text in texts)
    assert [file for file, text in texts if b"hunter2" in text] == []
    exported = [text for file, text in texts if "every-eval-ever" in file.parts]
    assert exported
    assert not any(b"machine" in text for text in exported)
