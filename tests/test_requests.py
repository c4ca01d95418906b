"""Requests as they are written, and whatever else may lie in their place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from prefbench.requests import (
    MOST_BYTES,
    REQUEST,
    Request,
    is_whole,
    model_files,
    read_request,
    write_request,
)

NAMES = ("config.json", "model-1-of-2.safetensors", "model-2-of-2.safetensors", "tokenizer.json")
OTHERS = ("optimizer.pt", "rng_state_0.pth", "training_args.bin", "README.md", ".model.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate((*NAMES, *OTHERS)):
        (tmp_path / name).write_bytes(b"x" * (i + 1))
    return tmp_path


@pytest.fixture
def asked(folder: Path) -> Request:
    return Request(
        step=500,
        when="2026-01-02T03:04:05+00:00",
        files=model_files(folder),
        method="dpop",
        trainer="DPOConfig",
        losses=("sigmoid", "sft"),
        start="/models/sft",
        reference="org/sft",
        beta=0.1,
        seed=3,
    )


def test_what_is_written_is_read(folder: Path, asked: Request) -> None:
    assert set(asked.files) == set(NAMES)
    write_request(folder, asked)
    assert read_request(folder) == asked
    assert is_whole(folder, asked)
    assert set(model_files(folder)) == set(NAMES)
    assert not list(folder.glob("*.tmp*")) + list(folder.glob(".*.tmp"))


def test_a_request_needs_its_folder(tmp_path: Path, asked: Request) -> None:
    with pytest.raises(FileNotFoundError):
        write_request(tmp_path / "gone", asked)
    assert not (tmp_path / "gone").exists()
    assert read_request(tmp_path / "gone") is None
    assert not is_whole(tmp_path / "gone", asked)


def test_what_is_added_beside_the_model_does_not_matter(folder: Path, asked: Request) -> None:
    (folder / "optimizer.pt").write_bytes(b"another")
    (folder / "eval_results.json").write_text("{}")
    assert is_whole(folder, asked)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def write_again(path: Path) -> None:
    seen = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns + 1))


def link(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("change", [Path.unlink, grow, write_again, link])
@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_others_are_not_whole(folder: Path, asked: Request, name, change) -> None:
    change(folder / name)
    assert not is_whole(folder, asked)


def test_weights_that_are_not_named_are_not_whole(folder: Path, asked: Request) -> None:
    (folder / "model-3-of-3.safetensors").touch()
    assert not is_whole(folder, asked)


def test_facts_alone_vouch_for_nothing(folder: Path) -> None:
    assert not is_whole(folder, Request(0, "now"))
    files = {"config.json": model_files(folder)["config.json"]}
    assert not is_whole(folder, Request(0, "now", files))


LEAST = {"step": 1, "when": "now", "files": {}, "format": 1}


def test_what_a_request_must_say(tmp_path: Path) -> None:
    (tmp_path / REQUEST).write_text(json.dumps(LEAST | {"new": "of a later prefbench"}))
    assert read_request(tmp_path) == Request(1, "now")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"\xff\xfe",
        b"null",
        b"[]",
        b"7",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
        *(
            json.dumps(LEAST | wrong).encode()
            for wrong in [
                {"format": 2},
                {"format": "1"},
                {"step": -1},
                {"step": "1"},
                {"step": 1.5},
                {"step": True},
                {"step": 10**30},
                {"step": None},
                {"when": 7},
                {"when": "x" * 5000},
                {"files": None},
                {"files": [["model.safetensors", 1, 1]]},
                {"files": {"model.safetensors": 1}},
                {"files": {"model.safetensors": [1]}},
                {"files": {"model.safetensors": [1, "x"]}},
                {"files": {"model.safetensors": [10**400, 1.0e400]}},
                {"method": ["dpo"]},
                {"method": "d" * 5000},
                {"method": "\ud800"},
                {"losses": "sigmoid"},
                {"losses": [1]},
                {"beta": "0.1"},
                {"beta": float("nan")},
                {"beta": float("inf")},
                {"seed": -3},
                {"seed": 0.5},
            ]
        ),
        json.dumps(LEAST).encode() + b" " * MOST_BYTES,
    ],
)
def test_anything_else_is_no_request(tmp_path: Path, content: bytes) -> None:
    (tmp_path / REQUEST).write_bytes(content)
    assert read_request(tmp_path) is None


def test_only_a_file_of_its_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / REQUEST
    (tmp_path / "elsewhere").write_text(json.dumps(LEAST))
    path.symlink_to("elsewhere")
    assert read_request(tmp_path) is None
    path.unlink()
    path.symlink_to(REQUEST)
    assert read_request(tmp_path) is None
    path.unlink()
    os.mkfifo(path)
    assert read_request(tmp_path) is None
    path.unlink()
    path.mkdir()
    assert read_request(tmp_path) is None
    path.rmdir()
    (tmp_path / "elsewhere").rename(path)
    assert read_request(tmp_path) is not None
