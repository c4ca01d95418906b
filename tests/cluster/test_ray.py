from __future__ import annotations

import dataclasses
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import prefbench.cluster.actors
from prefbench.cells import Settings
from prefbench.cluster.ray import OnRay, needed
from prefbench.errors import ClusterError, InputError
from prefbench.listener import Listener
from prefbench.report.collect import collect
from prefbench.report.tables import render
from prefbench.runner import Outcome, run
from tests.cluster.nodes import blind_node, kill, ray_cluster, workers

pytestmark = pytest.mark.xdist_group("ray")

ray = pytest.importorskip("ray")  # an extra, and not made for every Python

TASKS = ("demo_dialogues", "demo_everyday")
SETTINGS = Settings(limit=24, batch_size=4, engine="hf", device="cpu")


@pytest.fixture(scope="module")
def runs(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "runs"
    for name in ("sft", "dpo"):
        shutil.copytree(
            small_zoo / "checkpoints" / name,
            folder / name,
            ignore=shutil.ignore_patterns("checkpoint-*"),
        )
    return folder


@pytest.fixture(scope="module")
def alone(
    runs: Path, small_zoo: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """What one process measures."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums may be split by it
    results = tmp_path_factory.mktemp("alone") / "results"
    outcome = measure(runs, results, small_zoo, None)
    torch.set_num_threads(n_threads)
    return results, outcome


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each, and a head that measures nothing."""
    with ray_cluster(0, 1, 1) as cluster:
        yield cluster


class Heard:
    """What the listeners of a run hear."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.places: dict[int, list[str]] = {}
        self.on_step: Any = lambda engine, done, total: None
        self.on_notice: Any = lambda text: None

    @property
    def listener(self) -> Listener:
        return Listener(for_engine=self.of, on_notice=self.notice)

    def notice(self, text: str) -> None:
        self.notices.append(text)
        self.on_notice(text)

    def of(self, engine: int) -> Listener:
        return Listener(
            on_step=lambda what, done, total: self.on_step(engine, done, total),
            on_place=self.places.setdefault(engine, []).append,
            on_notice=self.notice,
        )


def measure(
    runs: Path, results: Path, zoo: Path, executor: OnRay | None, heard: Heard | None = None,
    **more: Any,
) -> Outcome:  # fmt: skip
    arguments: dict[str, Any] = {"tasks": TASKS, "mirrors": [zoo / "data"], **more}
    listener = (heard or Heard()).listener
    return run(
        runs, results=results, settings=SETTINGS, listener=listener, executor=executor, **arguments
    )


def rows(results: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*.parquet"))
    }


def table(results: Path) -> str:
    return render(collect(results), "json")


def test_a_node_killed_amid_a_cell_changes_nothing(
    cluster: Any, runs: Path, small_zoo: Path, alone: tuple[Path, Outcome], tmp_path: Path
) -> None:
    heard = Heard()
    killed: list[str] = []

    def power_cut(engine: int, done: int, total: int) -> None:
        if 0 < done < total and not killed:
            place = heard.places[engine][-1]
            (node,) = (n for n in cluster.list_all_nodes() if f"({n.node_id[:6]})" in place)
            killed.append(place)
            kill(cluster, node)

    heard.on_step = power_cut
    executor = OnRay(cluster.address, max_workers=2)
    outcome = measure(runs, tmp_path / "results", small_zoo, executor, heard)
    cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    results, whole = alone
    (place,) = killed
    assert any("with its node or actor" in text and place in text for text in heard.notices)
    assert len({one for places in heard.places.values() for one in places}) >= 2
    assert outcome == whole
    assert rows(tmp_path / "results") == rows(results)
    assert table(tmp_path / "results") == table(results)
    assert list((tmp_path / "results").rglob("journal.jsonl")) == []
    assert workers() == []


def test_a_cell_that_takes_its_process_down_fails_and_the_others_are_measured(
    cluster: Any, runs: Path, small_zoo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "deadly.py").write_text("import os\n\n\ndef die(docs):\n    os._exit(7)\n")
    everyday = (Path(__file__).parents[2] / "tasks" / "_hellaswag.yaml").read_text()
    (folder / "_base.yaml").write_text(everyday)
    (folder / "deadly.yaml").write_text(
        "include: _base.yaml\ntask: deadly\nnum_fewshot: 0\n"
        "dataset_path: prefbench/demo-everyday\ndataset_kwargs: null\n"
        "process_docs: !function deadly.die\n"
        "metadata:\n  version: 1.0\n  prefbench: {metrics: [acc_norm]}\n"
    )
    outcome = measure(
        runs / "sft", tmp_path / "results", small_zoo, OnRay(cluster.address),
        tasks=["deadly", "demo_everyday"], task_folders=[folder],
    )  # fmt: skip
    assert list(outcome.failed) == ["sft × deadly"]
    (reason,) = outcome.failed.values()
    assert reason.startswith("2 processes that measured it ended, the last one with code 7")
    assert len(outcome.measured) == 1
    assert reason in render(collect(tmp_path / "results", plan=outcome.plan), "json")


def test_what_a_node_does_not_see_is_measured_on_another(
    cluster: Any, runs: Path, small_zoo: Path, alone: tuple[Path, Outcome], tmp_path: Path
) -> None:
    heard = Heard()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        with blind_node(cluster, runs):
            until = time.monotonic() + 300
            while "blind" not in ray.cluster_resources() and time.monotonic() < until:
                time.sleep(0.2)
            # All others are busy at first, so that its turn comes.
            busy = [ray.remote(Busy).options(num_cpus=1).remote() for _ in range(3)]
            held = {ray.get(one.node.remote()): one for one in busy}
            blind = next(n["NodeID"] for n in ray.nodes() if "blind" in n["Resources"])
            ray.kill(held.pop(blind))

            def let_go(text: str) -> None:
                if "nothing is measured on" in text:
                    for one in held.values():
                        ray.kill(one)

            heard.on_notice = let_go
            executor = OnRay(max_workers=1)
            outcome = measure(runs, tmp_path / "results", small_zoo, executor, heard)
    finally:
        ray.shutdown()
    assert outcome == alone[1]
    assert rows(tmp_path / "results") == rows(alone[0])
    (said,) = (text for text in heard.notices if "nothing is measured on" in text)
    assert f"({blind[:6]}): {runs}" in said
    assert "the checkpoint is not there" in said


class Busy:
    """An actor that holds a core."""

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def test_a_run_killed_amid_a_cell_ends_its_actors_and_the_same_command_goes_on(
    cluster: Any, runs: Path, small_zoo: Path, alone: tuple[Path, Outcome], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    command = [
        sys.executable, "-m", "prefbench", "run", str(runs), "--task", TASKS[0], "--task", TASKS[1],
        "--mirror", str(small_zoo / "data"), "--results", str(results), "--limit", "24",
        "--batch-size", "4", "--engine", "hf", "--device", "cpu", "--format", "json",
        "--executor", "ray", "--ray-address", cluster.address,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first:
        until = time.monotonic() + 300
        while time.monotonic() < until and not list(results.rglob("journal.jsonl")):
            time.sleep(0.02)
        at_work = workers()
        first.send_signal(signal.SIGKILL)
    assert at_work
    _, alive = psutil.wait_procs(at_work, timeout=60)
    assert alive == []
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stdout == table(alone[0])
    assert rows(results) == rows(alone[0])
    assert "Ray: 3 nodes" in again.stderr
    assert " s on " in again.stderr


def test_each_engine_has_gpus_of_its_own(
    cluster: Any, runs: Path, small_zoo: Path, tmp_path: Path
) -> None:
    """Ray only counts the GPUs here, so that the engines compute on the processor."""
    heard, seen = Heard(), set()

    def look(engine: int, done: int, total: int) -> None:
        until = time.monotonic() + 300
        while len(seen) < 2 and time.monotonic() < until:
            seen.update(one.environ()["CUDA_VISIBLE_DEVICES"] for one in workers())

    heard.on_step = look
    node = cluster.add_node(num_cpus=2, num_gpus=4, object_store_memory=80_000_000)
    try:
        outcome = run(
            runs,
            tasks=TASKS[:1],
            results=tmp_path / "results",
            settings=Settings(limit=24, batch_size=4, engine="hf", tensor_parallel_size=2),
            mirrors=[small_zoo / "data"],
            listener=heard.listener,
            executor=OnRay(cluster.address, max_workers=2),
        )
    finally:
        cluster.remove_node(node)
    assert len(outcome.measured) == 2
    assert seen == {"0,1", "2,3"}


def test_a_node_that_comes_later_is_used(
    cluster: Any, runs: Path, small_zoo: Path, alone: tuple[Path, Outcome], tmp_path: Path
) -> None:
    heard = Heard()
    large = {"num_cpus": 2, "object_store_memory": 80_000_000}  # as no other is
    nodes = [cluster.add_node(**large)]

    def grow(engine: int, done: int, total: int) -> None:
        if len(nodes) == 1:
            nodes.append(cluster.add_node(**large))
            until = time.monotonic() + 300
            while len(workers()) < 2 and time.monotonic() < until:
                time.sleep(0.2)

    heard.on_step = grow
    try:
        executor = OnRay(cluster.address, cpus_each=2)
        outcome = measure(runs, tmp_path / "results", small_zoo, executor, heard)
    finally:
        for node in nodes:
            cluster.remove_node(node)
    assert outcome == alone[1]
    assert rows(tmp_path / "results") == rows(alone[0])
    for engine, node in enumerate(nodes):
        assert f"({node.node_id[:6]})" in heard.places[engine][0]


def test_what_a_cluster_cannot_do_is_said(
    cluster: Any, runs: Path, small_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_much = OnRay(cluster.address, cpus_each=64, patience=0)
    with pytest.raises(
        ClusterError, match="no node has 64 CPU; there are 1 with 0 CPU, 2 with 1 CPU"
    ):
        measure(runs, tmp_path / "results", small_zoo, too_much)
    monkeypatch.setattr(prefbench.cluster.actors, "__version__", "0.0.1")
    with pytest.raises(ClusterError, match=r"it has prefbench .*, and the run .* by 0\.0\.1"):
        measure(runs, tmp_path / "results", small_zoo, OnRay(cluster.address))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"no Ray cluster at {free}: .*refused.*--ray-address"):
        measure(runs, tmp_path / "results", small_zoo, OnRay(free))
    two = dataclasses.replace(SETTINGS, data_parallel_size=2)
    with pytest.raises(InputError, match="--max-workers"), OnRay().opened(two, Listener()):
        pass


def test_what_an_engine_asks_for() -> None:
    gpus = [{"CPU": 64.0, "GPU": 8.0}, {"CPU": 2.0}]
    for settings, cpus, nodes, wanted in (
        (Settings(), None, gpus, {"GPU": 1, "CPU": 1}),
        (Settings(tensor_parallel_size=4), 6, gpus, {"GPU": 4, "CPU": 6}),
        (Settings(tensor_parallel_size=4), None, [], {"GPU": 4, "CPU": 1}),
        (Settings(device="cuda"), None, [], {"GPU": 1, "CPU": 1}),
        (Settings(device="cpu"), None, gpus, {"CPU": 2}),
        (Settings(), None, [{"CPU": 64.0}], {"CPU": 4}),
        (Settings(engine="server", base_url="http://a:1/v1"), 1, gpus, {"CPU": 1}),
    ):
        assert needed(settings, cpus, nodes) == wanted
    for wrong in ({"max_workers": 0}, {"cpus_each": 0}, {"patience": -1.0}):
        with pytest.raises(InputError):
            OnRay(**wrong)
