"""Requests beside checkpoints: whatever lies there is read as one, or left alone."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from prefbench.requests import REQUEST, is_whole, read_request, write_request
from tests.fuzz.conftest import examples

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=4,
)
files = st.dictionaries(st.text(max_size=8), st.lists(st.integers(), max_size=3), max_size=3)
requests = st.fixed_dictionaries(
    {"step": st.integers(-1, 9), "when": st.text(max_size=8), "files": files | values},
    optional=dict.fromkeys(("format", "method", "losses", "start", "beta", "seed"), values),
).map(lambda said: json.dumps(said).encode())


@given(st.binary(max_size=200) | requests)
@examples(100)
def test_whatever_is_there_is_read_or_left(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / REQUEST).write_bytes(content)
        request = read_request(folder)
        if request is not None:
            assert not is_whole(folder, request)  # no file that it could name is there
            write_request(folder, request)
            assert read_request(folder) == request
