"""Files that go to a batch service and come back: its errors, its gaps, and vLLM's own runner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prefbench.engines.builds import ENVIRONMENT, ENVIRONMENT_ON_CPU, HOW_TO_INSTALL, installed
from prefbench.errors import JudgeError
from prefbench.judges.batches import URL, read_batch, write_batch
from prefbench.judges.judge import Ask, Turn, Unheard, Verdict
from prefbench.judges.recipe import JudgeRecipe
from tests.judges.test_chat import ASKS, BY_JSON, completion, recipe
from tests.serving import ALONE, make_served

KEYS = [f"{n:064x}" for n in range(4)]


def row(key: str, body: Any = None, **facts: Any) -> dict[str, Any]:
    response = {"status_code": 200, "request_id": "r", "body": body or completion()}
    return {"id": "batch_req_1", "custom_id": key, "response": response, "error": None, **facts}


def written(folder: Path, *rows: Any, end: str = "\n") -> Path:
    file = folder / "out.jsonl"
    file.write_text("\n".join(json.dumps(one) for one in rows) + end)
    return file


def test_a_row_is_a_request(tmp_path: Path) -> None:
    asks = dict(zip(KEYS, ASKS, strict=False))
    write_batch(recipe(), asks, tmp_path / "in.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "in.jsonl").read_text().splitlines()]
    assert [one["custom_id"] for one in rows] == KEYS
    for one, ask in zip(rows, asks.values(), strict=True):
        assert (one["method"], one["url"]) == ("POST", URL)
        assert ask.first in one["body"]["messages"][-1]["content"]
        assert one["body"]["max_tokens"] == 512
    contents = [one["body"]["messages"][-1]["content"] for one in rows]
    assert len({text.split("BEGIN ")[1][:12] for text in contents}) == len(rows)
    assert len(list(tmp_path.iterdir())) == 1


def test_no_file_is_half_written(tmp_path: Path) -> None:
    odd = recipe(prompt="{{ first }}{{ second }}{% if reference %}{{ 1 // 0 }}{% endif %}")
    asks = {KEYS[0]: ASKS[0], KEYS[1]: Ask((Turn("user", "?"),), "a", "b", "c")}
    with pytest.raises(JudgeError, match="tested: prompt"):
        write_batch(odd, asks, tmp_path / "in.jsonl")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(JudgeError, match="cannot be written"):
        write_batch(recipe(), asks, tmp_path / "none" / "in.jsonl")


def test_verdicts_come_back_by_their_keys(tmp_path: Path) -> None:
    file = written(tmp_path, row(KEYS[1], completion("Verdict: B")), row(KEYS[0]))
    read = read_batch(recipe(), file, KEYS[:2])
    found = dict(read)
    assert set(found) == set(KEYS[:2])
    for key, preference in zip(KEYS, [1.0, 0.0], strict=False):
        verdict = found[key]
        assert isinstance(verdict, Verdict)
        assert verdict.preference == preference
        assert (verdict.n_in, verdict.n_out, verdict.cost) == (50, 5, pytest.approx(100e-6))
        assert verdict.facts["model"] == "m-2026"
    assert (read.n_others, read.n_repeated, read.n_torn) == (0, 0, 0)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (  # OpenAI, in a file of errors
            {
                "response": {
                    "status_code": 400,
                    "body": {"error": {"message": "Invalid value", "code": "invalid_value"}},
                }
            },
            "HTTP 400: Invalid value",
        ),
        (  # OpenAI, of a batch that ran out of time
            {
                "response": None,
                "error": {"code": "batch_expired", "message": "not executed before its end"},
            },
            "not executed before its end",
        ),
        (  # vLLM
            {
                "response": {"status_code": 400, "request_id": "r", "body": None},
                "error": {"error": {"message": "too long", "type": "BadRequestError"}},
            },
            "HTTP 400: too long",
        ),
        ({"response": None, "error": "URL /x was used."}, "URL /x was used."),
        ({"response": None, "error": None}, "no reply"),
        ({"response": "?", "error": {}}, "no reply"),
        ({"response": {"status_code": 500, "body": {"odd": 1}}}, 'HTTP 500: {"odd": 1}'),
    ],
)
def test_a_row_of_an_error_is_unheard(tmp_path: Path, facts: Any, reason: str) -> None:
    file = written(tmp_path, {**row(KEYS[0]), **facts})
    assert dict(read_batch(recipe(), file)) == {KEYS[0]: Unheard(reason)}


def test_what_is_missing_torn_foreign_or_repeated(tmp_path: Path) -> None:
    torn = json.dumps(row(KEYS[2]))[:-40]
    error = {**row(KEYS[1]), "response": None, "error": "first it failed"}
    file = written(
        tmp_path,
        row(KEYS[0]),
        row("of another run"),
        error,
        row(KEYS[1], completion("Verdict: B")),
        row(KEYS[0], completion("Verdict: B")),
        {**row(KEYS[0]), "custom_id": 7},
        end="\n" + torn,
    )
    read = read_batch(recipe(), file, KEYS)
    assert (read.n_others, read.n_repeated, read.n_torn) == (2, 1, 1)
    preferences = {key: verdict.preference for key, verdict in read if isinstance(verdict, Verdict)}
    assert preferences == {KEYS[0]: 1.0, KEYS[1]: 0.0}
    for key in KEYS[2:]:
        assert read.found[key] == Unheard("out.jsonl has no answer to it")
    assert set(dict(read_batch(recipe(), file))) == {*KEYS[:2], "of another run"}


def test_nothing_was_asked(tmp_path: Path) -> None:
    read = read_batch(recipe(), written(tmp_path, row(KEYS[0])), [])
    assert dict(read) == {}
    assert read.n_others == 1


@pytest.mark.parametrize("content", [b"", b"\n\n", b'\xff{"', b"[1]\n7\n", b"[" * 100_000])
def test_files_of_no_rows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "out.jsonl").write_bytes(content)
    assert dict(read_batch(recipe(), tmp_path / "out.jsonl")) == {}


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="cannot be read"):
        read_batch(recipe(), tmp_path / "none")
    write_batch(recipe(), {KEYS[0]: ASKS[0]}, tmp_path / "in.jsonl")
    with pytest.raises(JudgeError, match="line 1: is what was asked; name the file of the answers"):
        read_batch(recipe(), tmp_path / "in.jsonl")


def test_vllm_runs_a_batch(tmp_path: Path) -> None:
    if installed() is None:
        pytest.fail(f"vLLM is not installed: {HOW_TO_INSTALL}")
    checkpoint = make_served(tmp_path / "taught")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(
        json.dumps(config | {"max_position_embeddings": 512})  # fences are long, in bytes
    )
    schema = {
        "type": "object",
        "properties": {"better": {"type": "string", "enum": ["A", "B"]}},
        "required": ["better"],
        "additionalProperties": False,
    }
    asked: JudgeRecipe = recipe(
        verdict={**BY_JSON, "schema": schema}, sampling={"max_tokens": 100}, model="judge"
    )
    asks = dict(zip(KEYS[:3], ASKS, strict=False))
    asks[KEYS[3]] = Ask(ASKS[0].conversation, "too long " * 100, "2 is.")
    write_batch(asked, asks, tmp_path / "in.jsonl")
    command = [sys.executable, "-m", "prefbench.engines.launcher", "run-batch"]
    command += ["-i", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]
    command += ["--model", str(checkpoint), "--served-model-name", "judge", "--dtype", "float32"]
    command += ["--enforce-eager", "--kv-cache-memory-bytes", str(64 << 20), "--block-size", "32"]
    # This model would fill its reply with spaces between the object's parts.
    structured = {"backend": "xgrammar", "disable_any_whitespace": True}
    command += ["--structured-outputs-config", json.dumps(structured)]
    ran = subprocess.run(
        command,
        env=os.environ | ENVIRONMENT | ENVIRONMENT_ON_CPU | ALONE,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    read = read_batch(asked, tmp_path / "out.jsonl", asks)
    assert (read.n_others, read.n_repeated, read.n_torn) == (0, 0, 0)
    for key in KEYS[:3]:
        verdict = read.found[key]
        assert isinstance(verdict, Verdict)
        assert verdict.preference == {"A": 1, "B": 0}[json.loads(verdict.reply)["better"]]
        assert verdict.n_in > 100
        assert 1 < verdict.n_out <= 100
        assert verdict.facts["finish_reason"] == "stop"
        assert verdict.facts["model"] == "judge"
    too_long = read.found[KEYS[3]]
    assert isinstance(too_long, Unheard)
    assert "context length" in too_long.reason
