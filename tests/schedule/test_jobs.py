from __future__ import annotations

from pathlib import PurePath
from typing import Any

import pytest

from prefbench.errors import InputError
from prefbench.schedule.jobs import looks_like_a_key
from tests.schedule.jobs import job


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\x00b", "a\x85b", "a\u2028b", "a\udcffb", "\t"])
@pytest.mark.parametrize("field", ["runs", "results", "policy", "env_file", "mirrors", "suites"])
def test_no_name_breaks_a_line(field: str, bad: str) -> None:
    value: Any = bad if field == "suites" else PurePath("/x", bad)
    with pytest.raises(InputError, match="rename it"):
        job(**{field: (value,) if field in ("runs", "mirrors", "suites") else value})


KEYS = [
    "sk-proj-abcdEFGH1234567890",
    "hf_abcdefghijklmnopqrstuvwxyzABCDEF",
    "ghp_0123456789abcdefghijABCDEFGHIJ",
    "AKIAABCDEFGHIJKLMNOP",
    "0123456789abcdef0123456789abcdef",
    "Bearer abcdefgh",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("field", ["key_variables", "suites", "tasks", "run_options", "name"])
def test_a_key_is_refused_and_not_repeated(field: str, key: str) -> None:
    value = f"--served-model={key}" if field == "run_options" else key
    with pytest.raises(InputError) as caught:
        job(**{field: value if field == "name" else (value,)})
    assert "looks like a key" in str(caught.value)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        "--api-key=short",
        "--judge-token=x",
        "--password=",
        "--base-url=https://me:secret@host/v1",
        "--base-url=https://host/v1?key=x",
    ],
)
def test_options_that_are_for_keys(option: str) -> None:
    assert looks_like_a_key(option)


@pytest.mark.parametrize(
    "option",
    [
        "--api-key-env=OPENAI_API_KEY",
        "--judge-api-key-env=JUDGE_KEY",
        "--max-tokens=20",
        "--base-url=http://127.0.0.1:8000/v1",
        "--engine=vllm",
        "--task=task_hf_dialogues_helpful_pairs_12",
        "--judge-model=Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4",
        "--reference=runs/sft-2026-11-01/checkpoint-1000",
    ],
)
def test_options_that_are_not(option: str) -> None:
    assert not looks_like_a_key(option)
    assert option in job(run_options=(option,)).measuring()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"runs": ()}, "at least one"),
        ({"name": "a b"}, "--name"),
        ({"name": "../x"}, "--name"),
        ({"key_variables": ("A B",)}, "--key-env takes the name"),
        ({"key_variables": ("1A",)}, "--key-env takes the name"),
        ({"run_options": ("engine=hf",)}, "no option in one word"),
        ({"run_options": ("--engine hf",)}, "no option in one word"),
    ],
)
def test_what_makes_no_sense(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        job(**more)


def test_names_that_look_like_options_are_none() -> None:
    words = job(runs=(PurePath("-x"),), results=PurePath("-r"), suites=("-s",)).measuring()
    assert words[3:] == ["run", "--suite=-s", "--results=-r", "--", "-x"]
