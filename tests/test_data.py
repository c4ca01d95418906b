"""Data: mirrors, files beside a task, the hub's cache; what is missing or broken is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from prefbench import data
from prefbench.data import LAYOUT, Source, find_source, identity, load, write_mirror
from prefbench.errors import DataError

ROWS = [
    {"q": "Où ?", "n": 1, "choices": ["a", "b"]},
    {"q": "two\u2028lines", "n": 2, "choices": []},
]
GSM8K = {"dataset_path": "openai/gsm8k", "dataset_name": "main"}
ARC = {"dataset_path": "allenai/ai2_arc", "dataset_name": "ARC-Easy"}


def write_parquet(path: Path, rows=ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


# --- mirrors


SUPPLIED = {"Pascalson/CausalDialogue", "tatsu-lab/alpaca_eval"}
"""What users bring themselves."""


@pytest.mark.parametrize(
    ("dataset", "configuration"),
    [(name, c) for name, cs in LAYOUT.items() for c in cs if name not in SUPPLIED],
)
def test_a_mirror_in_the_usual_layout(real_data, dataset, configuration):
    key = "data_dir" if "hh-rlhf" in dataset else "dataset_name"
    config = {"dataset_path": dataset, "dataset_kwargs": {"revision": "f00"}}
    if configuration != "default":
        if key == "data_dir":
            config["dataset_kwargs"][key] = configuration
        else:
            config[key] = configuration
    source = find_source(config, [real_data], Path())
    assert (source.dataset, source.configuration) == (dataset, configuration)
    expected = set(LAYOUT[dataset][configuration]) - ({"train"} if "hella" in dataset else set())
    assert set(source.files) == expected
    (split, *_) = source.files
    assert len(load(source, [split])[split]) > 100
    assert identity(source, [split]).startswith("sha256:")


def test_a_mirror_with_an_index_of_its_own(tmp_path):
    write_parquet(tmp_path / "some" / "where.parquet")
    write_parquet(tmp_path / "gsm8k" / "test.parquet")  # the usual place, which the index replaces
    index = {"openai/gsm8k": {"main": {"train": "some/where.parquet"}}}
    (tmp_path / "mirror.yaml").write_text(json.dumps(index))
    source = find_source(GSM8K, [tmp_path], Path())
    assert source.files == {"train": tmp_path / "some" / "where.parquet"}
    assert source.has("train")
    assert not source.has("test")
    assert load(source, ["train", "test"])["train"].to_list() == ROWS


def test_an_index_that_names_a_file_which_is_gone(tmp_path):
    index = {"openai/gsm8k": {"main": {"test": "gone.parquet"}}}
    (tmp_path / "mirror.yaml").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"mirror.yaml: names gone.parquet for openai/gsm8k"):
        find_source(GSM8K, [tmp_path], Path())


@pytest.mark.parametrize("text", ["[", "- a list", "openai/gsm8k: {main: [train]}", "a: b"])
def test_an_index_that_cannot_be_read(tmp_path, text):
    (tmp_path / "mirror.yaml").write_text(text)
    with pytest.raises(DataError, match=f"{tmp_path / 'mirror.yaml'}: cannot be read"):
        find_source(GSM8K, [tmp_path], Path())


def test_the_first_mirror_that_has_the_set_wins(tmp_path):
    for name, rows in (("a", ROWS[:1]), ("b", ROWS)):
        write_parquet(tmp_path / name / "gsm8k" / "test.parquet", rows)
    write_parquet(tmp_path / "b" / "arc" / "arc_easy_test.parquet")
    mirrors = [tmp_path / "a", tmp_path / "b"]
    assert len(load(find_source(GSM8K, mirrors, Path()), ["test"])["test"]) == 1
    assert find_source(ARC, mirrors, Path()).files["test"].is_relative_to(tmp_path / "b")


def test_a_mirror_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="absent: no such mirror directory"):
        find_source(GSM8K, [tmp_path / "absent"], Path())


def test_a_mirror_written_from_a_mirror_has_the_same_rows(tmp_path, real_data, small_zoo):
    everyday = {"dataset_path": "prefbench/demo-everyday"}
    gsm8k = find_source(GSM8K, [real_data], Path())
    demo = find_source(everyday, [small_zoo / "data"], Path())
    written = dict(write_mirror([(gsm8k, ["test"]), (demo, ["validation"])], tmp_path))
    assert set(written) == {"openai/gsm8k/main test", "prefbench/demo-everyday validation"}
    for config, before, split in ((GSM8K, gsm8k, "test"), (everyday, demo, "validation")):
        after = find_source(config, [tmp_path], Path())
        assert list(after.files) == [split]
        assert load(after, [split])[split].to_list() == load(before, [split])[split].to_list()


def test_a_second_copy_adds_and_keeps(tmp_path):
    old = tmp_path / "old"
    for name in ("gsm8k/train", "gsm8k/test", "arc/arc_easy_test"):
        write_parquet(old / f"{name}.parquet")
    gsm8k, arc = (find_source(config, [old], Path()) for config in (GSM8K, ARC))
    new = tmp_path / "new"
    list(write_mirror([(gsm8k, ["train"])], new))
    list(write_mirror([(gsm8k, ["test"]), (arc, ["test"])], new))
    assert set(find_source(GSM8K, [new], Path()).files) == {"train", "test"}
    assert set(find_source(ARC, [new], Path()).files) == {"test"}


def test_a_copy_into_a_mirror_without_an_index_hides_nothing(tmp_path):
    write_parquet(tmp_path / "gsm8k" / "test.parquet")
    other = write_parquet(tmp_path / "other" / "arc" / "arc_easy_test.parquet").parents[1]
    list(write_mirror([(find_source(ARC, [other], Path()), ["test"])], tmp_path))
    for config in (GSM8K, ARC):
        assert set(find_source(config, [tmp_path], Path()).files) == {"test"}


# --- files beside a task


def local(form: str, **files: str) -> dict:
    return {"dataset_path": form, "dataset_kwargs": {"data_files": files}}


@pytest.mark.parametrize("name", ["rows.parquet", "rows.json", "rows.jsonl", "rows.csv"])
def test_files_relative_to_the_task(tmp_path, name):
    rows = ROWS if not name.endswith(".csv") else [{"q": "Où ?", "n": 1}, {"q": "a,b", "n": 2}]
    if name.endswith(".parquet"):
        write_parquet(tmp_path / "sub" / name)
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        text = {
            "rows.json": f"\n [{', '.join(lines)}]\n",
            "rows.jsonl": "\n".join(lines) + "\n\n",
            "rows.csv": 'q,n\nOù ?,1\n"a,b",2\n',
        }[name]
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / name).write_text(text, encoding="utf-8")
    form = {"jsonl": "json"}.get(name.partition(".")[2], name.partition(".")[2])
    source = find_source(local(form, test=f"sub/{name}"), [], tmp_path)
    assert source.files == {"test": tmp_path / "sub" / name}
    assert load(source, ["test"])["test"].to_list() == rows


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"rows.json: the test split that the task names"):
        find_source(local("json", test="rows.json"), [], tmp_path)


@pytest.mark.parametrize("files", [None, "rows.json", {"test": ["a.json", "b.json"]}])
def test_files_that_are_not_one_for_each_split(tmp_path, files):
    config = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}
    with pytest.raises(DataError, match="data_files must name one file per split"):
        find_source(config, [], tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", b'[{"q": 1}, {"q"'),
        ("rows.json", b"[1, 2]"),
        ("rows.json", b'{"q": "\xff"}'),
        ("rows.jsonl", b'{"q": 1}\n{"q": '),
        ("rows.jsonl", b'{"q": 1}\n{"q": ["a"]}'),
        ("rows.csv", b"a,b\n1,2\n3\n"),
        ("rows.parquet", b"PAR1 and no more"),
        ("rows.parquet", b""),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    source = Source("broken", files={"test": tmp_path / name})
    with pytest.raises(DataError, match=f"^{tmp_path / name}: cannot be read as data: ."):
        load(source, ["test"])


def test_a_truncated_parquet_file_is_named(tmp_path):
    file = write_parquet(tmp_path / "rows.parquet", ROWS * 1000)
    whole = file.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=f"^{file}: cannot be read as data"):
            load(Source("broken", files={"test": file}), ["test"])


# --- identity


def test_the_identity_is_that_of_the_bytes_of_the_splits_asked(tmp_path):
    files = {split: write_parquet(tmp_path / f"{split}.parquet") for split in ("train", "test")}
    source = Source("some/set", files=files)
    both, test = identity(source, ["train", "test"]), identity(source, ["test"])
    assert len({both, test, identity(source, ["train"])}) == 3
    assert identity(source, ["test", "train", "test"]) == both
    content = bytearray(files["train"].read_bytes())
    content[-5] ^= 1
    files["train"].write_bytes(content)
    assert identity(source, ["train", "test"]) != both
    assert identity(source, ["test"]) == test
    # Where the files lie is no part of what they are.
    moved = Source("other/set", files={"test": files["test"].rename(tmp_path / "moved.parquet")})
    assert identity(moved, ["test"]) == test


def test_a_set_from_the_hub_is_its_pinned_revision():
    config = {**GSM8K, "dataset_kwargs": {"revision": "abc"}}
    source = find_source(config, [], Path())
    assert (source.files, source.options) == ({}, {"name": "main"})
    assert source.has("any split")
    assert identity(source, ["test"]) == "openai/gsm8k@abc"


def test_a_set_from_the_hub_without_a_revision_is_refused():
    with pytest.raises(DataError, match=r"openai/gsm8k/main: the task pins no revision"):
        identity(find_source(GSM8K, [], Path()), ["test"])


# --- offline


OFFLINE = """
import json, sys
from prefbench import data
from prefbench.errors import DataError
import datasets.config, huggingface_hub.constants
told = data.is_offline()
assert told == (datasets.config.HF_HUB_OFFLINE or huggingface_hub.constants.HF_HUB_OFFLINE), told
if told:
    source = data.Source("openai/gsm8k", "main", "abc", options={"name": "main"})
    try:
        data.load(source, ["test"])
    except DataError as error:
        print(error)
else:
    print("online")
"""
FLAGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


@pytest.mark.parametrize(
    ("flags", "offline"),
    [
        ({"HF_HUB_OFFLINE": "1"}, True),
        ({"TRANSFORMERS_OFFLINE": "true", "HF_DATASETS_OFFLINE": "0"}, True),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, False),
    ],
)
def test_offline_as_the_libraries_read_it(tmp_path, flags, offline):
    environment = {name: value for name, value in os.environ.items() if name not in FLAGS}
    environment |= {**flags, "HF_HOME": str(tmp_path)}
    output = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    ).stdout.strip()
    if offline:
        assert output.startswith(
            "openai/gsm8k/main: not in a mirror and not to be had from the hub (offline): "
        )
    else:
        assert output == "online"


def test_a_set_that_the_hub_does_not_give(monkeypatch):
    import datasets

    def refuse(*args, **kwargs):
        raise ConnectionError("no route\nand much more")

    for flag in FLAGS:
        monkeypatch.delenv(flag, raising=False)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=r"hub: ConnectionError: no route$"):
        load(Source("some/set", revision="abc"), ["test"])
    assert not data.is_offline()


# --- several configurations in one task

JOINED = {
    "dataset_path": "Anthropic/hh-rlhf",
    "dataset_kwargs": {"data_dir": ["helpful-base", "harmless-base"], "revision": "abc"},
}


def two_configurations(folder):
    lines = ["Anthropic/hh-rlhf:"]
    for name in ("helpful-base", "harmless-base"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"chosen": name, "rejected": "no"}) + "\n")
        lines.append(f"  {name}: {{test: {name}.jsonl}}")
    (folder / "mirror.yaml").write_text("\n".join(lines) + "\n")
    return folder


def test_several_configurations_are_one_set_with_their_names_as_domains(tmp_path):
    source = find_source(JOINED, [two_configurations(tmp_path)], tmp_path)
    assert (source.title, source.has("test")) == (
        "Anthropic/hh-rlhf/helpful-base+harmless-base",
        True,
    )
    rows = load(source, ["test"])["test"].to_list()
    assert [row["domain"] for row in rows] == ["helpful-base", "harmless-base"]
    assert [row["chosen"] for row in rows] == ["helpful-base", "harmless-base"]


def test_the_identity_of_several_configurations_is_that_of_all(tmp_path):
    folder = two_configurations(tmp_path)
    before = identity(find_source(JOINED, [folder], folder), ["test"])
    (folder / "harmless-base.jsonl").write_text(json.dumps({"chosen": "x", "rejected": "y"}) + "\n")
    assert identity(find_source(JOINED, [folder], folder), ["test"]) != before


def test_of_several_configurations_each_may_come_from_elsewhere(tmp_path):
    folder = two_configurations(tmp_path)
    text = (folder / "mirror.yaml").read_text().replace("harmless-base:", "another:")
    (folder / "mirror.yaml").write_text(text)
    source = find_source(JOINED, [folder], folder)
    assert not source.files
    assert "Anthropic/hh-rlhf@abc" in identity(source, ["test"])


def test_a_mirror_is_written_of_each_configuration(tmp_path):
    folder = two_configurations(tmp_path)
    (tmp_path / "copy").mkdir()
    source = find_source(JOINED, [folder], folder)
    list(write_mirror([(source, ["test"])], tmp_path / "copy"))
    again = find_source(JOINED, [tmp_path / "copy"], folder)
    assert load(again, ["test"])["test"].to_list() == load(source, ["test"])["test"].to_list()
