from __future__ import annotations

import pytest

from prefbench.buckets.places import place
from prefbench.doctor.machine import results_finding
from tests.buckets.server import Server

pytestmark = pytest.mark.xdist_group("s3")


def test_an_address_is_asked_whether_results_can_be_kept_there(
    server: Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = results_finding(place(address))
    assert (found.state, found.detail.split("; ")[0]) == ("ok", address)
    found = results_finding(place("s3://no-such-bucket/results"))
    assert found.state == "broken"
    assert "s3://no-such-bucket/results: is not there" in found.detail
    server.go()
    try:
        found = results_finding(place(address))
    finally:
        server.come()
    assert found.state == "broken"
    assert "Could not connect" in found.detail
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    found = results_finding(place(address))
    assert found.state == "broken"
    assert "set AWS_PROFILE, or AWS_ACCESS_KEY_ID" in found.detail
