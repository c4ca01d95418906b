"""A server for all tests of this folder; each has a bucket, and a cache of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.buckets.server import Server


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, and an environment that leads there."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("PREFBENCH_CACHE", str(tmp_path / "cache"))
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture
def address(server: Server) -> str:
    """An empty prefix in a bucket of the test's own."""
    bucket = f"b{uuid.uuid4().hex}"
    server.files.mkdir(bucket)
    return f"s3://{bucket}/some/results"
