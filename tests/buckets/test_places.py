from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from prefbench.buckets.bucket import bucket_of
from prefbench.buckets.names import cell_of, kind_of
from prefbench.buckets.objects import Objects
from prefbench.buckets.places import checked, is_address, place, told, working_copy
from prefbench.cli import app
from prefbench.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_address_has_one_working_copy_and_a_path_is_a_path(cache: Path) -> None:
    one = place("s3://bucket/some/prefix/")
    assert one == place("S3://bucket/some/prefix")
    assert one.parent == cache / "results"
    assert told(one) == "s3://bucket/some/prefix"
    assert place(told(one)) == one
    assert place("s3://bucket/other") != one
    assert place("results/here") == Path("results/here")
    assert told(Path("results/here")) == "results/here"


def test_another_server_is_another_place(monkeypatch: pytest.MonkeyPatch) -> None:
    one = place("s3://bucket/p")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert place("s3://bucket/p") != one


def test_a_directory_that_somebody_made_does_not_say_where_results_are_sent(
    tmp_path: Path,
) -> None:
    copy = place("s3://bucket/p")
    forged = tmp_path / "forged"
    forged.mkdir()
    (forged / "remote.json").write_bytes((copy / "remote.json").read_bytes())
    assert working_copy(copy) is not None
    assert working_copy(forged) is None
    (copy / "remote.json").write_text(json.dumps({"url": "s3://elsewhere", "copy": "x"}))
    assert working_copy(copy) is None


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIAABCDEFGH:hunter2@bucket/p",
        "s3://hunter2@bucket/p",
        "abfs://box:hunter2@account.dfs.core.windows.net/p",
        "s3://bucket/p?secret=hunter2",
        "s3://bucket/p#hunter2",
        "https://bucket.example/p",
        "simplecache::s3://bucket/p",
        "s3://bucket/../p",
        "s3://",
    ],
)
def test_what_is_no_place_for_results_is_refused_without_its_key(text: str, cache: Path) -> None:
    assert is_address(text)
    with pytest.raises(InputError) as refused:
        checked(text)
    assert "hunter2" not in str(refused.value)
    said = CliRunner().invoke(app, ["table", text])
    assert said.exit_code == 2
    assert "hunter2" not in said.output
    assert CliRunner().invoke(app, ["gate", "-p", "p.yaml", text]).exit_code == 3
    assert not cache.exists()


def test_an_azure_account_is_no_password() -> None:
    url = "abfs://box@account.dfs.core.windows.net/p"
    assert checked(url) == url


def test_a_missing_library_names_what_to_install() -> None:
    program = """
        import sys
        sys.modules["s3fs"] = None  # before fsspec has found it
        from prefbench.buckets.objects import Objects
        Objects("s3://bucket/p")
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "InputError: " in done.stderr
    assert "pip install 'prefbench[s3]'" in done.stderr
    with pytest.raises(InputError, match="no object store that fsspec knows"):
        Objects("nonsense://bucket/p")


@pytest.mark.parametrize("told", ["soon", "-1", "nan", "inf"])
def test_senseless_seconds_are_refused(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv("PREFBENCH_UPLOAD_EVERY", told)
    with pytest.raises(InputError, match=f"PREFBENCH_UPLOAD_EVERY={told}: say seconds"):
        bucket_of(place("s3://bucket/p"))


@given(st.text(alphabet="abc./\\0~-_\n\x00é", max_size=40))
def test_no_name_leads_out(text: str) -> None:
    for name in (
        text,
        f"cells/{text}/manifest.json",
        f"items/{text}.parquet",
        f"plans/{text}.json",
    ):
        if kind_of(name):
            parts = name.split("/")
            assert not {"", ".", ".."} & set(parts)
            assert name.isascii()
            assert name.isprintable()
            assert "\\" not in name
            assert Path("/copy", name).resolve().is_relative_to("/copy")
            if parts[0] == "cells":
                assert cell_of(name) == parts[1]


@pytest.mark.parametrize(
    "name",
    [
        "../store.json",
        "/etc/passwd",
        "cells/../../manifest.json",
        "cells/a/../manifest.json",
        "cells//manifest.json",
        "cells/a/lock",
        "cells/a/manifest.json\n",
        "remote.json",
        "seen.sqlite",
        "verdicts.sqlite",
        "logs/a.jsonl",
        "leases/cell-a.json",
        ".judge-a.lock",
        "plans/.x.json",
    ],
)
def test_other_names_are_never_looked_at(name: str) -> None:
    assert kind_of(name) is None
