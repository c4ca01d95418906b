"""A run on a Ray cluster whose nodes see the driver's results on an object store alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefbench.buckets.places import place
from prefbench.cells import Settings
from prefbench.cluster.ray import OnRay
from prefbench.report.collect import collect
from prefbench.report.tables import render
from prefbench.runner import run
from tests.buckets.server import Server
from tests.cluster.nodes import ray_cluster

pytestmark = pytest.mark.xdist_group("ray")

pytest.importorskip("ray")  # an extra, and not made for every Python


def test_nodes_with_other_caches_fill_one_bucket(
    small_zoo: Path, tmp_path: Path, server: Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {"alone": tmp_path / "alone", "ray": place(address)}
    monkeypatch.setenv("PREFBENCH_CACHE", str(tmp_path / "node"))
    with ray_cluster(0, 2) as cluster:  # its nodes keep this environment
        monkeypatch.setenv("PREFBENCH_CACHE", str(tmp_path / "cache"))
        for name, executor in (("alone", None), ("ray", OnRay(cluster.address, cpus_each=1))):
            outcome = run(
                [small_zoo / "checkpoints" / one for one in ("sft", "dpo")],
                tasks=["demo_everyday"],
                results=results[name],
                settings=Settings(limit=12, batch_size=4, engine="hf", device="cpu"),
                mirrors=[small_zoo / "data"],
                final_only=True,
                executor=executor,
            )
            assert len(outcome.measured) == 2
            assert outcome.left is None
    tables = [render(collect(one), "json") for one in results.values()]
    assert tables[0] == tables[1]
    kept = {
        path.relative_to(results["alone"]).as_posix(): path.read_bytes()
        for path in results["alone"].rglob("*.parquet")
    }
    root = address.removeprefix("s3://")
    there = {name.removeprefix(f"{root}/"): name for name in server.files.find(root)}
    assert {name: server.files.cat_file(there[name]) for name in kept} == kept
    assert list((tmp_path / "node").rglob("records.parquet"))
